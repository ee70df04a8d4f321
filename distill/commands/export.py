"""``distill export``, ``texts``, ``bench-model``: a student that is shipped, its texts, its speed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.amounts import in_bytes
from cache.runtime.errors import printable
from cache.runtime.signals import Terminated
from distill.commands.episodes import EPISODES, PHOTOS, UNITS
from distill.commands.options import (
    COUNT,
    EXISTING,
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    FOLDER,
    THREADS,
    WHOLE,
    check_run,
    code_option,
    device_option,
    given_options,
    json_option,
    model_teacher_options,
    option,
    refuse_given,
    run_options,
    template_option,
    words,
)
from distill.commands.tables import loading, percent, print_json, table, warn, working

if TYPE_CHECKING:
    from distill.deploy.info import ModelInfo
    from distill.deploy.vocabulary_rows import VocabularySource

ACCURACIES = {
    "all_accuracy": "all classes",
    "student_all_accuracy": "student's",
    "accuracy": "own classes",
    "student_accuracy": "student's",
}
OBJECTS = {
    "average_precision": "average precision",
    "student_average_precision": "student's",
    "precision": "precision",
    "recall": "recall",
}


@click.command()
@click.argument("run", type=EXISTING_FOLDER)
@option("--out", "New folder for the model.", FOLDER)
@option("--formats A,B", "onnx,torch,safetensors,open_clip,timm,tflite.", default="onnx", callback=words)
@option("--precisions A,B", "Of the ONNX graph: float32,float16,int8.", default="float32", callback=words)
@option(
    "--int8",
    "Write int8 too; qat: a hundred steps fit its weights to it.  [default of --precisions int8: static]",
    ["static", "qat"],
)
@option(
    "--preprocessing",
    "graph: the ONNX graph takes uint8 photos of any size.",
    ["outside", "graph"],
    "outside",
)
@option("--teacher NAME", "Of several teachers: whose embedding  [default: the first]")
@option("--license", "For the model card, e.g. mit.", default="unknown")
@option("--check-images", "Images of each test split that files are compared on.", COUNT, 2000)
@option(
    "--vocabulary FILE|default",
    "Words that the model can name without candidates, one a line; default: 20,000 that come along.",
)
@model_teacher_options
@option(
    "--unknowns SOURCE",
    "Pictures of something else, on which 'none of these' is measured. Repeatable.",
    multiple=True,
)
@option("--nearest-images", "Small training images that go along, for 'distill serve'.", WHOLE, 200)
@option("--push ORG/NAME", "Upload the folder to the Hugging Face hub; a new repository is private.")
@option("--web DIR", "New folder for a page that runs it in a browser.", FOLDER)
@option(
    "--runtime DIR|TGZ",
    "What 'npm pack onnxruntime-web' wrote, for --web  [default: npm fetches it]",
    EXISTING,
)
@run_options
@json_option("Print model.json's numbers as JSON.")
@click.pass_context
def export(
    ctx: click.Context,
    run: Path,
    out: Path | None,
    web: Path | None,
    push: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Write a folder that stands alone with RUN's student.

    A student of photos or of episodes; it holds class texts, measured accuracy and a model card too. Every
    file is compared with the student on the run's test images before it is kept.

    \b
    Examples:
      distill export runs/first --out models/first
      distill export runs/first --out models/small --precisions float32,float16,int8 --preprocessing graph
      distill export runs/first --out models/first --precisions float32,int8 --web page
      distill export models/first --web page
      distill export runs/first --out models/open --vocabulary default
      distill export runs/first --out models/clip --formats onnx,open_clip,timm --push me/my-birds
      distill export runs/first --out models/int8 --int8 qat
    """
    runtime = given.pop("runtime")
    if web is None:
        refuse_given(ctx, "runtime", without="--web")
    elif (run / "model.json").is_file():
        _only_page(ctx, web, as_json, unused=("out", "push", *given))
        return
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    check_run(run, given["checkpoint"])
    with loading():
        from distill.deploy.export import export_run
        from distill.deploy.export_options import ExportOptions
        from distill.deploy.web import prepare_web
    vocabulary = _vocabulary(ctx, given)
    chosen = ExportOptions(vocabulary=vocabulary, **given)
    if push is not None:
        from distill.deploy.push import check_push

        check_push(push)
    with working("exporting", "words" if vocabulary else "images") as progress:
        if web is not None:
            prepare_web(web, runtime, model=out, preprocessing=chosen.preprocessing, progress=progress)
        with begins_anew(out):
            info = export_run(run, out, chosen, progress=progress)
    for name in info.unlike:
        warn(info.warning(name))
    page = _write_page(out, web, runtime) if web is not None else {}
    if as_json:
        rejects = {name: asdict(reject) for name, reject in info.reject.items()}
        of_page = {"web": page} if page else {}
        print_json({"measured": info.measured, "unlike": info.unlike, "reject": rejects, **of_page})
    else:
        _tell(run, out, info)
        if page:
            click.echo(_of_page(page))
    if push is not None:
        _push(out, push, as_json=as_json)


@contextmanager
def begins_anew(out: Path) -> Iterator[None]:
    """Say of a stop that nothing is kept: other commands go on."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stopped:
        stopped.add_note(f"{out} was not written: the same command begins anew.")
        raise


def _push(out: Path, to: str, *, as_json: bool) -> None:
    from distill.deploy.push import push

    with working("uploading"):
        address = push(out, to)
    click.echo(f"pushed to {address}", err=as_json)


def _only_page(ctx: click.Context, web: Path, as_json: bool, *, unused: tuple[str, ...]) -> None:
    """Write the page of a model that is there."""
    model = ctx.params["run"]
    for given in given_options(ctx, *unused):
        raise click.UsageError(f"{given} is of a run, and {model} is exported already: leave it out.")
    page = _write_page(model, web, ctx.params["runtime"])
    print_json({"web": page}) if as_json else click.echo(_of_page(page))


def _tell(run: Path, out: Path, info: ModelInfo) -> None:
    from distill.deploy.card import notes_on

    of_episodes = info.objects is not None
    told = {name for measured in info.measured.values() for n in measured["splits"].values() for name in n}
    columns = {name: head for name, head in (OBJECTS if of_episodes else ACCURACIES).items() if name in told}
    heads = ["", "MB", "split", *columns.values(), "cosine", "largest difference"]
    table(f"{out}: {info.arch}, beside the student of {run}", heads, _measured(info, tuple(columns)))
    for note in notes_on(info):
        click.echo(f"note: {note}")
    what = "EPISODES.h5' names objects" if of_episodes else "PHOTO' labels images"
    how = f"'distill predict {out} {what}" if info.bank else f"'distill embed {out} PHOTOS' gives embeddings"
    click.echo(f"{how}; {out / 'README.md'} is the model card")


def _write_page(model: Path, web: Path, runtime: Path | None) -> dict[str, Any]:
    from distill.deploy.web import write_web

    with working("writing the page") as progress:
        return {**asdict(write_web(model, web, runtime=runtime, progress=progress)), "folder": str(web)}


def _of_page(page: dict[str, Any]) -> str:
    parts = {"the model": "model", "the vocabulary": "vocabulary", "onnxruntime-web": "runtime"}
    sizes = [f"{name} {in_bytes(size)}" for name, part in parts.items() if (size := page[f"{part}_bytes"])]
    return (
        f"{page['folder']}: a page with the {page['precision']} model, {in_bytes(page['page_bytes'])} "
        f"({', '.join(sizes)}); open its index.html, or put the folder on any web server"
    )


def _vocabulary(ctx: click.Context, given: dict[str, Any]) -> VocabularySource | None:
    """Take what says the vocabulary out of ``given``."""
    from distill.deploy.vocabulary_rows import VocabularySource

    words = given.pop("vocabulary")
    teacher = {name: given.pop(name) for name in ("teacher_model", "pretrained")}
    if words is None:
        refuse_given(ctx, *teacher, without="--vocabulary")
        return None
    return VocabularySource(words=Path(words), **teacher)


def _measured(info: ModelInfo, percentages: tuple[str, ...]) -> list[list[str]]:
    return [
        [
            name,
            f"{measured['bytes'] / 1e6:.1f}",
            split,
            *(percent(numbers[name]) if name in numbers else "" for name in percentages),
            f"{numbers['cosine_mean']:.4f}",
            f"{numbers['largest_difference']:.1e}",
        ]
        for name, measured in info.measured.items()
        for split, numbers in measured["splits"].items()
    ]


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@option("--add TEXT", "A class name or a text to embed. Repeatable.", multiple=True)
@option("--bank", "Text bank that it is added to.", default="added")
@template_option("  [default: the labels']")
@option("--cache", "A finished cache, of the model's teacher, that keeps its text tower.", EXISTING_FOLDER)
@model_teacher_options
@device_option
@json_option("Print the banks and labels as JSON.")
@click.pass_context
def texts(ctx: click.Context, model: Path, add: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """List MODEL's text banks, or add texts to them.

    The size of its vocabulary is told too. --add has texts embedded by the teacher's text tower: what --cache
    keeps (cache-features --keep-text-tower), or that of --teacher-model.

    \b
    Examples:
      distill texts models/first
      distill texts models/first --add zebra --add "okapi" --cache artifacts/photos
    """
    if add:
        from distill.deploy.add_texts import TowerSource, add_texts

        bank, templates = given.pop("bank"), given.pop("templates")
        added = add_texts(model, add, TowerSource(**given), bank=bank, templates=templates)
        if not as_json:
            names = ", ".join(repr(label) for label in added)
            click.echo(f"added {names} to the text bank {bank!r} of {model}")
            return
    else:
        refuse_given(ctx, "bank", "templates", "cache", "teacher_model", "pretrained", without="--add")
    from distill.deploy.info import ModelInfo
    from distill.deploy.model import load_banks
    from distill.deploy.vocabulary import WORDS

    info = ModelInfo.load(model)
    banks = {name: list(classes.labels) for name, classes in load_banks(model, info).items()}
    if as_json:
        listed = {"banks": banks, "vocabulary": info.vocabulary}
        click.echo(json.dumps(listed, ensure_ascii=False, indent=2))
        return
    for name, labels in banks.items():
        click.echo(printable(f"{name} ({len(labels)}): {', '.join(labels)}"))
    if info.vocabulary:
        click.echo(f"vocabulary: {info.vocabulary:,} words in {model / WORDS}")
    teacher = info.source["teacher"]
    click.echo(printable(f"embedded by the teacher {teacher['model']} ({teacher['pretrained']})"))


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@option("--rounds", "Turns of each.", COUNT, 3)
@option("--repeats", "Of one image, or episode, each turn.", click.IntRange(min=2), 50)
@option("--threads", "Of each candidate.", THREADS, 0, show_default="all cores")
@option("--run", "The run that was exported, for its torch student.", EXISTING_FOLDER)
@code_option
@model_teacher_options
@option("--out", "Write the numbers to this JSON file as well.", FILE_TO_WRITE)
@json_option("Print them as JSON.")
def bench_model(model: Path, out: Path | None, as_json: bool, **given: Any) -> None:
    """Measure MODEL on this CPU.

    With onnxruntime, beside the torch student (the exported weights or the --run's) and the --teacher-model
    if they are given: latency of one image, or episode, how many a second in batches of 32, size, peak
    memory; each in processes of its own that take turns.

    Example: distill bench-model models/first --run runs/first --out bench.json
    """
    from cache.runtime.atomic_files import write_json
    from distill.deploy.bench import BenchOptions, machine
    from distill.deploy.bench import bench_model as measure
    from distill.deploy.info import ModelInfo

    with working("measuring", "turns") as progress:
        measured = measure(model, BenchOptions(**given), progress=progress)
    how = {name: given[name] for name in ("rounds", "repeats", "threads")}
    result = {"machine": machine(), **how, "found": measured}
    if out is not None:
        write_json(out, result)
    if as_json:
        print_json(result)
        return
    rows = [
        [
            name,
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            f"{one['images_per_s']:,.0f}",
            f"{one['bytes'] / 1e6:.1f}",
            f"{one['peak_memory_bytes'] / 1e6:,.0f}",
            f"{one['speedup']:.2f}" if "speedup" in one else "",
        ]
        for name, one in measured.items()
    ]
    unit = UNITS[PHOTOS if ModelInfo.load(model).objects is None else EPISODES]
    heads = ["", "p50, ms", "p99, ms", f"{unit}/s (32)", "MB", "memory, MB", "speedup of p50"]
    table(f"{model} on {result['machine']['cpu']}", heads, rows)
