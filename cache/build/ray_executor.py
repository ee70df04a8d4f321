"""Units embedded as Ray tasks, on machines that share the storage of images and cache."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cache.build.embed_images import Seconds, UnitSettings, Writer
from cache.build.embed_units import embed_units, note_skipped
from cache.build.options import Build, TeacherOptions
from cache.build.plan import Plan, Unit
from cache.build.unit_samples import made_before
from cache.runtime.devices import default_workers
from cache.runtime.errors import CacheMismatch
from cache.runtime.machine_limits import workers_here
from cache.runtime.progress import Progress, Silent
from cache.runtime.ray_pool import RayCluster, cannot_hold, connected, run_tasks, slots
from cache.sources.samples import Source
from cache.store.journal import Journal
from cache.store.spec import CacheSpec, TeacherSpec

# Between looks at what the tasks have listed.
LOOK_S = 5


# A process keeps its teacher for the next task.
_teacher_of = lru_cache(maxsize=1)(TeacherOptions.load)


@dataclass(frozen=True, kw_only=True)
class OnRay:
    """Who makes rows in tasks of a cluster; one whose worker dies is made again elsewhere.

    ``workers`` None are by each machine's device.
    """

    cluster: RayCluster
    teacher: TeacherOptions
    workers: int | None

    def results(
        self, function: Callable[..., Any], calls: Mapping[str, tuple[Any, ...]], progress: Progress
    ) -> Iterator[tuple[str, Any] | None]:
        """Yield what calls gave, as :func:`run_tasks`, on the connected cluster; raises what one raised."""
        if why := cannot_hold(self.cluster):
            progress.note(why)
        # Ctrl-C reaches the command as it is: what is listed is kept.
        for ended in run_tasks(function, calls, self.cluster, fresh=False, asked_to_stop=lambda: False):
            if ended is not None and isinstance(ended[1], Exception):
                raise ended[1]
            yield ended

    def writer_here(self, spec: TeacherSpec) -> Writer:
        """Return who makes rows in this process; CacheMismatch where this machine's teacher is another."""
        teacher = _teacher_of(self.teacher)
        differences = CacheSpec(teacher=spec).differences(CacheSpec(teacher=teacher.spec))
        if differences:
            raise CacheMismatch(
                f"a machine of the cluster has another teacher ({'; '.join(differences)})",
                fix="give all machines the same weights.",
            )
        workers = default_workers(teacher.device) if self.workers is None else workers_here(self.workers)
        return Writer(teacher=teacher, workers=workers, name=f"{socket.gethostname()}-{os.getpid()}")


class EmbedOnRay(OnRay):
    """Embeds each unit in a task of its own.

    All units have the same batches as in one process: where they are made changes nothing but rounding.
    """

    def __call__(self, build: Build, settings: UnitSettings, plan: Plan) -> Seconds:
        """Embed a plan; see ``cache.build.pipeline.Embed``."""
        seconds = Seconds()
        if not plan.rows:
            return seconds
        watcher = _Watcher(settings.cache, settings.planned, build.progress)
        build.progress.start(plan.rows, "embedding", build.unit)
        with connected(self.cluster):
            units = plan.units(max(1, slots(self.cluster)), batch_size=settings.batch_size)
            calls = {unit.name: (self, settings, unit, build.folder.splits[unit.split]) for unit in units}
            for ended in self.results(embed_unit, calls, build.progress):
                watcher.look()
                if ended is not None:
                    seconds.add(ended[1])
        watcher.look(now=True)
        return seconds


class _Watcher:
    """Tells a progress what tasks have listed, by their journals."""

    def __init__(self, cache: Path, planned: Container[str], progress: Progress) -> None:
        self._cache, self._planned, self._progress = cache, planned, progress
        self._rows, self._looked = 0, time.monotonic()
        self._skipped = {name: {*images} for name, images in Journal.load(cache).skipped.items()}

    def look(self, *, now: bool = False) -> None:
        """Say what is new, if some seconds have gone by since the last time, or ``now``."""
        if not now and time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        journal = Journal.load(self._cache)
        new = [
            image
            for split, images in journal.skipped.items()
            for key, image in images.items()
            if key not in self._skipped.setdefault(split, set())
        ]
        note_skipped(self._progress, new)
        for image in new:
            self._skipped[image.split].add(image.key)
        rows = sum(group.rows for group in journal.all_groups if group.name not in self._planned)
        self._progress.advance(rows - self._rows + len(new))
        self._rows = rows


def embed_unit(where: EmbedOnRay, settings: UnitSettings, unit: Unit, source: Source) -> Seconds:
    """Embed a unit in this process, but for what a lost task has made of it.

    Raises
    ------
    CacheMismatch
        If this machine's weights are others than those of the cache.
    UserError
        As :func:`cache.build.embed_units.embed_units`.
    """
    writer = where.writer_here(settings.spec.teacher)
    journal = Journal.load(settings.cache)
    return embed_units(
        settings,
        writer,
        {unit.split: source},
        [unit],
        Silent(),
        journal=journal,
        made=made_before(journal, settings.cache, unit, settings.planned),
    )
