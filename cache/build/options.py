"""What stage 1 can be told, of photos and of episodes, and the run that is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from cache.build.captions import Captions
from cache.runtime.devices import choose_device, default_workers, keep_freed_memory
from cache.runtime.distributed import Ranks
from cache.runtime.progress import Progress, Silent
from cache.sources.class_texts import BankTexts
from cache.sources.decoding import PLAIN, Decoding
from cache.sources.episode_keys import EpisodeKeys
from cache.sources.kept_sources import KeptSources
from cache.sources.samples import DataFolder
from cache.sources.splits import MAIN_TEACHER
from cache.store.crop_views import CROP_FLIP
from cache.store.manifest import EPISODES, NAME, Manifest
from cache.store.projections import RAW
from cache.store.spec import PRECISIONS, CacheSpec
from cache.teacher.load import load_teacher
from cache.teacher.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """Which teacher, and where it computes; ``weights_sha256``, where given, is that of its weights."""

    model: str
    pretrained: str | None = None
    preprocessing: str = "model"
    precision: str = "auto"
    compile: bool = False
    device: str = "auto"
    weights_sha256: str | None = None

    def load(self) -> Teacher:
        """Return the teacher; UserError as :func:`cache.teacher.load.load_teacher`."""
        device = choose_device(self.device)
        keep_freed_memory(device)
        return load_teacher(
            self.model,
            pretrained=self.pretrained,
            preprocessing=self.preprocessing,
            precision=self.precision,
            compile=self.compile,
            device=device,
            weights_sha256=self.weights_sha256,
        )


@dataclass(frozen=True, kw_only=True)
class BuildOptions(TeacherOptions):
    """What every stage-1 run can be told.

    ``batch_size`` and ``workers`` None are by the device. ``neighbours`` nearest texts of every image are
    kept, None: where that pays (:func:`cache.store.neighbours.kept_of`). ``support_views`` copies an image
    are kept for few-shot retrieval, the plain one counted, of the first ``support_shots`` images of each
    class, 0 for all;
    ``views`` for training to replay, crops of at least ``views_scale`` of the area, drawn by ``view_policy``
    (:data:`cache.store.crop_views.POLICIES`) and kept as ``store`` says
    (:data:`cache.store.projections.STORES`); ``pixels`` a side as ``pixels_format`` raw or jpeg.
    """

    format: str = "hdf5"
    dtype: str = "float16"
    batch_size: int | None = None
    workers: int | None = None
    strict: bool = False
    rebuild: bool = False
    neighbours: int | None = None
    support_views: int = 0
    support_shots: int = 0
    views: int | None = None
    views_scale: float = 0.3
    view_policy: str = CROP_FLIP
    store: str = RAW
    pixels: int | None = None
    pixels_format: str = "raw"
    keep_text_tower: bool = False
    shared_classes: bool = False

    def load_for(self, out: Path, name: str = MAIN_TEACHER) -> Teacher:
        """Return the teacher of a cache that is begun, or continued where ``out`` has its rows.

        ``auto`` is then the precision of the rows that are there: what a GPU began in bfloat16 a CPU goes on
        with in bfloat16. ``--rebuild`` begins anew. Raises as ``load``.
        """
        before = ""
        if self.precision == "auto" and not self.rebuild and (out / NAME).is_file():
            teachers = Manifest.load(out).teacher_specs
            before = teachers[name].precision if name in teachers else ""
        # Rows that were imported may be of any.
        return replace(self, precision=before if before in PRECISIONS else self.precision).load()

    def spec(
        self,
        teacher: Teacher,
        *,
        decoding: Decoding = PLAIN,
        regions: bool = False,
        keys: EpisodeKeys | None = None,
    ) -> CacheSpec:
        """Return the make of a cache by these options."""
        return CacheSpec(
            teacher=teacher.spec,
            dtype=self.dtype,
            format=self.format,
            regions=regions,
            decoding=decoding,
            episode_keys=keys,
        )

    def on(self, teacher: Teacher, *, batch_size: int, on_gpu: int) -> Self:
        """Return the options with what is by the device: of a batch ``batch_size``, or ``on_gpu``."""
        device = teacher.device
        return replace(
            self,
            batch_size=self.batch_size or (on_gpu if device.type == "cuda" else batch_size),
            workers=default_workers(device) if self.workers is None else self.workers,
        )


@dataclass(frozen=True, kw_only=True)
class Build:
    """One stage-1 run: what is embedded, by whom, into which cache.

    ``command`` is what the manifest says of the command; with several ranks each embeds its share, and
    the first does what there is one of. ``sources`` are kept, to be opened again.
    """

    folder: DataFolder
    out: Path
    teacher: Teacher
    spec: CacheSpec
    options: BuildOptions
    banks: Sequence[BankTexts] = ()
    captions: Captions | None = None
    progress: Progress = field(default_factory=Silent)
    ranks: Ranks = field(default_factory=Ranks)
    command: str = ""
    sources: KeptSources | None = None

    @property
    def unit(self) -> str:
        """What its rows are of, as progress counts them."""
        return "episodes" if self.command == EPISODES else "images"
