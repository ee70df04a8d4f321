"""Imports from files: what ``distill cache import`` calls."""

from __future__ import annotations

from pathlib import Path

from cache.build.distinct_texts import check_positions
from cache.maintain.import_embeddings import ImportedTexts, import_embeddings
from cache.runtime.errors import UserError
from cache.sources.arrays import keys_in_original_order, load_array, load_names
from cache.sources.image_folder import ImageFolder
from cache.sources.open_set import check_apart, check_trained
from cache.sources.splits import split_name
from cache.store.manifest import Manifest


def import_files(
    out: Path,
    *,
    images: str,
    keys: str | None = None,
    data: Path | None = None,
    captions: str | None = None,
    texts: str | None = None,
    classes: str | None = None,
    bank: str = "labels",
    split: str = "train",
    model: str = "imported",
    pretrained: str | None = None,
    dtype: str = "float16",
    format: str = "hdf5",
    shared_classes: bool = False,
) -> Manifest:
    """Make a cache from arrays in files; see :func:`cache.maintain.import_embeddings.import_embeddings`.

    Without ``keys``, rows are in the original code's order of the images below ``data``. A teacher at hand
    (``pretrained``, or a ``model`` with weights) embeds the class texts; otherwise ``texts`` has them.

    Raises
    ------
    UserError
        If an option is missing, a file holds no array, or the shapes do not fit.
    """
    folder = _open_set_folder(data, shared_classes=shared_classes) if data else None
    embeddings = load_array(images)
    if keys is not None:
        names = load_names(keys)
    elif folder is not None:
        names = keys_in_original_order(folder, len(embeddings), source=images)
    else:
        raise UserError(
            f"nothing says which images the rows of {images} are",
            fix="give --keys, or --data for rows in the original code's order.",
        )
    if (texts is None) != (classes is None):
        raise UserError("--texts and --classes belong together", fix="give both, one class a row.")
    banks = []
    if texts is not None and classes is not None:
        source = f"rows of {Path(texts).name}, by the names in {Path(classes).name}"
        rows = load_array(texts)
        banks = [ImportedTexts(name=bank, classes=load_names(classes), embeddings=rows, source=source)]
    elif pretrained or ":" in model:
        banks = _banks_of_teacher(folder, model, pretrained, out=out, shared_classes=shared_classes)
    return import_embeddings(
        out,
        keys=names,
        embeddings=embeddings,
        texts=banks,
        folder=folder,
        caption_embeddings=load_array(captions) if captions else None,
        split=split_name(split),
        teacher=model,
        dtype=dtype,
        format=format,
    )


def _open_set_folder(data: Path, *, shared_classes: bool) -> ImageFolder:
    folder = ImageFolder.scan(data, require=())
    check_trained(folder.path, {name: split.class_names for name, split in folder.splits.items()})
    if not shared_classes:
        check_apart(folder, fix="add --shared-classes.")
    return folder


def _banks_of_teacher(
    folder: ImageFolder | None, model: str, pretrained: str | None, *, out: Path, shared_classes: bool
) -> list[ImportedTexts]:
    if folder is None:
        raise UserError("class texts need the class folders", fix="give --data.")
    # Here, because it imports open_clip, which plain imports do without.
    from cache.build.from_folder import FeatureOptions, text_banks
    from cache.build.text_banks import check_banks
    from cache.teacher.open_clip_model import load_teacher

    banks = text_banks(folder, FeatureOptions(model=model, shared_classes=shared_classes))
    check_positions(out, banks)
    teacher = load_teacher(model, pretrained=pretrained)
    check_banks(banks, folder, teacher, shared_classes=shared_classes)
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
