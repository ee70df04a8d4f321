"""What lies on the device: decoded images, and the search for nearest texts."""

from __future__ import annotations

from benchmarks import input as of_input
from benchmarks import neighbours as of_neighbours
from cache.runtime.devices import default_workers
from cache.runtime.errors import UserError
from cache.store.neighbours import flavour
from gpu.work import Work, arguments, drawn_photos, peak_gb


def images(work: Work) -> None:
    """Measure where training images come from, with a GPU also those that are kept on it."""
    data = work.folder("images")
    drawn_photos(data, 6 if work.small else 512, (350, 350))
    small = {"image_size": 32, "batch_size": 2, "batches": 2, "rounds": 1} if work.small else {}
    args = arguments(
        of_input.OPTIONS | {"batches": 32},
        **{"data": data, "workers": 1 if work.small else default_workers(work.device)} | small,
    )
    rows, _ = of_input.measure(args)
    kept = [
        {"what": row["way"], "images/s": row["images/s"], "time ratio": 1 / row["beside the first"]}
        for row in rows
    ]
    kept[-1]["GPU memory"] = peak_gb(work.device)
    work.keep(kept)


def neighbours(work: Work) -> None:
    """Search the nearest texts by FAISS and by torch, and say whether they find the same."""
    small = {"images": 10, "embed_dim": 8, "rows": 40, "batch_size": 4, "rounds": 1, "threads": 1}
    args = arguments(
        of_neighbours.OPTIONS,
        **{"device": str(work.device), "threads": 8, "images": 4096} | (small if work.small else {}),
    )
    try:
        searched = flavour()
    except UserError as error:
        work.keep([{"skipped": True, "said": f"{error}"}])
        return
    row, _ = of_neighbours.of_texts(args, 30 if work.small else 20_000)
    ms = {
        name: f"{row[name]:.3g} ms" for name in (of_neighbours.STEP, of_neighbours.FAISS, of_neighbours.TORCH)
    }
    said = ", ".join(f"{name} {value}" for name, value in ms.items())
    work.keep(
        [
            {
                "what": f"nearest of {row['texts']:,} texts; {searched}; torch on {work.device.type}",
                "time ratio": row["torch / FAISS"],
                "GPU memory": peak_gb(work.device),
                "said": f"a batch of {args.batch_size}: {said}; the same {row['same']:.3%}",
                "goal": "the same",
                "met": "yes" if row["same"] > 0.999 else "no",
            }
        ]
    )
