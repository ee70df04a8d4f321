"""Stage 1: the teacher's embeddings of a folder of images."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime import machine_limits as bounds
from cache.runtime.errors import printable
from cli.root import main
from distill.commands.options import (
    BATCH_SIZE,
    EXISTING_FOLDER,
    FILE,
    FOLDER,
    WORKERS,
    options,
    ray_cluster,
    ray_options,
    refuse_given,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.build.summary import BuildSummary
    from cache.build.zero_shot import ZeroShot
    from cache.store.duplicates import Duplicate

teacher_options = options(
    click.option(
        "--model",
        default="ViT-L-14-quickgelu",
        show_default=True,
        help="open_clip name, local-dir:FOLDER or hf-hub:ORG/REPO.",
    ),
    click.option(
        "--pretrained", help="Weights of a named model: a tag such as 'openai', or a checkpoint file."
    ),
    click.option(
        "--preprocess",
        "preprocessing",
        type=click.Choice(["model", "squash"]),
        default="model",
        show_default=True,
        help="The model's own, or 256x256 squashed as the original code.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="What the teacher computes in.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32"]),
        default="float16",
        show_default=True,
        help="What rows are stored in.",
    ),
    click.option(
        "--format",
        type=click.Choice(["hdf5", "webdataset"]),
        default="hdf5",
        show_default=True,
        help="Shard format.",
    ),
    click.option(
        "--rows-per-shard",
        default=4096,
        show_default=True,
        type=click.IntRange(1, bounds.ROWS_PER_SHARD),
        help="Rows in one shard file.",
    ),
    click.option(
        "--batch-size",
        type=BATCH_SIZE,
        help="Images at once  [default: 256 on a GPU, 32 on the CPU]",
    ),
    click.option("--workers", type=WORKERS, help="Processes that decode  [default: by the machine]"),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N."),
    click.option(
        "--keep-text-tower", is_flag=True, help="Keep the teacher's text tower, for 'train --prompts coop'."
    ),
    click.option("--strict", is_flag=True, help="Stop at an unreadable image instead of skipping it."),
    click.option(
        "--rebuild",
        is_flag=True,
        help="Redo what no longer fits: another teacher, changed or removed images.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)
"""How a teacher is run and its rows are stored: cache-features, of images and of episodes."""
# Options that say how what another asks for is kept.
DETAILS = {"support_shots": "support_views", "views_scale": "views", "pixels_format": "pixels"}


@main.command("cache-features")
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The cache folder; run again, it continues.")
@click.option("--label2text", type=FILE, help="Class names; found in DATA, else the folders' names.")
@click.option(
    "--descriptions",
    type=FILE,
    help="FOLDER<TAB>TEXT a line (or texts alone, in label2text's order); chatgpt.txt in DATA is found.",
)
@click.option(
    "--captions",
    type=FILE,
    help="JSON lines {key, caption} or clip_caption_feats.pt; captions.jsonl in DATA is found.",
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help="A text bank 'templates', e.g. 'a sketch of {}'. Repeatable: averaged.",
)
@click.option(
    "--text-file",
    "text_files",
    multiple=True,
    type=FILE,
    help="A text bank called as its file, one text a line. Repeatable.",
)
@click.option(
    "--neighbours",
    default=256,
    show_default=True,
    type=click.IntRange(1, bounds.NEIGHBOURS),
    help="Nearest class texts kept for every image.",
)
@click.option(
    "--support-views",
    default=0,
    type=click.IntRange(0, bounds.VIEWS),
    help="Keep the rows of so many views of train and OOD images, for 'fewshot --method retrieval': the "
    "image and its RandAugment copies. The paper's is 10.",
)
@click.option(
    "--support-shots",
    default=0,
    type=click.IntRange(min=0),
    help="Views of the first images of each class alone, sorted by key  [default: of all]",
)
@click.option(
    "--views",
    metavar="V",
    type=click.IntRange(1, bounds.VIEWS),
    help="Keep the rows of V random crops of every training image, for 'train --views'.",
)
@click.option(
    "--views-scale",
    default=0.08,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True, max=1),
    help="The smallest such crop, as a share of the image's area.",
)
@click.option(
    "--pixels",
    type=click.IntRange(8, bounds.IMAGE_SIDE),
    metavar="SIZE",
    help="Keep the images too, SIZE x SIZE, so that training decodes nothing: 256 for a student of 224 px.",
)
@click.option(
    "--pixels-format",
    type=click.Choice(["raw", "jpeg"]),
    default="raw",
    show_default=True,
    help="Kept as bytes of pixels, or as JPEG of quality 95: a seventh of the size, decoded at each use.",
)
@click.option(
    "--compile",
    is_flag=True,
    help="Put the image tower through torch.compile.",
)
@click.option(
    "--teacher",
    default="main",
    show_default=True,
    help="Add a second teacher of this name to a finished cache, for 'train --teachers'.",
)
@click.option("--shared-classes", is_flag=True, help="Let classes be in train and in the OOD test as well.")
@ray_options
@teacher_options
@click.pass_context
def cache_features_command(ctx: click.Context, data: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Run the teacher over DATA once and keep its embeddings (stage 1).

    Example: distill cache-features photos --out artifacts/photos --pretrained openai
    """
    from cache.build.from_folder import FeatureOptions, cache_features
    from cache.runtime.progress import progress_for

    if given["support_views"] == 1:
        raise click.UsageError("--support-views 1 is the plain row, which is kept anyway: give 2 or more.")
    for own, owner in DETAILS.items():
        if not given[owner]:
            refuse_given(ctx, own, without=f"--{owner.replace('_', '-')}")
    wants_weights(given)
    cluster = ray_cluster(ctx)
    for name in ("engine", "address", "cpus", "gpus"):
        del given[name]
    progress = progress_for("embedding")
    try:
        summary = cache_features(data, out, FeatureOptions(**given, cluster=cluster), progress=progress)
    finally:
        progress.close()
    print_build(summary, out, as_json=as_json)


def wants_weights(given: dict[str, Any]) -> None:
    """Make sure that a named model comes with weights."""
    if not given["pretrained"] and ":" not in given["model"]:
        raise click.UsageError(
            f"--model {given['model']} needs --pretrained: a tag such as 'openai' or a checkpoint file."
        )


def print_build(summary: BuildSummary, out: Path, *, as_json: bool) -> None:
    """Print what a build did."""
    seconds = summary.seconds
    rows = {
        "rows": f"{summary.rows:,} ({summary.new_rows:,} new)",
        "size": f"{summary.bytes / 1e6:,.1f} MB",
        "rate": f"{summary.images_per_s:,.1f} images/s",
        "decoding (in workers)": f"{seconds.decoding:,.1f} s",
        "waiting for images": f"{seconds.waiting:,.1f} s",
        "teacher": f"{seconds.teacher:,.1f} s",
        "writing": f"{seconds.writing:,.1f} s",
        "all": f"{summary.total_seconds:,.1f} s",
    }
    for name, count in summary.truncated.items():
        rows[f"truncated {name}"] = f"{count:,} longer than the teacher's context"
    rows |= summary.sources
    if summary.duplicates:
        rows["in two splits or classes"] = f"{len(summary.duplicates):,}"
    if summary.skipped:
        rows["skipped, unreadable"] = f"{len(summary.skipped):,}"
    if as_json:
        value = {
            "cache": str(out),
            "rows": summary.rows,
            "new_rows": summary.new_rows,
            "bytes": summary.bytes,
            "images_per_s": summary.images_per_s,
            "seconds": {
                "decoding": seconds.decoding,
                "waiting": seconds.waiting,
                "teacher": seconds.teacher,
                "writing": seconds.writing,
                "all": summary.total_seconds,
            },
            "truncated": summary.truncated,
            "missing_captions": summary.missing_captions,
            "sources": summary.sources,
            "zero_shot": [asdict(judged) for judged in summary.zero_shot],
            "doubts": summary.doubts,
            "skipped": {key: image.reason for key, image in summary.skipped.items()},
            "duplicates": [[pair.one, pair.other] for pair in summary.duplicates],
        }
        click.echo(json.dumps(value, indent=2))
        return
    table(f"cache {out}", ["", ""], [[name, text] for name, text in rows.items()])
    print_findings(summary.zero_shot, summary.doubts)
    for key, image in summary.skipped.items():
        click.echo(printable(f"skipped {key}: {image.reason}"))
    print_duplicates(summary.duplicates)


def print_findings(judged: Sequence[ZeroShot], doubts: Sequence[str]) -> None:
    """Print how well the teacher classifies by its texts, and what should be looked at."""
    if judged:
        rows = [
            [
                one.split,
                one.bank,
                f"{one.accuracy:.1f}%",
                f"{one.chance:.1f}%",
                f"{one.images:,}",
                f"{one.classes:,}",
            ]
            for one in judged
        ]
        columns = ["split", "texts", "macro accuracy", "chance", "images", "classes"]
        table("the teacher, zero-shot", columns, rows)
    for line in doubts:
        click.echo(printable(f"look at {line}"))


def print_duplicates(found: Sequence[Duplicate], n: int = 5) -> None:
    """Name the images that are in two splits, or under two classes."""
    if found:
        some = "; ".join(map(str, found[:n]))
        more = f"; and {len(found) - n:,} more" if len(found) > n else ""
        click.echo(printable(f"{len(found):,} images are in two splits or classes: {some}{more}"))
