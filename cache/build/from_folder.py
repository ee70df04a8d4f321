"""Stage 1 from a data folder's files: what ``distill cache-features`` calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache.build.captions import load_captions
from cache.build.distinct_texts import check_positions, check_told_apart, judged_together
from cache.build.options import Build, BuildOptions, TeacherOptions
from cache.build.pipeline import Embed, build_cache, embed_here
from cache.build.summary import BuildSummary
from cache.changed_images import changed_rows, contents_of, refuse_changed
from cache.reader import TEACHERS, EmbeddingCache
from cache.runtime.distributed import ranks_of_torchrun
from cache.runtime.errors import CacheMismatch, UserError, some_of
from cache.runtime.progress import Progress, Silent
from cache.sources.class_texts import (
    CAPTIONS,
    DESCRIPTIONS,
    LABELS,
    BankTexts,
    class_names_of,
    description_bank,
    file_bank,
    label_bank,
    read_descriptions,
    template_bank,
)
from cache.sources.image_folder import ImageFolder
from cache.sources.names import is_plain_name
from cache.sources.open_set import check_apart, check_trained
from cache.sources.splits import MAIN_TEACHER
from cache.store.manifest import FEATURES
from cache.store.neighbours import NEAREST
from cache.store.spec import LOCAL_DIR

if TYPE_CHECKING:
    from cache.runtime.ray_pool import RayCluster

SAME_DATA = "give the data the cache was made from, or bring the first teacher up to date."


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(BuildOptions):
    """Everything that ``distill cache-features`` can be told; paths left None are looked for in DATA."""

    neighbours: int = NEAREST
    label2text: Path | None = None
    descriptions: Path | None = None
    captions: Path | None = None
    templates: tuple[str, ...] = ()
    text_files: tuple[Path, ...] = ()
    teacher: str = MAIN_TEACHER
    cluster: RayCluster | None = None


def cache_features(
    data: Path, out: Path, options: FeatureOptions, *, progress: Progress | None = None
) -> BuildSummary:
    """Embed a data folder's images and texts into the cache ``out``; run again, it continues.

    Under torchrun every process embeds its own shards, and returns the summary of the whole; with a
    ``cluster`` every shard is a Ray task, and what there is one of is done here.

    Raises
    ------
    UserError
        If anything the user gave is wrong. Names, texts and shapes are checked before the teacher,
        which is slow to load.
    """
    if options.cluster:  # machines that have other working folders
        data, out = data.resolve(), out.resolve()
    folder = ImageFolder.scan(data)
    check_trained(data, folder.classes)
    if not options.shared_classes:
        check_apart(
            folder,
            fix="add --shared-classes.",
            texts=class_names_of(_given_or_default(options.label2text, data / LABELS), folder.class_names),
        )
    banks = text_banks(folder, options)
    first = None
    if options.teacher != MAIN_TEACHER:
        first, out = EmbeddingCache.open(out), added_teacher(out, options.teacher)
        check_positions(first.path, banks)
        check_unchanged(first, folder)
    teacher = options.load()
    captions = _given_or_default(options.captions, data / CAPTIONS)
    build = Build(
        folder=folder,
        out=out,
        teacher=teacher,
        spec=options.spec(teacher),
        banks=banks,
        captions=load_captions(captions, folder, embed_dim=teacher.embed_dim) if captions else None,
        options=options.on(teacher, batch_size=32, on_gpu=256),
        progress=progress or Silent(),
        command=FEATURES,
    )
    with ranks_of_torchrun() as ranks:
        build = replace(build, ranks=ranks)
        summary = build_cache(build, _on_ray(build, options) if options.cluster else embed_here)
    if first is not None:
        check_same_images(first, EmbeddingCache.open(out))
    return summary


def _on_ray(build: Build, options: FeatureOptions) -> Embed:
    from cache.build.ray_executor import EmbedOnRay

    assert options.cluster is not None
    # A machine of the cluster must not choose another precision or batch: both change bits of the rows.
    source = TeacherOptions(
        model=anywhere(options.model),
        pretrained=anywhere(options.pretrained) if options.pretrained else None,
        preprocessing=options.preprocessing,
        precision=build.teacher.spec.precision,
        compile=options.compile,
        device=options.device,
        weights_sha256=build.teacher.spec.weights_sha256,
    )
    return EmbedOnRay(cluster=options.cluster, source=source, workers=options.workers)


def anywhere(name: str) -> str:
    """Return a model or its weights so that it is found from any working folder."""
    scheme = LOCAL_DIR if name.startswith(LOCAL_DIR) else ""
    path = Path(name.removeprefix(scheme))
    return f"{scheme}{path.resolve()}" if path.exists() else name


def added_teacher(cache: Path, name: str) -> Path:
    """Return the folder of a teacher added to a cache: a cache of its own, with the same keys."""
    if not is_plain_name(name):
        raise UserError(
            f"--teacher {name!r} cannot name a folder", fix="use letters, digits, '.', '_' and '-'."
        )
    return cache / TEACHERS / name


def check_unchanged(cache: EmbeddingCache, folder: ImageFolder) -> None:
    """Make sure that the images of a folder are those that a cache's rows were made from.

    Raises
    ------
    CacheMismatch
        If one is not, or is there in one of the two alone; what could not be read is in neither.
    """
    for name in sorted({*cache.split_names, *folder.splits}):
        images = folder.splits[name].all() if name in folder.splits else ()
        rows = cache.split(name) if name in cache.split_names else None
        listed = cache.manifest.splits.get(name)
        skipped = {image.key for image in listed.skipped} if listed else set()
        odd = sorted(({image.key for image in images} ^ {*(rows.keys if rows else ())}) - skipped)
        if odd:
            raise CacheMismatch(
                f"{folder.path} has other images of {name} than {cache.path} has rows of ({len(odd)} differ: "
                f"{some_of(odd)})",
                fix=SAME_DATA,
            )
        refuse_changed(contents_of(images, rows).changed, split=name, data=folder.path, cache=cache.path)


def check_same_images(first: EmbeddingCache, other: EmbeddingCache) -> None:
    """Make sure that two teachers' rows are of the same images, by key and by content.

    Raises
    ------
    CacheMismatch
        If they are not.
    """
    for name in sorted({*first.split_names, *other.split_names}):
        mine, theirs = (
            set(cache.split(name).keys) if name in cache.split_names else set() for cache in (first, other)
        )
        if mine != theirs:
            odd = sorted(mine ^ theirs)
            raise CacheMismatch(
                f"{other.path} has other rows of {name} than {first.path} ({len(odd)} differ: {odd[0]}, ...)",
                fix=SAME_DATA,
            )
        changed = changed_rows(first.split(name), other.split(name)) if mine else ()
        refuse_changed(changed, split=name, data=other.path, cache=first.path)


def text_banks(folder: ImageFolder, options: FeatureOptions) -> list[BankTexts]:
    """Return the banks of a data folder: labels, descriptions where there are any, and what was asked for."""
    labels = _given_or_default(options.label2text, folder.path / LABELS)
    names = class_names_of(labels, folder.class_names)
    named_by = f"{labels.name}, by name" if labels else "the folders' names"
    if absent := len(names.keys() - set(folder.class_names)):
        named_by += f" ({absent:,} of its folders are not in the data)"
    banks = [label_bank(names, source=named_by)]
    descriptions = _given_or_default(options.descriptions, folder.path / DESCRIPTIONS)
    if descriptions:
        order = "label2text's order" if labels else "the order of the folders, sorted"
        by_class = read_descriptions(descriptions, names, required=folder.class_names, order=order)
        banks.append(description_bank(names, by_class))
    if options.templates:
        banks.append(template_bank("templates", names, options.templates, source=named_by))
    banks += [file_bank(path, names) for path in options.text_files]
    groups = judged_together(folder, shared_classes=options.shared_classes)
    for bank in banks:
        check_told_apart(bank, groups)
    names_of_banks = [bank.name for bank in banks]
    for bank in banks:
        if not is_plain_name(bank.name):
            raise UserError(
                f"the text bank {bank.name!r} cannot be called so",
                fix="rename the --text-file: letters, digits, '.', '_' and '-'.",
            )
        if names_of_banks.count(bank.name) > 1:
            raise UserError(f"two text banks are called {bank.name!r}", fix="rename the --text-file.")
    return banks


def _given_or_default(given: Path | None, default: Path) -> Path | None:
    if given is not None and not given.is_file():
        raise UserError(f"{given} does not exist", fix="check the path.")
    return given or (default if default.is_file() else None)
