"""``distill cache add-texts``: more texts in a finished cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.runtime.errors import printable
from distill.commands.options import (
    COUNT,
    EXISTING_FOLDER,
    FILE,
    TEACHERS,
    WEIGHTS,
    check_run,
    device_option,
    given_options,
    option,
    template_option,
)
from distill.commands.tables import loading, print_zero_shot, working


@click.command("add-texts")
@click.argument("cache", type=EXISTING_FOLDER)
@option("--bank", "Name of the new text bank.", required=True)
@option(
    "--text-file",
    "FOLDER<TAB>TEXT a line, texts alone in label2text's order, or .json {class: [sentence, ...]}.",
    FILE,
)
@template_option(". With --text-file the file's texts go in.")
@option("--label2text", "Class names  [default: those that the cache was made with]", FILE)
@option("--run", "In place of texts, the prompts that this run learnt.", EXISTING_FOLDER)
@option(
    "--from-images SPLIT",
    "In place of texts, the mean of each class's rows: of all labelled images, or of SPLIT's.",
    is_flag=False,
    flag_value="all",
    default=None,
)
@option(
    "--shots", "From images: of a class that only a test has, so many; they are not judged then.", COUNT, 16
)
@option("--teacher", "Whose texts they are: an added teacher's name.", default="main")
@option("--model", f"{TEACHERS[:-1]}; where the cache keeps no text tower.")
@option("--pretrained TAG|FILE", WEIGHTS)
@option("--replace replaces", "Let them take the place of a bank of that name and other texts.", bool)
@device_option
@click.pass_context
def add_texts(
    ctx: click.Context,
    cache: Path,
    bank: str,
    run: Path | None,
    from_images: str | None,
    shots: int,
    **given: Any,
) -> None:
    """Embed more texts into a finished CACHE, as a text bank.

    Students are trained and judged with it. The cache's kept text tower embeds them (cache-features
    --keep-text-tower), or the teacher that is given. --from-images makes class means in place of texts, of
    any teacher.

    \b
    Examples:
      distill cache add-texts artifacts/photos --bank sketch --template "a sketch of {}"
      distill cache add-texts artifacts/photos --bank mine --text-file mine.txt --pretrained openai
      distill cache add-texts artifacts/photos --bank coop --run runs/coop
      distill cache add-texts artifacts/photos --bank means --from-images
    """
    from cache.reader import EmbeddingCache

    remarks: list[str] = []
    if from_images is not None:
        from cache.build.class_means import MeanOptions, add_class_means

        teacher = given["teacher"]
        kept = {name: given[name] for name in ("teacher", "replaces")}
        for option in given_options(ctx, "run", *(name for name in given if name not in kept)):
            raise click.UsageError(f"{option} is of texts, and --from-images of none: leave one out.")
        options = MeanOptions(
            bank=bank, split="" if from_images == "all" else from_images, shots=shots, **kept
        )
        listed, remarks = add_class_means(cache, options)
    elif run is not None:
        for option in given_options(ctx, *(name for name in given if name != "replaces")):
            raise click.UsageError(f"{option} is of texts, and --run has learnt its own: leave one out.")
        EmbeddingCache.open(cache)
        check_run(run)
        with loading():
            from distill.student.prompts import export_prompts
        listed, teacher = export_prompts(run, cache, bank=bank, replaces=given["replaces"])
    else:
        from cache.build.text_options import TextOptions

        texts = TextOptions(bank=bank, **given)
        EmbeddingCache.open(cache)  # before torch is imported: there may be none
        with loading():
            from cache.build.add_texts import add_texts as add
        with working("cache add-texts", "texts") as progress:
            listed, remarks = add(cache, texts, progress=progress)
        teacher = given["teacher"]
    from cache.build.zero_shot import doubts, zero_shot

    cut = f", {listed.truncated:,} longer than the teacher's context" if listed.truncated else ""
    click.echo(f"{cache / listed.file}: {listed.texts:,} texts{cut}; use them with: train --text {bank}")
    for line in remarks:
        click.echo(printable(line))
    opened = EmbeddingCache.open(cache).teacher_cache(teacher)
    judged = zero_shot(opened, [bank])
    print_zero_shot(judged, doubts(opened, [bank], judged))
