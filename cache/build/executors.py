"""Who makes planned shards: this process, or one of several that torchrun started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cache.build.captions import Captions
from cache.build.embed_images import Seconds, ShardPlan, embed_shards
from cache.build.shard_writer import ShardWriter
from cache.runtime.distributed import Ranks
from cache.runtime.progress import Progress
from cache.store.manifest import Manifest
from cache.store.rank_manifests import folder_of_rank
from cache.teacher.open_clip_model import Teacher


class Embedder(Protocol):
    """Makes shards."""

    def __call__(
        self, manifest: Manifest, plans: Sequence[ShardPlan], *, progress: Progress, seconds: Seconds
    ) -> Manifest:
        """Make planned shards and return the manifest that lists them, saved after each."""
        ...


@dataclass(frozen=True, kw_only=True)
class EmbedHere:
    """Makes shards in this process; of several ranks each makes its own, and keeps a manifest of its own."""

    out: Path
    teacher: Teacher
    captions: Captions | None
    batch_size: int
    workers: int
    strict: bool
    ranks: Ranks

    def __call__(
        self, manifest: Manifest, plans: Sequence[ShardPlan], *, progress: Progress, seconds: Seconds
    ) -> Manifest:
        """Make this rank's share of the shards; see :class:`Embedder`."""
        mine = plans[self.ranks.rank :: self.ranks.world]
        progress.start(sum(len(plan.images) for plan in mine))
        shards = embed_shards(
            self.teacher,
            mine,
            batch_size=self.batch_size,
            workers=self.workers,
            strict=self.strict,
            regions=manifest.spec.regions,
            seconds=seconds,
            on_images=progress.advance,
        )
        keep_in = self.out if self.ranks.is_first else folder_of_rank(self.out, self.ranks.rank)
        writer = ShardWriter(
            out=self.out,
            teacher=self.teacher,
            captions=self.captions,
            save=lambda changed: changed.save(keep_in),
            note=progress.note,
        )
        return writer.write_all(shards, manifest, seconds)
