"""What was given to an adaptation, looked at before torch is imported, which takes seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cache import EmbeddingCache
from cache.build.first_look import check_model
from distill.adapt.names import Names, names_to_tell_apart
from distill.adapt.options import AdaptOptions
from distill.adapt.photos import Photos, look
from distill.deploy.new_folder import check_begun
from distill.deploy.onnx_door import check_can_export


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """The names and photos that were given, None of a cache; ``began`` is when that began (perf_counter)."""

    began: float
    names: Names | None = None
    photos: Photos | None = None


def first_look(options: AdaptOptions) -> FirstLook:
    """Look at all that was given; UserError if names, photos, teacher, cache or ``out`` will not do.

    Or if what writes a model is not installed: the teacher may take hours until that is asked for.
    """
    began, options = time.perf_counter(), options.anywhere()
    check_can_export()
    check_begun(options.out, options.work, what="adaptation")
    if not options.names:
        assert options.cache is not None
        EmbeddingCache.open(options.cache)
        return FirstLook(began=began)
    names = names_to_tell_apart(options.names)
    check_model(options.model)
    return FirstLook(began=began, names=names, photos=look(options.sources, names))
