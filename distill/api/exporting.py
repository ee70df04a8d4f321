"""``distill.export``: a trained student as a folder that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from cache.reader import EmbeddingCache
from cache.runtime.amounts import in_bytes
from cache.runtime.errors import UserError
from distill.api.given import (
    Bounds,
    Place,
    Watching,
    check_bounds,
    existing_folder,
    listed,
    maybe_cache,
    maybe_path,
    watched,
)
from distill.api.traces import without_a_trace
from distill.api.training import TrainedStudent
from distill.api.words import told_in_python
from distill.data.folders import Data, given_of
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import ModelInfo
from distill.deploy.vocabulary_rows import VocabularySource


class Exporting(TypedDict, total=False):
    """What else an export can be told: the options of ``distill export``, by their names.

    Left out they are as there. ``vocabulary`` is a file of words, one a line, or ``"default"``, whose rows
    ``teacher_model`` and ``pretrained`` make where the cache has not kept the text tower.
    """

    preprocessing: Literal["outside", "graph"]
    int8: Literal["static", "qat"] | None
    teacher: str | None
    license: str
    check_images: int
    nearest_images: int
    checkpoint: str
    cache: EmbeddingCache | Place | None
    code: Place | None
    unknowns: str | Sequence[str]
    data_name: str
    vocabulary: Place | None
    teacher_model: str | None
    pretrained: str | None


BOUNDS: Bounds = {"check_images": (1, None), "nearest_images": (0, None)}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported model: its ``folder``, for :func:`distill.load_model`, and what its ``model.json`` says.

    ``info.measured`` has by precision what each file does on the run's test images.
    """

    folder: Path
    info: ModelInfo = field(repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each file that does not answer as the student does."""
        return tuple(self.info.warning(name) for name in self.info.unlike)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {in_bytes(one['bytes'])}" for name, one in self.info.measured.items())
        return f"Exported({str(self.folder)!r}: {self.info.arch}, {sizes})"


@told_in_python(Exporting)
@without_a_trace()
def export(
    run: TrainedStudent | Place,
    out: Place,
    *,
    formats: str | Sequence[str] = ("onnx",),
    precisions: str | Sequence[str] = ("float32",),
    data: Data = None,
    progress: Watching = False,
    **more: Unpack[Exporting],
) -> Exported:
    """Write a folder that stands alone with a run's student; it needs the extra ``export``.

    Parameters
    ----------
    run
        What :func:`distill.train_student` returned, or its folder.
    out
        A new folder for the model.
    formats
        Some of ``onnx``, ``torch``, ``safetensors``, ``open_clip``, ``timm``, ``tflite``.
    precisions
        Of the ONNX graph: some of ``float32``, ``float16``, ``int8``.
    data
        Where the images are now, on which every file is compared with the student; None: where they were.
    progress
        True writes lines to standard error; or an object with ``start``, ``advance`` and ``note``.
    more
        The command's other options: :class:`Exporting`.

    Returns
    -------
    Exported
        The folder, and its size and accuracy by precision.

    Raises
    ------
    UserError
        If the run has no embeddings, ``out`` is not empty, a package is not installed, or a float32 file
        differs from the student by more than 1e-4 in an embedding.

    Examples
    --------
    >>> exported = distill.export("runs/first", "models/first")  # doctest: +SKIP
    >>> distill.load_model(exported.folder).predict("photo.jpg")  # doctest: +SKIP
    """
    folder = run.folder if isinstance(run, TrainedStudent) else existing_folder(run, what="a run")
    options = _options(more)
    chosen = ExportOptions(
        formats=listed(formats), precisions=listed(precisions), data_dir=given_of(data), **options
    )
    with watched(progress, "exporting", "words" if chosen.vocabulary else "images") as watching:
        info = export_run(folder, Path(out), chosen, progress=watching)
    return Exported(folder=Path(out), info=info)


def _options(more: Exporting) -> dict[str, Any]:
    """Return options of Python as :class:`ExportOptions` takes them."""
    check_bounds(more, BOUNDS)
    words, teacher, source = more.get("vocabulary"), more.get("teacher_model"), None
    if words is not None:
        source = VocabularySource(words=Path(words), teacher_model=teacher, pretrained=more.get("pretrained"))
    elif teacher is not None or more.get("pretrained") is not None:
        raise UserError(
            "teacher_model and pretrained are of vocabulary", fix="give that too, or leave them out."
        )
    own = ("vocabulary", "teacher_model", "pretrained", "cache", "code", "unknowns")
    return {
        **{name: value for name, value in more.items() if name not in own},
        "vocabulary": source,
        "cache_dir": maybe_cache(more.get("cache")),
        "code": maybe_path(more.get("code")),
        "unknowns": listed(more.get("unknowns")),
    }
