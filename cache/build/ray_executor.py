"""Shards made as Ray tasks, on machines that share the storage of images and cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cache.build.captions import Captions
from cache.build.embed_images import Seconds, ShardPlan, embed_shards
from cache.build.options import Build, TeacherOptions
from cache.build.shard_writer import note_skipped, with_captions, with_written, write_embedded
from cache.runtime.devices import default_workers
from cache.runtime.errors import CacheMismatch
from cache.runtime.machine_limits import workers_here
from cache.runtime.ray_pool import RayCluster, cannot_hold, connected, run_tasks
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedShard, SkippedImage
from cache.store.spec import CacheSpec


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How shards are made, wherever; ``workers`` None are by that machine's device."""

    out: Path
    source: TeacherOptions
    spec: CacheSpec
    batch_size: int
    workers: int | None
    strict: bool


@dataclass(frozen=True, kw_only=True)
class MadeShard:
    """A shard that is written, None where no image of it could be read."""

    entry: ListedShard | None
    skipped: list[SkippedImage]
    seconds: Seconds


@dataclass(frozen=True, kw_only=True)
class EmbedOnRay:
    """Makes each shard in a task of its own; one whose worker dies is made again elsewhere.

    All shards have the same batches as in one process: where they are made changes nothing but rounding.
    """

    cluster: RayCluster
    source: TeacherOptions
    workers: int | None

    def __call__(
        self, build: Build, manifest: Manifest, plans: Sequence[ShardPlan], seconds: Seconds
    ) -> Manifest:
        """Make the shards; see ``cache.build.pipeline.Embed``."""
        progress = build.progress
        progress.start(sum(len(plan.images) for plan in plans))
        by_file = {plan.file: plan for plan in plans}
        setting = Setting(
            out=build.out,
            source=self.source,
            spec=manifest.spec,
            batch_size=build.options.batch_size or 1,
            workers=self.workers,
            strict=build.options.strict,
        )
        calls = {plan.file: (setting, plan, _captions_of(plan, build.captions)) for plan in plans}
        with connected(self.cluster):
            if why := cannot_hold(self.cluster) if plans else "":
                progress.note(why)
            # Ctrl-C reaches the command as it is: what is listed is kept.
            for ended in run_tasks(make_shard, calls, self.cluster, fresh=False, asked_to_stop=lambda: False):
                if ended is None:
                    continue
                plan, made = by_file[ended[0]], ended[1]
                if isinstance(made, Exception):
                    raise made
                note_skipped(progress, plan.split, made.skipped)
                manifest = with_written(manifest, plan.split, made.entry, made.skipped)
                manifest.save(build.out)
                seconds.add(made.seconds)
                progress.advance(len(plan.images))
        return manifest


def _captions_of(plan: ShardPlan, captions: Captions | None) -> Captions | None:
    return captions.only(plan.split, [image.key for image in plan.images]) if captions else None


# A process keeps its teacher for the next shard.
_teacher = lru_cache(maxsize=1)(TeacherOptions.load)


def make_shard(setting: Setting, plan: ShardPlan, captions: Captions | None) -> MadeShard:
    """Make one shard in this process.

    Raises
    ------
    CacheMismatch
        If this machine's weights are others than those of the cache.
    UserError
        As :func:`cache.build.embed_images.embed_shards`.
    """
    teacher = _teacher(setting.source)
    differences = setting.spec.differences(replace(setting.spec, teacher=teacher.spec))
    if differences:
        raise CacheMismatch(
            f"a machine of the cluster has another teacher ({'; '.join(differences)})",
            fix="give all machines the same weights.",
        )
    seconds = Seconds()
    workers = default_workers(teacher.device) if setting.workers is None else workers_here(setting.workers)
    (shard,) = embed_shards(
        teacher,
        [plan],
        batch_size=setting.batch_size,
        workers=workers,
        strict=setting.strict,
        regions=setting.spec.regions,
        seconds=seconds,
        on_images=lambda images: None,
    )
    rows, about = with_captions(shard.rows(setting.spec.dtype), captions, teacher)
    began = time.perf_counter()
    entry = write_embedded(setting.out, shard, rows, setting.spec.format, about)
    seconds.writing += time.perf_counter() - began
    return MadeShard(entry=entry, skipped=shard.skipped, seconds=seconds)
