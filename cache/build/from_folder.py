"""Stage 1 from sources of images: what ``distill cache-features`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache.build.captions import Captions, captions_of_samples, load_captions
from cache.build.columns import MakeColumns, make_here
from cache.build.distinct_texts import check_positions, check_told_apart, judged_together
from cache.build.first_look import check_splits, given_or_default
from cache.build.options import Build, BuildOptions
from cache.build.pipeline import Embed, build_cache, embed_here
from cache.build.second_teacher import add_teacher, check_teacher_name
from cache.build.summary import BuildSummary
from cache.build.without_texts import check_texts_asked, left_out_note
from cache.reader import EmbeddingCache
from cache.runtime.distributed import Ranks, ranks_of_torchrun
from cache.runtime.errors import UserError
from cache.runtime.own_code import own_code_in
from cache.runtime.progress import Progress, Silent
from cache.sources.class_sentences import JSON, SENTENCES, described_bank, text_bank_of
from cache.sources.class_texts import (
    CAPTIONS,
    DESCRIPTIONS,
    LABELS,
    BankTexts,
    class_names_of,
    description_bank,
    label_bank,
    read_descriptions,
    template_bank,
)
from cache.sources.data import Data, Given, check_used, open_data
from cache.sources.id_names import ids_note
from cache.sources.kept_sources import KeptSources
from cache.sources.names import is_plain_name
from cache.sources.samples import DataFolder
from cache.sources.source_options import AS_THEY_ARE, SourceOptions
from cache.sources.splits import MAIN_TEACHER
from cache.store.manifest import FEATURES
from cache.store.spec import LOCAL_DIR
from cache.teacher.templates import templates_of

if TYPE_CHECKING:
    from cache.runtime.ray_pool import RayCluster


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(BuildOptions):
    """Everything that ``distill cache-features`` can be told; paths left None are looked for in DATA.

    ``sources`` say how the images are read.
    """

    sources: SourceOptions = AS_THEY_ARE
    label2text: Path | None = None
    descriptions: Path | None = None
    captions: Path | None = None
    templates: tuple[str, ...] = ()
    text_files: tuple[Path, ...] = ()
    teacher: str = MAIN_TEACHER
    cluster: RayCluster | None = None


def cache_features(
    data: Data,
    out: Path,
    options: FeatureOptions,
    *,
    progress: Progress | None = None,
    opened: DataFolder | None = None,
) -> BuildSummary:
    """Embed images and their classes' texts into the cache ``out``; run again, it embeds what is new.

    ``data`` is one source or several, each ``PLACE`` or ``SPLIT=PLACE``, or datasets: see :func:`open_data`.
    ``opened`` are their splits, where :func:`cache.build.first_look.first_look` has opened them.

    Under torchrun every process embeds its own share, and returns the summary of the whole; with a
    ``cluster`` every unit is a Ray task, and what there is one of is done here.

    Raises
    ------
    UserError
        If anything the user gave is wrong. Names, texts and shapes are checked before the teacher,
        which is slow to load.
    """
    progress = progress or Silent()
    given = Given.all_of(data)
    if options.cluster:  # machines that have other working folders
        given, out = [one.anywhere() for one in given], out.resolve()
    check_used(given, options.sources)
    with ranks_of_torchrun() as ranks:
        folder = opened or _opened(given, options.sources, ranks)
        check_splits(
            folder,
            shared_classes=options.shared_classes,
            label2text=options.label2text,
            support_views=options.support_views,
        )
        for note in folder.notes:
            progress.note(note)
        build = replace(_build(folder, out, options, progress), ranks=ranks)
        build = replace(build, sources=KeptSources.of(given, options.sources))
        embed, make = (embed_here, make_here) if options.cluster is None else _on_ray(build, options)
        if options.teacher != MAIN_TEACHER:
            return add_teacher(build, options.teacher, make)
        return build_cache(build, embed, make)


def _opened(given: list[Given], options: SourceOptions, ranks: Ranks) -> DataFolder:
    """Return the splits; of several processes one opens them, and lists what has to be listed for that."""
    if any(one.dataset is not None for one in given):  # which each process has its own of
        return open_data(given, options)

    def opened() -> DataFolder | UserError:
        try:
            return open_data(given, options)
        except UserError as error:  # which is to be said by all, not that the first was lost
            return error

    folder = ranks.from_first(opened)
    if isinstance(folder, UserError):
        raise folder
    return folder


def _build(folder: DataFolder, out: Path, options: FeatureOptions, progress: Progress) -> Build:
    """Return the run of some splits, whose texts are looked at before the teacher is loaded."""
    banks = text_banks(folder, options)
    if not given_or_default(options.label2text, folder.path / LABELS) and (
        note := ids_note(folder.class_names)
    ):
        progress.note(note)
    if options.teacher != MAIN_TEACHER:
        check_teacher_name(options.teacher)
        EmbeddingCache.open(out)  # which must be finished
    check_positions(out, banks)
    progress.start(None, "loading the teacher", "")
    teacher = options.load_for(out, options.teacher)
    asked = {
        "--text-file": options.text_files,
        "--template": options.templates,
        "--descriptions": options.descriptions,
        "--captions": options.captions,
        "--neighbours": options.neighbours,
        "--keep-text-tower": options.keep_text_tower,
    }
    check_texts_asked(teacher, asked, keeps_tower=options.keep_text_tower)
    captions = _captions(folder, options, embed_dim=teacher.embed_dim)
    if not teacher.reads_texts:
        there = [*(f"text bank {bank.name}" for bank in banks), *(["captions"] if captions else [])]
        if there:
            progress.note(left_out_note(teacher, there))
        banks, captions = [], None
    return Build(
        folder=folder,
        out=out,
        teacher=teacher,
        spec=options.spec(teacher, decoding=options.sources.decoding),
        banks=banks,
        captions=captions,
        options=options.on(teacher, batch_size=32, on_gpu=256),
        progress=progress,
        command=FEATURES,
    )


def _captions(folder: DataFolder, options: FeatureOptions, *, embed_dim: int) -> Captions | None:
    """Return the captions of a file, which is given or found beside the images, or else of the samples."""
    path = given_or_default(options.captions, folder.path / CAPTIONS)
    return load_captions(path, folder, embed_dim=embed_dim) if path else captions_of_samples(folder)


def _on_ray(build: Build, options: FeatureOptions) -> tuple[Embed, MakeColumns]:
    from cache.build.ray_columns import ColumnsOnRay
    from cache.build.ray_executor import EmbedOnRay

    assert options.cluster is not None
    # A machine of the cluster must not choose another precision or batch: both change bits of the rows.
    teacher = replace(
        options,
        model=anywhere(options.model),
        pretrained=anywhere(options.pretrained) if options.pretrained else None,
        precision=build.teacher.spec.precision,
        weights_sha256=build.teacher.spec.weights_sha256,
    )
    cluster, workers = options.cluster, options.workers
    embed = EmbedOnRay(cluster=cluster, teacher=teacher, workers=workers)
    return embed, ColumnsOnRay(cluster=cluster, teacher=teacher, workers=workers)


def anywhere(name: str) -> str:
    """Return a model or its weights so that it is found from any working folder."""
    if own := own_code_in(name):
        return f"{own[0].resolve()}:{own[1]}"
    scheme = LOCAL_DIR if name.startswith(LOCAL_DIR) else ""
    path = Path(name.removeprefix(scheme))
    return f"{scheme}{path.resolve()}" if path.exists() else name


def text_banks(folder: DataFolder, options: FeatureOptions) -> list[BankTexts]:
    """Return the banks of a data folder: labels, descriptions where there are any, and what was asked for."""
    labels = given_or_default(options.label2text, folder.path / LABELS)
    names = class_names_of(labels, folder.class_names)
    named_by = f"{labels.name}, by name" if labels else "the folders' names"
    if absent := len(names.keys() - set(folder.class_names)):
        named_by += f" ({absent:,} of its folders are not in the data)"
    banks = [label_bank(names, source=named_by)] if names else []
    descriptions = _descriptions(folder, options)
    if descriptions and names and descriptions.suffix.lower() == JSON:
        banks.append(described_bank(descriptions, names, required=folder.class_names))
    elif descriptions and names:
        order = "label2text's order" if labels else "the order of the folders, sorted"
        by_class = read_descriptions(descriptions, names, required=folder.class_names, order=order)
        banks.append(description_bank(names, by_class))
    if options.templates and not names:
        raise UserError(
            f"--template needs the names of classes, and {folder.path} has none",
            fix="give them with --label2text, or leave it out.",
        )
    if options.templates:
        banks.append(template_bank("templates", names, templates_of(options.templates), source=named_by))
    banks += [text_bank_of(path, names) for path in options.text_files]
    _check_names(banks)
    groups = judged_together(folder, shared_classes=options.shared_classes)
    for bank in banks:
        check_told_apart(bank, groups)
    return banks


def _descriptions(folder: DataFolder, options: FeatureOptions) -> Path | None:
    """Return the file of descriptions; UserError where two are found beside the images."""
    if options.descriptions:
        return given_or_default(options.descriptions, options.descriptions)
    there = [path for path in (folder.path / DESCRIPTIONS, folder.path / SENTENCES) if path.is_file()]
    if len(there) > 1:
        raise UserError(
            f"{there[0]} and {there[1].name} are both descriptions", fix="say which: --descriptions FILE."
        )
    return there[0] if there else None


def _check_names(banks: Sequence[BankTexts]) -> None:
    names_of_banks = [bank.name for bank in banks]
    for bank in banks:
        if not is_plain_name(bank.name):
            raise UserError(
                f"the text bank {bank.name!r} cannot be called so",
                fix="rename the --text-file: letters, digits, '.', '_' and '-'.",
            )
        if names_of_banks.count(bank.name) > 1:
            raise UserError(f"two text banks are called {bank.name!r}", fix="rename the --text-file.")
