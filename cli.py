"""The command ``distill``: each command parses, calls one function, prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cache.errors import UserError

if TYPE_CHECKING:
    from cache.build import BuildSummary
    from cache.manifest import Manifest

# Every import of torch, h5py and the like stands inside a command: --help does not wait for them.

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE_TO_WRITE = click.Path(dir_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Friendly(click.Group):
    """Shows a UserError as one line; every other exception is our bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; see the class."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.params.get("debug"):
                raise
            _stop(str(error), 1)


def _stop(message: str, status: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)


@click.group(cls=Friendly, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="distill", prog_name="distill")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Distil a large vision-language model into a small open-vocabulary image model.

    Stage 1 runs the teacher once and keeps its embeddings: cache-features. Stage 2 trains students from
    that cache, with no teacher in memory: train. To see both on a small example: demo.
    """
    del debug  # read by Friendly


@main.command("cache-features")
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The cache folder; run again, it continues.")
@click.option(
    "--model",
    default="ViT-L-14-quickgelu",
    show_default=True,
    help="open_clip name, local-dir:FOLDER or hf-hub:ORG/REPO.",
)
@click.option("--pretrained", help="Weights of a named model: a tag such as 'openai', or a checkpoint file.")
@click.option(
    "--preprocess",
    "preprocessing",
    type=click.Choice(["model", "squash"]),
    default="model",
    show_default=True,
    help="The model's own, or 256x256 squashed as the original code.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="What the teacher computes in.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="What rows are stored in.",
)
@click.option(
    "--format",
    type=click.Choice(["hdf5", "webdataset"]),
    default="hdf5",
    show_default=True,
    help="Shard format.",
)
@click.option("--label2text", type=FILE, help="Class names; found in DATA, else the folders' names.")
@click.option(
    "--descriptions",
    type=FILE,
    help="One description a line, in label2text's order; chatgpt.txt in DATA is found.",
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
    type=click.IntRange(min=1),
    help="Nearest class texts kept for every image.",
)
@click.option(
    "--rows-per-shard",
    default=4096,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rows in one shard file.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images at once  [default: 256 on a GPU, 32 on the CPU]"
)
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode  [default: by the machine]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option(
    "--support-views",
    default=0,
    type=click.IntRange(min=0),
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
    "--keep-text-tower", is_flag=True, help="Keep the teacher's text tower, for 'train --prompts coop'."
)
@click.option(
    "--teacher",
    default="main",
    show_default=True,
    help="Add a second teacher of this name to a finished cache, for 'train --teachers'.",
)
@click.option("--strict", is_flag=True, help="Stop at an unreadable image instead of skipping it.")
@click.option(
    "--rebuild", is_flag=True, help="Redo what no longer fits: another teacher, changed or removed images."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def cache_features_command(data: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Run the teacher over DATA once and keep its embeddings (stage 1).

    Example: distill cache-features photos --out artifacts/photos --pretrained openai
    """
    from cache.features import FeatureOptions, cache_features
    from cache.progress import progress_for

    _wants_weights(given)
    progress = progress_for("embedding")
    try:
        summary = cache_features(data, out, FeatureOptions(**given), progress=progress)
    finally:
        progress.close()
    _print_build(summary, out, as_json=as_json)


def _numbers(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read 1,2,4 as numbers: of images from 1, of seeds from 0."""
    least = 1 if option.name == "shots" else 0
    try:
        numbers = tuple(int(part) for part in (value or "").split(",") if part.strip())
    except ValueError:
        numbers = (-1,)
    if min(numbers, default=least) < least:
        raise click.BadParameter(
            f"{value!r} is not numbers of at least {least}, like 1,2,4", ctx=ctx, param=option
        )
    return numbers


def _wants_weights(given: dict[str, Any]) -> None:
    if given["support_views"] == 1:
        raise click.UsageError("--support-views 1 is the plain row, which is kept anyway: give 2 or more.")
    if not given["pretrained"] and ":" not in given["model"]:
        raise click.UsageError(
            f"--model {given['model']} needs --pretrained: a tag such as 'openai' or a checkpoint file."
        )


def _print_build(summary: BuildSummary, out: Path, *, as_json: bool) -> None:
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
    if summary.missing_captions:
        rows["without a caption"] = f"{summary.missing_captions:,} (given 'a photo')"
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
            "skipped": {key: image.reason for key, image in summary.skipped.items()},
        }
        click.echo(json.dumps(value, indent=2))
        return
    _table(f"cache {out}", ["", ""], [[name, text] for name, text in rows.items()])
    for key, image in summary.skipped.items():
        click.echo(f"skipped {key}: {image.reason}")


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=any(columns))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(text.replace("[", "\\[") for text in row))
    click.echo(title)
    # A log has no width of its own: 80 columns would break numbers apart.
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@main.command("split")
@click.argument("source", type=EXISTING_FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The new data folder: train, val_on_train, val.")
@click.option("--dataset", metavar="NAME", help="A data set of the paper, split by its published lists.")
@click.option(
    "--lists", type=EXISTING_FOLDER, help="Folder of train_data.txt, val_on_train_data.txt, val_data.txt."
)
@click.option("--ood-classes", type=FILE, help="The OOD classes, one folder a line; the others are ID.")
@click.option("--ood", type=float, help="Share of classes that are OOD, drawn with --seed  [default: 0.5]")
@click.option("--id-test", type=float, help="Share of each ID class's images held out  [default: 0.3]")
@click.option("--seed", type=click.IntRange(min=0), help="Decides what is drawn  [default: 0]")
@click.option("--copy", is_flag=True, help="Copy the images instead of linking to them.")
@click.option("--allow-missing", is_flag=True, help="Leave out images that a list names and SOURCE lacks.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def split_command(source: Path, as_json: bool, **given: Any) -> None:
    """Split the images of SOURCE into training images, ID test images and OOD classes.

    \b
    Examples:
      distill split CUB --out data/cub --dataset CaltechBirds --lists CUB/lists
      distill split photos --out data/photos --ood 0.5 --id-test 0.3 --seed 0
      distill split photos --out data/photos --ood-classes unseen.txt
    """
    from cache.progress import progress_for
    from cache.split_data import split_images

    progress = progress_for("splitting")
    try:
        summary = split_images(source, progress=progress, **_split_options(given))
    finally:
        progress.close()
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(summary), indent=2, default=str))
        return
    for line in summary.lines():
        click.echo(line)


def _split_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of one way to split; UsageError when ways are mixed."""
    ways = {
        "lists": ("dataset", "lists", "allow_missing"),
        "class list": ("ood_classes", "id_test", "seed"),
        "ratio": ("ood", "id_test", "seed"),
    }
    way = "lists" if given["dataset"] or given["lists"] else "class list" if given["ood_classes"] else "ratio"
    if way == "lists" and not (given["dataset"] and given["lists"]):
        raise click.UsageError("--dataset and --lists belong together: give both.")
    known = {*ways[way], "out", "copy"}
    set_ = {name: value for name, value in given.items() if value is not None and value is not False}
    for name in set_:
        if name not in known:
            raise click.UsageError(
                f"--{name.replace('_', '-')} does not go with a split by {way}: leave it out."
            )
    return set_


@main.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--model", required=True, help="The language model's name on that server.")
@click.option(
    "--base-url", help="An OpenAI-compatible server, e.g. http://localhost:8000/v1  [default: OpenAI's]"
)
@click.option("--out", type=FILE_TO_WRITE, help="The file to write  [default: DATA/chatgpt.txt]")
@click.option(
    "--prompt", help="What is asked; {} is the class name  [default: one sentence on its appearance]"
)
@click.option("--label2text", type=FILE, help="Class names; found in DATA, else the folders' names.")
@click.option("--workers", default=4, show_default=True, type=click.IntRange(min=1), help="Requests at once.")
@click.option(
    "--retries",
    "max_retries",
    default=6,
    show_default=True,
    type=click.IntRange(min=0),
    help="Tries more of a request that failed, each after a longer wait.",
)
def describe(data: Path, **given: Any) -> None:
    """Ask a language model for one description of every class of DATA.

    The key is read from OPENAI_API_KEY. Run again, it goes on.

    Example: distill describe photos --model llama3 --base-url http://localhost:8000/v1
    """
    from cache.describe import describe as describe_classes
    from cache.progress import progress_for

    given = {name: value for name, value in given.items() if value is not None}
    progress = progress_for("describing", "classes")
    try:
        summary = describe_classes(data, progress=progress, **given)
    finally:
        progress.close()
    click.echo(
        f"{summary.out}: {summary.classes} descriptions ({summary.asked} asked now, {summary.reused} before)"
    )


@main.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--model", required=True, help="A transformers image-to-text model: a folder or a hub name.")
@click.option("--out", type=FILE_TO_WRITE, help="The file to write  [default: DATA/captions.jsonl]")
@click.option("--split", "splits", multiple=True, help="train, id_test, ood_test. Repeatable  [default: all]")
@click.option(
    "--batch-size", default=16, show_default=True, type=click.IntRange(min=1), help="Images at once."
)
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode  [default: by the machine]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
def caption(data: Path, workers: int | None, **given: Any) -> None:
    """Write one caption of every image of DATA, for cache-features --captions.

    An image that cannot be captioned gets 'a photo'. Run again, it goes on.

    Example: distill caption photos --model Salesforce/blip-image-captioning-base
    """
    from cache.caption import caption as caption_images
    from cache.devices import choose_device, default_workers
    from cache.progress import progress_for

    if workers is None:
        workers = default_workers(choose_device(given["device"]))
    progress = progress_for("captioning")
    try:
        summary = caption_images(data, workers=workers, progress=progress, **given)
    finally:
        progress.close()
    click.echo(
        f"{summary.out}: {summary.images:,} captions ({summary.captioned:,} now, {summary.reused:,} before)"
    )
    for key, reason in summary.failed.items():
        click.echo(f"{key}: 'a photo' ({reason})")


@main.group("cache")
def cache_group() -> None:
    """Look into a cache, check it, make one from embeddings, change its format."""


@cache_group.command("info")
@click.argument("cache", type=EXISTING_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def cache_info(cache: Path, as_json: bool) -> None:
    """Say what is in CACHE.

    Example: distill cache info artifacts/photos
    """
    from cache.manifest import NAME, Manifest
    from cache.reader import TEACHERS, EmbeddingCache

    manifest = Manifest.load(cache)
    if as_json:
        click.echo((cache / NAME).read_text(encoding="utf-8"), nl=False)
        return
    _table(f"cache {cache}", ["", ""], _about(manifest))
    splits = [
        [
            name,
            f"{split.rows:,}",
            str(len(split.class_names)),
            str(len(split.shards)),
            str(len(split.skipped)),
        ]
        for name, split in manifest.splits.items()
    ]
    _table("splits", ["split", "rows", "classes", "shards", "skipped"], splits)
    banks = [
        [name, f"{bank.texts:,}", str(bank.truncated), " | ".join(bank.templates)]
        for name, bank in manifest.banks.items()
    ]
    _table("text banks", ["bank", "texts", "truncated", "template"], banks)
    added = EmbeddingCache(cache, manifest).teacher_names[1:]
    if added:
        click.echo(f"other teachers: {', '.join(added)} (in {cache / TEACHERS})")


def _about(manifest: Manifest) -> list[list[str]]:
    teacher = manifest.spec.teacher
    kept = [f"{name}: {views.views} views" for name, views in manifest.support.items()]
    return [
        ["fingerprint", manifest.spec.fingerprint()],
        ["complete", "yes" if manifest.complete else "no: run the same cache-features command again"],
        ["teacher", f"{teacher.model} ({teacher.pretrained})"],
        ["weights", f"sha256 {teacher.weights_sha256[:16]}..."],
        ["preprocessing", f"{teacher.preprocessing}, {teacher.image_size} px"],
        ["computed in", teacher.precision],
        ["stored as", f"{manifest.spec.dtype}, {manifest.spec.format}"],
        ["embed_dim", str(manifest.embed_dim)],
        ["support views", ", ".join(kept) or "none"],
        ["text tower", "kept" if manifest.text_tower else "not kept"],
    ]


@cache_group.command("verify")
@click.argument("cache", type=EXISTING_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print every check as JSON.")
def cache_verify(cache: Path, as_json: bool) -> None:
    """Check every checksum and row count of CACHE; exit status 1 when one is wrong.

    Example: distill cache verify artifacts/photos
    """
    from cache.verify import verify_cache

    checks = verify_cache(cache)
    bad = [check for check in checks if check.problem]
    if as_json:
        click.echo(
            json.dumps([{"file": c.file, "rows": c.rows, "problem": c.problem} for c in checks], indent=2)
        )
    else:
        for check in bad:
            click.echo(f"{check.file}: {check.problem}")
        click.echo(f"{len(checks) - len(bad)} of {len(checks)} files are sound.")
    if bad:
        names = ", ".join(check.file for check in bad[:3])
        _stop(
            f"{cache} has {len(bad)} damaged files ({names}). Fix: run cache-features again: it redoes them.",
            1,
        )


@cache_group.command("import")
@click.option("--out", required=True, type=FOLDER, help="The cache folder to write.")
@click.option(
    "--images", required=True, help="Image embeddings: .npy, .pt (clip_image_feats.pt) or FILE.npz:NAME."
)
@click.option(
    "--keys",
    help="SPLIT/CLASS/FILE of each row: a text file, .npy or FILE.npz:NAME. Else the original code's order.",
)
@click.option("--data", type=EXISTING_FOLDER, help="The images' folder; needed without --keys.")
@click.option("--captions", help="Caption embeddings in the same order (clip_caption_feats.pt).")
@click.option("--texts", help="Class embeddings, one row a class: .npy, .pt or FILE.npz:NAME.")
@click.option(
    "--classes", help="The class folder of each row of --texts: a text file, .npy or FILE.npz:NAME."
)
@click.option("--bank", default="labels", show_default=True, help="Name of that text bank.")
@click.option("--split", default="train", show_default=True, help="The split of keys that name none.")
@click.option("--model", default="imported", show_default=True, help="The teacher's name.")
@click.option(
    "--pretrained",
    help="Its weights, as for cache-features: embeds DATA's class texts where --texts is not given.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="What rows are stored in.",
)
@click.option(
    "--format",
    type=click.Choice(["hdf5", "webdataset"]),
    default="hdf5",
    show_default=True,
    help="Shard format.",
)
def cache_import(out: Path, **given: Any) -> None:
    """Make a cache from embeddings that are there already.

    \b
    Examples:
      distill cache import --out artifacts/cub --data CUB --images clip_image_feats.pt \\
          --captions clip_caption_feats.pt --texts class_embeddings.npy --classes classes.txt
      distill cache import --out artifacts/mine --images emb.npy --keys keys.txt --texts t.npy --classes c.txt
    """
    from cache.import_files import import_files

    manifest = import_files(out, **given)
    banks = ", ".join(manifest.banks) or "none"
    click.echo(f"{out}: {manifest.rows:,} rows, embed_dim {manifest.embed_dim}, text banks: {banks}")


@cache_group.command("convert")
@click.argument("cache", type=EXISTING_FOLDER)
@click.option(
    "--to", "format", required=True, type=click.Choice(["hdf5", "webdataset"]), help="The format to write."
)
@click.option("--out", required=True, type=FOLDER, help="The new cache folder.")
@click.option(
    "--data", type=EXISTING_FOLDER, help="The images' folder, for a WebDataset that holds the pictures too."
)
def cache_convert(cache: Path, format: str, out: Path, data: Path | None) -> None:
    """Write CACHE in the other format, number for number.

    Example: distill cache convert artifacts/photos --to webdataset --out artifacts/photos-tar --data photos
    """
    from cache.convert import convert_cache
    from cache.images import ImageFolder

    folder = ImageFolder.scan(data, require=()) if data else None
    manifest = convert_cache(cache, out, format=format, folder=folder)
    click.echo(f"{out}: {manifest.rows:,} rows as {format}")


@cache_group.command("add-prompts")
@click.argument("run", type=EXISTING_FOLDER)
@click.option("--bank", default="coop", show_default=True, help="Name of the new text bank.")
@click.option("--cache", type=EXISTING_FOLDER, help="A cache of the same teacher  [default: the run's own]")
def cache_add_prompts(run: Path, bank: str, cache: Path | None) -> None:
    """Add the prompts that RUN learnt to its cache, as a text bank for other students.

    Example: distill cache add-prompts runs/coop --bank coop
    """
    from distill.prompts import export_prompts

    where, entry = export_prompts(run, bank=bank, cache_dir=cache)
    click.echo(f"{where / entry.file}: {entry.texts} texts; use them with: train --text {bank}")


@main.command()
@click.argument("cache", type=EXISTING_FOLDER)
@click.option("--data", required=True, type=EXISTING_FOLDER, help="The images' folder.")
@click.option("--out", required=True, type=FOLDER, help="New folder for this run.")
@click.option("--recipe", default="resnet18", show_default=True, help="A built-in recipe, or a TOML file.")
@click.option("--arch", help="Student: a torchvision or timm name.")
@click.option("--epochs", type=int, help="Epochs.")
@click.option("--batch-size", type=int, help="Images in a step.")
@click.option("--lr", type=float, help="Learning rate at its highest.")
@click.option(
    "--losses", metavar="A,B,...", help="Losses of weight 1, others off: cls,mse,mse_raw,im_cst,vlalign,cap."
)
@click.option("--k", type=int, help="Nearest texts that vlalign compares.")
@click.option("--image-size", type=int, help="Student's input side, pixels.")
@click.option("--text", help="Text bank that classifies: labels, descriptions, ...")
@click.option(
    "--prompts",
    type=click.Choice(["none", "coop", "cocoop"]),
    help="Learn the prompt instead; --set prompts.n_ctx=8.",
)
@click.option("--teachers", metavar="A,B", help="Teachers of the cache, one head each; the first is 'main'.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting. Repeatable.")
@click.option("--seed", type=int, help="Decides first weights, order and augmentation.")
@click.option("--device", help="auto, cpu, cuda, cuda:N.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def train(cache: Path, data: Path, out: Path, resume: bool, as_json: bool, **given: Any) -> None:
    """Train one student from CACHE, with no teacher in memory (stage 2).

    \b
    Examples:
      distill train artifacts/photos --data photos --out runs/first --recipe resnet18 --epochs 20
      distill train artifacts/photos --data photos --out runs/cls --losses cls --set optim.schedule=cosine
    """
    from cache.progress import progress_for
    from distill.recipes import run_config
    from distill.train import Stopped, run

    config = run_config(**given)
    progress = progress_for("training")
    try:
        summary = run(
            config,
            cache_dir=cache,
            data_dir=data,
            out=out,
            resume_run=resume,
            progress=progress,
            command=sys.argv,
        )
    except Stopped as stopped:
        progress.close()
        _stop(str(stopped), 128 + stopped.signal_number)
    finally:
        progress.close()
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    rows = [
        [name.removesuffix("_accuracy"), _percent(value)]
        for name, value in summary.items()
        if name.endswith("_accuracy") and isinstance(value, float)
    ]
    _table(f"run {out}: {summary['headline']}", ["split", "accuracy"], rows)
    click.echo(
        f"{summary['seconds']:,.0f} s; curves in {out / 'curves.png'}, all numbers in {out / 'summary.json'}"
    )


def _percent(value: float) -> str:
    return f"{value:.1f}%"


@main.command()
@click.argument("folder", metavar="RUN_OR_CACHE", type=EXISTING_FOLDER)
@click.option(
    "--teacher", is_flag=True, help="The folder is a cache: judge its teacher, from the cache alone."
)
@click.option("--data", type=EXISTING_FOLDER, help="The images' folder  [default: the run's own]")
@click.option(
    "--cache", type=EXISTING_FOLDER, help="The cache with the class texts  [default: the run's own]"
)
@click.option(
    "--split", "splits", multiple=True, help="train, id_val, id_test, ood_test. Repeatable  [default: tests]"
)
@click.option("--text", help="Text bank that classifies  [default: the run's own; labels for a teacher]")
@click.option("--checkpoint", default="last", show_default=True, help="last, or best where id_val chose one.")
@click.option("--space", is_flag=True, help="Compare the student's embeddings with the teacher's instead.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print accuracies, losses and every class as JSON.")
def evaluate(
    folder: Path,
    teacher: bool,
    space: bool,
    splits: tuple[str, ...],
    text: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Say how well a run's student, or a cache's teacher, classifies.

    \b
    Examples:
      distill evaluate runs/first --split ood_test
      distill evaluate runs/first --space
      distill evaluate artifacts/photos --teacher
    """
    if space:
        _evaluate_space(folder, teacher, splits, text, as_json, given)
        return
    if teacher:
        from distill.evaluate import evaluate_teacher

        if given["data"] or given["cache"]:
            raise click.UsageError("--teacher judges from the cache alone: leave out --data and --cache.")
        results = evaluate_teacher(folder, splits=splits, text=text or "labels")
    else:
        from distill.evaluate_run import evaluate_run

        results = evaluate_run(
            folder,
            data_dir=given["data"],
            cache_dir=given["cache"],
            splits=splits,
            checkpoint=given["checkpoint"],
            text=text,
            device=given["device"],
        )
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps({name: asdict(result) for name, result in results.items()}, indent=2))
        return
    rows = [
        [
            name,
            _percent(r.accuracy),
            f"{r.loss:.3f}",
            _percent(r.chance),
            f"{r.images:,}",
            str(len(r.per_class)),
        ]
        for name, r in results.items()
    ]
    who = f"teacher of {folder}" if teacher else str(folder)
    _table(who, ["split", "accuracy", "loss", "chance", "images", "classes"], rows)
    for result in results.values():
        for key, reason in result.unreadable.items():
            click.echo(f"skipped {result.split}/{key}: {reason}")


def _evaluate_space(
    run: Path, teacher: bool, splits: tuple[str, ...], text: str | None, as_json: bool, given: dict[str, Any]
) -> None:
    from distill.evaluate_run import space_of_run

    if teacher:
        raise click.UsageError("--space compares a student with its teacher: leave out --teacher.")
    found = space_of_run(
        run,
        data_dir=given["data"],
        cache_dir=given["cache"],
        splits=splits,
        checkpoint=given["checkpoint"],
        text=text,
        device=given["device"],
    )
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    rows = [[name, *(_number(metrics.get(name)) for metrics in found.values())] for name in names]
    _table(f"{run}: student beside teacher", ["", *found], rows)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


@main.command()
@click.argument("run", type=EXISTING_FOLDER)
@click.option(
    "--shots",
    default="5",
    show_default=True,
    callback=_numbers,
    metavar="N,N,...",
    help="Images of each OOD class.",
)
@click.option(
    "--method",
    type=click.Choice(["finetune", "retrieval"]),
    default="finetune",
    show_default=True,
    help="Train on them too, or retrieve among the teacher's rows of them.",
)
@click.option("--out", type=FOLDER, help="Where results go  [default: RUN/fewshot-METHOD]")
@click.option(
    "--support-seed",
    "support_seeds",
    callback=_numbers,
    metavar="N,N,...",
    help="Draw the images, once a seed; mean and deviation are reported  [default: the first, sorted]",
)
@click.option(
    "--alpha",
    default=1.0,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Retrieval: weight of the support.",
)
@click.option(
    "--beta", default=5.5, type=click.FloatRange(min=0), show_default=True, help="Retrieval: its sharpness."
)
@click.option(
    "--search",
    type=click.Choice(["id_val", "id_test"]),
    help="Retrieval: choose both on this ID split, never on OOD.",
)
@click.option(
    "--views",
    type=click.IntRange(min=1),
    help="Retrieval: views of an image that count; 1 is the image alone  [default: all in the cache]",
)
@click.option("--average-views", is_flag=True, help="Retrieval: one row an image, the mean of its views.")
@click.option("--epochs", type=int, help="Finetune: epochs  [default: 20]")
@click.option("--lr", type=float, help="Finetune: highest rate  [default: 0.001 with SGD, 0.0002 with AdamW]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Finetune: any setting. Repeatable."
)
@click.option("--data", type=EXISTING_FOLDER, help="The images' folder  [default: the run's own]")
@click.option("--cache", type=EXISTING_FOLDER, help="The cache  [default: the run's own]")
@click.option("--checkpoint", default="last", show_default=True, help="last, or best where id_val chose one.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def fewshot(run: Path, out: Path | None, as_json: bool, **given: Any) -> None:
    """Teach RUN's student the OOD classes from a few images of each; judge it on the others.

    \b
    Examples:
      distill fewshot runs/first --shots 5 --method finetune
      distill fewshot runs/first --shots 1,2,4,8 --method retrieval --support-seed 0,1,2
    """
    from cache.progress import progress_for
    from distill.fewshot_run import few_shot, fewshot_options
    from distill.train import Stopped

    out = out or run / f"fewshot-{given['method']}"
    places = {"data_dir": given.pop("data"), "cache_dir": given.pop("cache")}
    options = fewshot_options(**given)
    progress = progress_for("finetuning")
    try:
        results = few_shot(run, out, options, **places, progress=progress)
    except Stopped as stopped:
        progress.close()
        _stop(f"{stopped} (For few-shot runs: the same command.)", 128 + stopped.signal_number)
    finally:
        progress.close()
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    rows = [
        [
            str(row["shots"]),
            *(_mean(row, name) for name in ("before", "ood_query", "id_test")),
            str(row["draws"]),
        ]
        for row in results["table"]
    ]
    _table(
        f"{run}: {results['method']}, {results['headline']}",
        ["shots", "zero-shot", "ood_query", "id_test", "draws"],
        rows,
    )
    click.echo(f"plot in {out / 'fewshot.png'}, all numbers in {out / 'fewshot.json'}")


def _mean(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    return _percent(row[name]) + (f" ± {row[f'{name}_std']:.1f}" if row[f"{name}_std"] is not None else "")


@main.command()
@click.option(
    "--out", default="artifacts/demo", show_default=True, type=FOLDER, help="Where everything goes."
)
@click.option(
    "--epochs", default=14, show_default=True, type=click.IntRange(min=1), help="Epochs of each student."
)
@click.option("--seed", default=0, show_default=True, type=int, help="Decides first weights and batches.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def demo(out: Path, epochs: int, seed: int, device: str, as_json: bool) -> None:
    """Draw a small data set, cache it with a small teacher, train two students, compare.

    Example: distill demo
    """
    from distill.demo.run import run_demo
    from distill.train import Stopped

    try:
        results = run_demo(
            out, epochs=epochs, seed=seed, device=device, say=lambda text: click.echo(text, err=True)
        )
    except Stopped as stopped:
        _stop(str(stopped), 128 + stopped.signal_number)
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    rows = [[who, _percent(r["id_test"]), _percent(r["ood_test"])] for who, r in results["accuracy"].items()]
    _table("macro accuracy", ["", "ID", "OOD"], rows)
    for what, where in results["files"].items():
        click.echo(f"{what}: {where}")


if __name__ == "__main__":
    main()
