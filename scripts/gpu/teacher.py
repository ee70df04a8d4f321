"""The teacher: its bare forward in several ways, and stage 1 beside it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import cache_features
from benchmarks import forward as of_forward
from benchmarks.cache_features import BARE, DECODING, LOADER, STAGE_1
from benchmarks.forward import AS_IT_IS, AUTOCAST, COMPILED, POINTWISE, TUNED, UNFUSED, loaded
from benchmarks.turns import Row, linked, timed
from cache.build.options import BuildOptions
from cache.runtime.devices import default_workers
from cache.runtime.machine_limits import cores
from cache.sources.samples import DataFolder
from cache.teacher.load import load_teacher
from cache.teacher.teacher import Teacher
from gpu.work import LEAST_PEAK, LEAST_STAGE_1, Work, arguments, drawn_photos, peak_gb, teacher_of

# Small files, of which decoding is cheap, and photos: their sides, and seconds of the bare forward.
SIZES = {"JPEG files of 224 px": ((224, 224), 10.0), "photos of 500 x 375 px": ((500, 375), 3.0)}
LEAST_IMAGES, MOST_IMAGES = 512, 32768


def forward(work: Work) -> None:
    """Measure the bare forward in the ways that need no long compilation, and of other sizes of a batch."""
    _forward(work, [AS_IT_IS, AUTOCAST, UNFUSED, POINTWISE], [2] if work.small else [64, 128, 512])


def forward_compiled(work: Work) -> None:
    """Measure the bare forward through torch.compile; then autotuned, which may take more than is left."""
    rows = _forward(work, [AS_IT_IS, POINTWISE if work.small else COMPILED], [])
    if not work.small:
        _forward(work, [AS_IT_IS, TUNED], [], before=rows)


def _forward(work: Work, ways: Sequence[str], sizes: Sequence[int], before: Sequence[Row] = ()) -> list[Row]:
    given: dict[str, Any] = {"rounds": 2, "ways": ways, "other_sizes": sizes, **teacher_of(work)}
    if work.small:
        given |= {"batch_size": 4, "seconds": 0.01, "rounds": 1, "precision": "bfloat16"}
    args = arguments(of_forward.OPTIONS, device=str(work.device), **given)

    def keep(rows: Sequence[Row]) -> None:
        work.keep([*before, *(_of_forward(work, row) for row in rows)])

    rows, _ = of_forward.measure(args, keep=keep)
    return [_of_forward(work, row) for row in rows]


def _of_forward(work: Work, row: Row) -> Row:
    kept = {name: row[name] for name in ("images/s", "TFLOP/s", "of the peak", "GPU memory") if name in row}
    precision, size = row["teacher, precision, batch"].split(", ")[1:]
    kept["what"] = f"forward {row['way']}, {precision}, batch {size}"
    if "time beside it" in row:
        kept["time ratio"] = row["time beside it"]
    said = [f"first batch {row['first']:.0f} s"] if row.get("first", 0) > 5 else []
    if row.get("away", 0) > 1e-9:
        said.append(f"rows {row['away']:.1e} away")
    kept["said"] = row.get("not measured") or ", ".join(said)
    if row["way"] == AS_IT_IS and "of the peak" in row:
        kept |= work.goal(row["of the peak"], least=LEAST_PEAK, of=" of the peak")
    return kept


def stage_one(work: Work) -> None:
    """Measure stage 1 beside the bare forward, from small files and from photos."""
    named, size = teacher_of(work), 2 if work.small else 256
    precision = "bfloat16" if work.small else "auto"
    teacher = load_teacher(
        named["model"], pretrained=named["weights"] or None, precision=precision, device=work.device
    )
    load = loaded(teacher, size, 0.5, "")
    seconds, _ = timed(lambda: cache_features.bare(teacher.embed_images, load.batches))
    rate, rows = load.repeats * size / seconds, list[Row]()
    given = {"rounds": 1, "batch_size": size, "model": named["model"], "device": str(work.device)}
    args = arguments(cache_features.OPTIONS | {"data": Path()}, **given)
    for about, (pixels, took) in SIZES.items():
        many = round(max(LEAST_IMAGES, min(MOST_IMAGES, took * rate)) / size) * size
        folder = drawn_photos(work.folder("photos"), 6 if work.small else many, pixels)
        rows += _beside_bare(work, teacher, folder, args, about)
        work.keep(rows)


def _beside_bare(
    work: Work, teacher: Teacher, folder: DataFolder, args: argparse.Namespace, about: str
) -> list[Row]:
    measured, _ = cache_features.in_turns(args, teacher, folder, work.folder("stage1"))
    row, bare = measured[0], measured[0][BARE]
    memory, workers = peak_gb(work.device), default_workers(work.device)
    count = len(folder.split("train"))
    beyond = _beyond_its_start(work, teacher, folder, args, count / row[STAGE_1])
    limit = "decoding is the limit" if row[DECODING] < 1.1 * row[STAGE_1] else "decoding is not the limit"
    aim = partial(work.goal, least=LEAST_STAGE_1, of=" of the bare forward")
    first: Row = {"what": f"bare forward, {about}", "images/s": bare, "TFLOP/s": row["TFLOP/s"]}
    rows = [
        first | {"time ratio": 1.0} | {name: row[name] for name in ("of the peak",) if name in row},
        {"what": f"stage 1, {count:,} {about}", "images/s": row[STAGE_1], "GPU memory": memory}
        | {"time ratio": row["stage 1, time"]}
        | {"said": f"{row[STAGE_1] / bare:.3f} of the bare forward, start and end counted; {limit}"}
        | aim(row[STAGE_1] / bare),
    ]
    if beyond is not None:
        what = {"what": f"stage 1, start and end not counted, {about}", "images/s": beyond}
        said = f"{beyond / bare:.3f} of the bare forward, as of millions of images"
        rows.append(what | {"time ratio": bare / beyond, "said": said} | aim(beyond / bare))
    loader: Row = {"what": f"DataLoader to .npy, {about}", "images/s": row[LOADER]}
    return [
        *rows,
        loader | {"time ratio": row["DataLoader, time"]},
        {
            "what": f"decoding alone, {about}",
            "images/s": row[DECODING],
            "said": f"worker processes: {workers}, cores: {cores()}",
        },
    ]


def _beyond_its_start(
    work: Work, teacher: Teacher, folder: DataFolder, args: argparse.Namespace, whole_s: float
) -> float | None:
    """Return images/s of a run, beside one of a third of the images; None where the few took as long.

    What both spend alike, their workers' start and the files at the end, is in neither's difference.
    """
    whole = len(folder.split("train"))
    few = max(args.batch_size, whole // 3 // args.batch_size * args.batch_size)
    part = linked(folder.path, work.folder("part"), few)
    options = BuildOptions(model="", batch_size=args.batch_size, workers=default_workers(teacher.device))
    run = partial(cache_features.stage_one, teacher, part, work.folder("few") / "cache", options)
    seconds, _ = timed(run)
    return (whole - few) / (whole_s - seconds) if seconds < whole_s else None
