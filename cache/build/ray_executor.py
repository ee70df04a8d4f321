"""Shards made as Ray tasks, on machines that share the storage of images and cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from cache.build.captions import Captions
from cache.build.embed_images import Seconds, ShardPlan, embed_shards
from cache.build.options import TeacherOptions
from cache.build.shard_writer import skipped_note, with_captions, write_embedded
from cache.runtime.devices import default_workers
from cache.runtime.errors import CacheMismatch
from cache.runtime.machine_limits import workers_here
from cache.runtime.progress import Progress
from cache.runtime.ray_pool import RayCluster, cannot_hold, connected, run_tasks
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedShard, SkippedImage
from cache.store.spec import CacheSpec
from cache.teacher.open_clip_model import Teacher


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to be made, wherever; ``batch_size`` and ``workers`` None are by that machine's device."""

    plan: ShardPlan
    out: Path
    source: TeacherOptions
    spec: CacheSpec
    captions: Captions | None
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
    out: Path
    source: TeacherOptions
    captions: Captions | None
    batch_size: int
    workers: int | None
    strict: bool

    def __call__(
        self, manifest: Manifest, plans: Sequence[ShardPlan], *, progress: Progress, seconds: Seconds
    ) -> Manifest:
        """See :class:`cache.build.executors.Embedder`."""
        progress.start(sum(len(plan.images) for plan in plans))
        by_file = {plan.file: plan for plan in plans}
        calls = {plan.file: (self._task(plan, manifest.spec),) for plan in plans}
        with connected(self.cluster):
            if why := cannot_hold(self.cluster) if plans else "":
                progress.note(why)
            for ended in run_tasks(make_shard, calls, self.cluster, fresh=False, asked_to_stop=_never):
                if ended is None:
                    continue
                plan, made = by_file[ended[0]], ended[1]
                if isinstance(made, Exception):
                    raise made
                manifest = _listed(manifest, plan, made, progress.note)
                manifest.save(self.out)
                _add(seconds, made.seconds)
                progress.advance(len(plan.images))
        return manifest

    def _task(self, plan: ShardPlan, spec: CacheSpec) -> ShardTask:
        images = [image.key for image in plan.images]
        return ShardTask(
            plan=plan,
            out=self.out,
            source=self.source,
            spec=spec,
            captions=self.captions.only(plan.split, images) if self.captions else None,
            batch_size=self.batch_size,
            workers=self.workers,
            strict=self.strict,
        )


def _never() -> bool:
    """Ctrl-C reaches the command as it is: what is listed is kept."""
    return False


def _listed(manifest: Manifest, plan: ShardPlan, made: MadeShard, note: Callable[[str], None]) -> Manifest:
    for image in made.skipped:
        note(skipped_note(plan.split, image))
    manifest = manifest.with_skipped(plan.split, made.skipped)
    return manifest if made.entry is None else manifest.with_shard(plan.split, made.entry)


def _add(seconds: Seconds, more: Seconds) -> None:
    for part in fields(Seconds):
        setattr(seconds, part.name, getattr(seconds, part.name) + getattr(more, part.name))


@lru_cache(maxsize=1)
def _teacher(source: TeacherOptions) -> Teacher:
    return source.load()


def make_shard(task: ShardTask) -> MadeShard:
    """Make one shard in this process, which keeps its teacher for the next.

    Raises
    ------
    CacheMismatch
        If this machine's weights are others than those of the cache.
    UserError
        As :func:`cache.build.embed_images.embed_shards`.
    """
    teacher = _teacher(task.source)
    differences = task.spec.differences(replace(task.spec, teacher=teacher.spec))
    if differences:
        raise CacheMismatch(
            f"a machine of the cluster has another teacher ({'; '.join(differences)})",
            fix="give all machines the same weights.",
        )
    seconds = Seconds()
    workers = default_workers(teacher.device) if task.workers is None else workers_here(task.workers)
    (shard,) = embed_shards(
        teacher,
        [task.plan],
        batch_size=task.batch_size,
        workers=workers,
        strict=task.strict,
        regions=task.spec.regions,
        seconds=seconds,
        on_images=lambda images: None,
    )
    rows, about = with_captions(shard.rows(task.spec.dtype), task.captions, teacher)
    began = time.perf_counter()
    entry = write_embedded(task.out, shard, rows, task.spec.format, about)
    seconds.writing += time.perf_counter() - began
    return MadeShard(entry=entry, skipped=shard.skipped, seconds=seconds)
