"""``distill cache-features``: stage 1, the teacher's embeddings of a folder of images."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from cache.runtime import machine_limits as bounds
from distill.commands.options import (
    EXISTING_FOLDER,
    FILE,
    FOLDER,
    ray_cluster,
    ray_options,
    refuse_given,
    shared_classes_option,
    teacher_options,
    wants_weights,
)
from distill.commands.tables import print_build

# Options that say how what another asks for is kept.
DETAILS = {"support_shots": "support_views", "views_scale": "views", "pixels_format": "pixels"}


@click.command()
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
    help="Kept as bytes of pixels, or as JPEG of quality 95: a seventh of the size, decoded at each use.",
)
@click.option("--compile", is_flag=True, help="Put the image tower through torch.compile.")
@click.option(
    "--teacher",
    default="main",
    help="Add a second teacher of this name to a finished cache, for 'train --teachers'.",
)
@shared_classes_option
@ray_options
@teacher_options
@click.pass_context
def cache_features(ctx: click.Context, data: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Run the teacher over DATA once (stage 1).

    Its embeddings are kept in --out, the cache, from which any number of students are trained.

    Example: distill cache-features photos --out artifacts/photos --pretrained openai
    """
    from cache.build.from_folder import FeatureOptions
    from cache.build.from_folder import cache_features as embed
    from cache.runtime.progress import progress_for

    if given["support_views"] == 1:
        raise click.UsageError("--support-views 1 is the plain row, which is kept anyway: give 2 or more.")
    for own, owner in DETAILS.items():
        if not given[owner]:
            refuse_given(ctx, own, without=f"--{owner.replace('_', '-')}")
    wants_weights(given)
    options = FeatureOptions(cluster=ray_cluster(ctx, given), **given)
    with closing(progress_for("embedding")) as progress:
        summary = embed(data, out, options, progress=progress)
    print_build(summary, out, as_json=as_json)
