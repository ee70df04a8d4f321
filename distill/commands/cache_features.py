"""``distill cache-features``: stage 1, the teacher's embeddings of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.runtime import machine_limits as bounds
from distill.commands.options import (
    FILE,
    WHOLE,
    cache_out_option,
    label2text_option,
    option,
    ray_cluster,
    ray_options,
    refuse_given,
    shared_classes_option,
    teacher_options,
    template_option,
    wants_weights,
)
from distill.commands.source_options import source_options, source_options_of
from distill.commands.tables import loading, print_build, working


@click.command()
@click.argument("data", metavar="SOURCE...", nargs=-1, required=True)
@cache_out_option
@source_options
@label2text_option
@option(
    "--descriptions",
    "FOLDER<TAB>TEXT a line, texts alone, or .json; chatgpt.txt or descriptions.json beside them is found.",
    FILE,
)
@option("--captions", "JSON lines {key, caption} or a .pt file; captions.jsonl beside them is found.", FILE)
@template_option("; the text bank 'templates'.")
@option(
    "--text-file text_files",
    "A text bank called as its file: one text a line, or .json {class: [sentence, ...]}. Repeatable.",
    FILE,
    multiple=True,
)
@option(
    "--neighbours K",
    "Nearest class texts kept of every image  [default: 256 of more than 20,000 classes, else none]",
    click.IntRange(0, bounds.NEIGHBOURS),
)
@option(
    "--support-views",
    "Keep so many views' rows of train and OOD images, for 'fewshot --method retrieval'; the paper's is 10.",
    click.IntRange(0, bounds.VIEWS),
    0,
)
@option("--support-shots", "Of the first images of each class alone, by key; 0: of all.", WHOLE, 0)
@option(
    "--views V",
    "Keep the rows of V random views, 8 for example, of each image of train and pool: 'train' replays them.",
    click.IntRange(1, bounds.VIEWS),
)
@option(
    "--views-scale",
    "The smallest such crop, as a share of the image's area.",
    click.FloatRange(min=0, min_open=True, max=1),
    0.3,
)
@option(
    "--view-policy",
    "A view is a crop and a flip, or these after RandAugment of the whole picture.",
    ["crop_flip", "randaugment"],
    "crop_flip",
)
@option(
    "--store",
    "The rows of views as they are, or by PCA as 128 numbers of 8 bits: an eighth of 512 x 16 bits.",
    ["raw", "pca128-int8"],
    "raw",
)
@option(
    "--pixels SIZE",
    "Keep the images too, SIZE x SIZE, so that training decodes nothing: 256 for a student of 224 px.",
    click.IntRange(8, bounds.IMAGE_SIDE),
)
@option("--pixels-format", "JPEG: a seventh of the size, decoded at each use.", ["raw", "jpeg"], "raw")
@option("--compile", "Put the image tower through torch.compile.", bool)
@option(
    "--teacher", "Another adds a second teacher to a finished cache, for 'train --teachers'.", default="main"
)
@shared_classes_option
@ray_options
@teacher_options
@click.pass_context
def cache_features(ctx: click.Context, data: tuple[str, ...], out: Path, as_json: bool, **given: Any) -> None:
    """Run the teacher over images once (stage 1).

    Its embeddings are kept in --out, the cache, from which any number of students are trained. A SOURCE is a
    folder, a list (.csv, .tsv, .jsonl), parquet, tars, or a folder saved by Hugging Face datasets;
    SPLIT=SOURCE is all of one split: train, pool (no labels), id_test or ood_test.

    \b
    A folder has splits where its folders are called train, val_on_train, val, pool; else with
    pictures directly in it all of it is pool; else its folders are classes.

    \b
    Examples:
      distill cache-features photos --out artifacts/photos --pretrained openai
      distill cache-features train=list.csv pool=photos --out artifacts/mine --pretrained openai
      distill cache-features birds --split 'id_test=0.2,ood_test=0.3 of classes' --out artifacts/birds
    """
    from cache.build.first_look import DETAILS, check_support_views, first_look
    from cache.sources.data import Given

    check_support_views(given["support_views"])
    for own, owner in DETAILS.items():
        if not given[owner]:
            refuse_given(ctx, own, without=f"--{owner.replace('_', '-')}")
    wants_weights(given)
    sources = source_options_of(given)
    cluster, named = ray_cluster(ctx, given), Given.all_of(data)
    if cluster:  # machines that have other working folders
        named, out = [one.anywhere() for one in named], out.resolve()
    looked_at = ("model", "shared_classes", "label2text", "support_views")
    opened = first_look(named, out, sources, **{name: given[name] for name in looked_at})
    with loading():
        from cache.build.from_folder import FeatureOptions
        from cache.build.from_folder import cache_features as embed
    options = FeatureOptions(cluster=cluster, sources=sources, **given)
    with working("embedding") as progress:
        summary = embed(named, out, options, progress=progress, opened=opened)
    print_build(summary, out, as_json=as_json)
