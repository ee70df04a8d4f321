"""Imports from files: what ``distill cache import`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.build.distinct_texts import check_positions
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.errors import UserError, WrongOption
from cache.runtime.progress import Progress, Silent
from cache.sources.arrays import keys_in_original_order, load_array, load_names
from cache.sources.clip_retrieval import is_clip_retrieval, load_clip_retrieval
from cache.sources.data import check_used, open_data
from cache.sources.kept_sources import KeptSources
from cache.sources.names import is_plain_name
from cache.sources.open_set import check_apart, check_trained
from cache.sources.samples import DataFolder
from cache.sources.source_options import AS_THEY_ARE, SourceOptions
from cache.sources.splits import split_name
from cache.store.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Everything that ``distill cache import`` can be told.

    ``images`` and ``captions`` are files of rows in one order, that of ``keys``, or left out the original
    code's of the images below ``data``; or ``images`` is a folder that clip-retrieval wrote. Rows whose key
    names no split are of ``split``, '' for train, or the pool where they have no label either. ``texts`` has
    the class embeddings and ``classes`` the class folder of each; without them a teacher at hand
    (``pretrained``, or a ``model`` with weights) embeds the class texts. ``data`` is one source or several,
    as for :func:`open_data`, and ``sources`` say how they are read.
    """

    images: str
    keys: str | None = None
    data: str | Path | Sequence[str | Path] | None = None
    sources: SourceOptions = AS_THEY_ARE
    captions: str | None = None
    texts: str | None = None
    classes: str | None = None
    bank: str = "labels"
    split: str = ""
    model: str = "imported"
    pretrained: str | None = None
    dtype: str = "float16"
    format: str = "hdf5"
    shared_classes: bool = False

    def __post_init__(self) -> None:
        if not is_plain_name(self.bank):
            raise WrongOption(
                f"--bank {self.bank!r:.60} cannot name a file", fix="use letters, digits, '.', '_' and '-'."
            )
        try:
            split_name(self.split or "train")
        except UserError as error:
            raise WrongOption(f"--as {error.problem}", fix=error.fix) from error


def import_files(
    out: Path,
    options: ImportOptions,
    *,
    progress: Progress | None = None,
) -> Manifest:
    """Make a cache from arrays in files; see :func:`cache.maintain.import_embeddings.import_embeddings`.

    Raises
    ------
    UserError
        If an option is missing, a file holds no array, or the shapes do not fit.
    """
    progress = progress or Silent()
    folder = _folder(options)
    if folder is not None:
        for note in folder.notes:
            progress.note(note)
        check_trained(folder.path, folder.classes)
        if not options.shared_classes:
            check_apart(folder, fix="add --shared-classes.")
    texts = _banks(folder, options, out)
    make = _of_clip_retrieval if is_clip_retrieval(options.images) else _of_arrays
    given = replace(
        make(folder, options),
        texts=texts,
        folder=folder,
        teacher=options.model,
        dtype=options.dtype,
        format=options.format,
        sources=KeptSources.of(options.data, options.sources) if options.data else None,
    )
    return import_embeddings(out, given, progress=progress)


def _of_arrays(folder: DataFolder | None, options: ImportOptions) -> Imported:
    embeddings = load_array(options.images)
    return Imported(
        keys=_keys(folder, options, rows=len(embeddings)),
        embeddings=embeddings,
        caption_embeddings=load_array(options.captions) if options.captions else None,
        split=split_name(options.split or "train"),
    )


def _of_clip_retrieval(folder: DataFolder | None, options: ImportOptions) -> Imported:
    """Return what clip-retrieval wrote: labels and splits are those of the data, else the metadata's."""
    if options.keys or options.captions:
        raise UserError(
            f"{options.images} says itself what its rows are of", fix="leave --keys and --captions out."
        )
    # Columns that are named are those of the data where there are any.
    read = load_clip_retrieval(options.images, AS_THEY_ARE if folder else options.sources)
    split = split_name(options.split) if options.split else ""
    return Imported(
        keys=read.paths if folder else read.keys(split),
        embeddings=read.images,
        caption_embeddings=read.captions,
        labels=None if folder else read.labels or [()] * len(read.paths),
        paths=True,
        split=split or ("train" if folder else "pool"),
    )


def _folder(options: ImportOptions) -> DataFolder | None:
    data = [options.data] if isinstance(options.data, str | Path) else options.data
    if not data:
        return None
    check_used(data, options.sources)
    return open_data(data, options.sources)


def _keys(folder: DataFolder | None, options: ImportOptions, *, rows: int) -> list[str]:
    if options.keys is not None:
        return load_names(options.keys)
    if folder is None:
        raise UserError(
            f"nothing says which images the rows of {options.images} are",
            fix="give --keys, or --data for rows in the original code's order.",
        )
    return keys_in_original_order(folder, rows, source=options.images)


def _banks(folder: DataFolder | None, options: ImportOptions, out: Path) -> list[ImportedTexts]:
    texts, classes = options.texts, options.classes
    if (texts is None) != (classes is None):
        raise UserError("--texts and --classes belong together", fix="give both, one class a row.")
    if texts is not None and classes is not None:
        source = f"rows of {Path(texts).name}, by the names in {Path(classes).name}"
        rows = load_array(texts)
        return [ImportedTexts(name=options.bank, classes=load_names(classes), embeddings=rows, source=source)]
    if options.pretrained or ":" in options.model:
        return _banks_of_teacher(folder, options, out)
    return []


def _banks_of_teacher(folder: DataFolder | None, options: ImportOptions, out: Path) -> list[ImportedTexts]:
    if folder is None:
        raise UserError("class texts need the class folders", fix="give --data.")
    # Here, because it imports open_clip, which plain imports do without.
    from cache.build.from_folder import FeatureOptions, text_banks
    from cache.build.text_banks import check_banks
    from cache.teacher.load import load_teacher

    shared = options.shared_classes
    banks = text_banks(folder, FeatureOptions(model=options.model, shared_classes=shared))
    check_positions(out, banks)
    teacher = load_teacher(options.model, pretrained=options.pretrained)
    check_banks(banks, folder, teacher, shared_classes=shared)
    return [
        ImportedTexts(
            name=bank.name,
            classes=bank.classes,
            texts=bank.texts,
            embeddings=teacher.embed_texts(bank.texts)[0].numpy(),
            source=bank.source,
        )
        for bank in banks
    ]
