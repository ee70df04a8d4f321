"""What ``distill export`` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.runtime.errors import WrongOption, nearest_names
from distill.data.folders import Data
from distill.deploy.info import OUTSIDE, PRECISIONS
from distill.deploy.models import FORMATS
from distill.deploy.vocabulary_rows import VocabularySource


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What ``distill export`` can be told.

    ``check_images`` is how many images of each test split every file is compared on; ``nearest_images`` how
    many training images (small pictures and the teacher's embeddings) go along, to be shown beside answers;
    ``data_name`` is what the card calls the data, '' as their folder;
    ``unknowns`` are sources of pictures of none of the classes; ``int8`` asks for the int8 file and says what
    it is made of: the student's weights (as where None), or what :func:`distill.deploy.qat.fitted_to_int8`
    makes of them.
    """

    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("float32",)
    preprocessing: str = OUTSIDE
    checkpoint: str = "last"
    teacher: str | None = None
    license: str = "unknown"
    int8: str | None = None
    check_images: int = 2000
    nearest_images: int = 200
    data_dir: Data = None
    cache_dir: Path | None = None
    code: Path | None = None
    vocabulary: VocabularySource | None = None
    unknowns: tuple[str, ...] = ()
    data_name: str = ""

    def __post_init__(self) -> None:
        for option, given, choices in (
            ("--formats", self.formats, FORMATS),
            ("--precisions", self.precisions, PRECISIONS),
        ):
            for wrong in [name for name in given or [""] if name not in choices]:
                raise WrongOption(
                    f"{option} names {wrong!r}",
                    fix=f"{nearest_names(wrong, choices)}choose from {', '.join(choices)}.",
                )

    @property
    def all_precisions(self) -> tuple[str, ...]:
        """Those of the ONNX graph, int8 too where it was said what its file is made of."""
        return tuple(dict.fromkeys((*self.precisions, *(("int8",) if self.int8 else ()))))

    def check_without_texts(self, run: Path) -> None:
        """Refuse what a model that gives embeddings alone cannot have; UserError."""
        for option, given in (
            ("--vocabulary", self.vocabulary is not None),
            ("--unknowns", bool(self.unknowns)),
            ("--formats open_clip", "open_clip" in self.formats),
        ):
            if given:
                raise WrongOption(
                    f"{option} needs texts, and the teacher of {run} has none",
                    fix="leave it out: such a model gives embeddings alone; or add class means to the cache: "
                    "distill cache add-texts CACHE --bank means --from-images.",
                )
