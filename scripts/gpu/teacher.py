"""The teacher: its bare forward in several ways, and stage 1 beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import cache_features
from benchmarks import forward as of_forward
from benchmarks.forward import AS_IT_IS, AUTOCAST, COMPILED, POINTWISE, TUNED, UNFUSED, loaded
from benchmarks.turns import Row, timed
from cache.runtime.devices import default_workers
from cache.sources.samples import DataFolder
from cache.teacher.load import load_teacher
from cache.teacher.teacher import Teacher
from gpu.work import LEAST_PEAK, LEAST_STAGE_1, Work, arguments, drawn_photos, goal, peak_gb, teacher_of

# Small files, of which decoding is cheap, and photos.
SIZES = {"JPEG files of 224 px": (224, 224), "photos of 500 x 375 px": (500, 375)}
TURN_S, MOST_IMAGES = 6.0, 16384


def forward(work: Work) -> None:
    """Measure the bare forward in the ways that need no long compilation, and of other sizes of a batch."""
    _forward(work, [AS_IT_IS, AUTOCAST, UNFUSED, POINTWISE], [2] if work.small else [64, 128, 512])


def forward_compiled(work: Work) -> None:
    """Measure the bare forward through torch.compile."""
    _forward(work, [AS_IT_IS, POINTWISE] if work.small else [AS_IT_IS, COMPILED, TUNED], [])


def _forward(work: Work, ways: Sequence[str], sizes: Sequence[int]) -> None:
    small = {"batch_size": 4, "seconds": 0.01, "rounds": 1, "precision": "bfloat16"} if work.small else {}
    args = arguments(
        of_forward.OPTIONS, device=str(work.device), ways=ways, other_sizes=sizes, **teacher_of(work) | small
    )
    of_forward.measure(args, keep=lambda rows: work.keep([_of_forward(row) for row in rows]))


def _of_forward(row: Row) -> Row:
    kept = {name: row[name] for name in ("images/s", "TFLOP/s", "of the peak", "GPU memory") if name in row}
    kept["what"] = f"forward {row['way']}: {row['teacher, precision, batch']}"
    if "time beside it" in row:
        kept["time ratio"] = row["time beside it"]
    said = [f"first batch {row['first']:.1f} s"] if row.get("first", 0) > 5 else []
    if row.get("away"):
        said.append(f"rows {row['away']:.1e} away")
    kept["said"] = row.get("not measured") or ", ".join(said)
    if row["way"] == AS_IT_IS and "of the peak" in row:
        kept |= goal(row["of the peak"], least=LEAST_PEAK, of=" of the peak")
    return kept


def stage_one(work: Work) -> None:
    """Measure stage 1 beside the bare forward, from small files and from photos."""
    named = teacher_of(work)
    precision = "bfloat16" if work.small else "auto"
    teacher = load_teacher(
        named["model"], pretrained=named["weights"] or None, precision=precision, device=work.device
    )
    size, rounds = (2, 1) if work.small else (256, 2)
    load = loaded(teacher, size, 0.5, "")
    seconds, _ = timed(lambda: cache_features.bare(teacher.embed_images, load.batches))
    count = 6 if work.small else _images(load.repeats * size / seconds)
    rows: list[Row] = []
    for about, pixels in SIZES.items():
        folder = drawn_photos(work.folder("photos"), count, pixels)
        options = arguments(
            cache_features.OPTIONS | {"data": Path()}, rounds=rounds, batch_size=size, model=named["model"]
        )
        rows += _beside_bare(work, teacher, folder, options, about)
        work.keep(rows)


def _images(rate: float) -> int:
    """Return of how many images a turn is, by the bare forward's rate."""
    return max(512, min(MOST_IMAGES, round(TURN_S * rate / 256) * 256))


def _beside_bare(work, teacher: Teacher, folder: DataFolder, args, about: str) -> list[Row]:
    measured, _ = cache_features.in_turns(args, teacher, folder, work.folder("stage1"))
    row, workers = measured[0], default_workers(work.device)
    bare, stage, loader = (
        row[way] for way in (cache_features.BARE, cache_features.STAGE_1, cache_features.LOADER)
    )
    decoding = row[cache_features.DECODING]
    limit = "decoding" if decoding < 1.1 * stage else "not decoding"
    first: Row = {"what": f"bare forward, {about}", "images/s": bare, "TFLOP/s": row["TFLOP/s"]}
    return [
        first | {name: row[name] for name in ("of the peak",) if name in row},
        {
            "what": f"stage 1, {about}",
            "images/s": stage,
            "time ratio": row["stage 1, time"],
            "GPU memory": peak_gb(work.device),
            "said": f"{stage / bare:.3f} of the bare forward; its limit is {limit}",
            **goal(stage / bare, least=LEAST_STAGE_1, of=" of the bare forward"),
        },
        {"what": f"DataLoader to .npy, {about}", "images/s": loader, "time ratio": row["DataLoader, time"]},
        {"what": f"decoding alone, {about}", "images/s": decoding, "said": f"{workers} processes"},
    ]
