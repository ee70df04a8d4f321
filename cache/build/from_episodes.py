"""Stage 1 from episode files: what ``distill robotics cache-features`` calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.build.pipeline import Build, BuildOptions, build_cache
from cache.build.summary import BuildSummary
from cache.runtime.devices import choose_device, default_workers, keep_freed_memory
from cache.runtime.distributed import ranks_of_torchrun
from cache.runtime.progress import Progress, Silent
from cache.sources.episode_texts import NEGATIVE_TEMPLATE, POSITIVE_TEMPLATE, episode_banks
from cache.sources.episodes import EpisodeFolder
from cache.store.manifest import EPISODES
from cache.store.spec import CacheSpec
from cache.teacher.open_clip_model import load_teacher


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions:
    """Everything that ``distill robotics cache-features`` can be told.

    Descriptions left None are looked for in DATA: one line an object, ID objects sorted, then OOD ones.
    """

    model: str
    pretrained: str | None = None
    preprocessing: str = "model"
    precision: str = "auto"
    device: str = "auto"
    template: str = POSITIVE_TEMPLATE
    negative_template: str = NEGATIVE_TEMPLATE
    descriptions: Path | None = None
    negative_descriptions: Path | None = None
    regions: bool = False
    format: str = "hdf5"
    dtype: str = "float16"
    rows_per_shard: int = 4096
    batch_size: int | None = None
    workers: int | None = None
    strict: bool = False
    rebuild: bool = False
    keep_text_tower: bool = False


def cache_episode_features(
    data: Path, out: Path, options: EpisodeOptions, *, progress: Progress | None = None
) -> BuildSummary:
    """Embed both cameras of every episode and the objects' texts into ``out``; run again, it continues.

    ``image_embedding`` is the hand camera's, ``base_embedding`` the base camera's; with ``regions`` there are
    ``image_region_embedding`` and ``base_region_embedding`` [49, D] too.

    Raises
    ------
    UserError
        If anything the user gave is wrong.
    """
    folder = EpisodeFolder.scan(data)
    banks = episode_banks(
        folder,
        template=options.template,
        negative_template=options.negative_template,
        descriptions=options.descriptions,
        negative_descriptions=options.negative_descriptions,
    )
    device = choose_device(options.device)
    keep_freed_memory(device)
    teacher = load_teacher(
        options.model,
        pretrained=options.pretrained,
        preprocessing=options.preprocessing,
        precision=options.precision,
        device=device,
    )
    if options.regions:
        teacher.check_regions()
    spec = CacheSpec(
        teacher=teacher.spec,
        dtype=options.dtype,
        format=options.format,
        rows_per_shard=options.rows_per_shard,
        regions=options.regions,
    )
    build = BuildOptions(
        batch_size=options.batch_size or (128 if device.type == "cuda" else 16),
        workers=default_workers(device) if options.workers is None else options.workers,
        strict=options.strict,
        rebuild=options.rebuild,
        # Neighbours belong to L-vlalign, which knows one label an image.
        neighbours=0,
        keep_text_tower=options.keep_text_tower,
    )
    with ranks_of_torchrun() as ranks:
        run = Build(
            folder=folder,
            out=out,
            teacher=teacher,
            spec=spec,
            banks=banks,
            options=build,
            progress=progress or Silent(),
            ranks=ranks,
            command=EPISODES,
        )
        return build_cache(run)
