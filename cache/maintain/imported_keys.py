"""Which image each row of an import is of: its split, its key and its classes; what has none is counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.maintain.imported import Imported
from cache.maintain.imported_rows import ImportedSplit
from cache.runtime.errors import UserError, nearest_names
from cache.sources.accounts import LeftOut, Reason, Tally
from cache.sources.class_texts import is_key
from cache.sources.names import check_class_names
from cache.sources.samples import DataFolder, Sample
from cache.sources.splits import POOL, SPLIT_ALIASES, SPLITS

Labels = tuple[str, ...]
Images = Mapping[str, Mapping[str, Sample]]
_FIX = "write SPLIT/CLASS/FILE, CLASS/FILE or pool/KEY, one a line."


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The rows of an import by split, the classes of each, and what of the data or the rows is left out."""

    splits: tuple[ImportedSplit, ...]
    classes: dict[str, Labels]
    left_out: dict[str, dict[str, LeftOut]]
    several_labels: bool


class _Rows:
    """The rows of each split by key, and what is left out, filled one by one."""

    def __init__(self, given: Imported) -> None:
        self._given = given
        self.at: dict[str, dict[str, int]] = {}
        self.left_out: defaultdict[str, Tally] = defaultdict(Tally)

    def add(self, split: str, key: str, row: int) -> None:
        """Take a row; of a path that is there again the first counts, and any other key is there once."""
        own = self.at.setdefault(split, {})
        before = own.setdefault(key, row)
        if before == row:
            return
        one, other = self._given.keys[before], self._given.keys[row]
        if not self._given.paths or one != other:
            twice = f"the key {other!r}" if one == other else f"the image of {one!r} and {other!r}"
            raise UserError(f"{twice} is there twice", fix="give each image one row.")
        self.left_out[split].add(Reason.DUPLICATE, other)


def place(given: Imported) -> Placed:
    """Say which image each row is of.

    Raises
    ------
    UserError
        If a key is none, two rows are of one image, or no row is of an image of the data.
    """
    folder, images = given.folder, dict[str, Mapping[str, Sample]]()
    if folder is not None:
        images = {name: {one.key: one for one in source.all()} for name, source in folder.splits.items()}
    rows = _Rows(given)
    (_add_images if folder else _add_keys)(given, rows, images)
    splits = [_split(given, name, rows.at[name], images) for name in sorted(rows.at, key=SPLITS.index)]
    sources = folder.splits if folder else {}
    for name, own in images.items():
        for key in sorted(own.keys() - rows.at.get(name, {}).keys()):
            rows.left_out[name].add(Reason.NO_ROW, key)
    accounts = {name: tally.account() for name, tally in rows.left_out.items()}
    for name, source in sources.items():
        accounts[name] = source.account() + accounts[name] if name in accounts else source.account()
    return Placed(
        splits=tuple(splits),
        classes={one.split: _classes(one, folder) for one in splits},
        left_out={name: dict(account.left_out) for name, account in accounts.items()},
        several_labels=any(source.multi_label for source in sources.values())
        or any(len(names) > 1 for one in splits for names in one.labels),
    )


def _add_images(given: Imported, rows: _Rows, images: Images) -> None:
    """Take the rows of images that are there; of the first that is not, an error where none is."""
    missing = ""
    for row, name in enumerate(given.keys):
        split, key = _image_of(name, given, images)
        if key in images.get(split, ()):
            rows.add(split, key, row)
        else:
            missing = missing or name
            rows.left_out[split].add(Reason.NO_IMAGE, name)
    if not rows.at:
        split, key = _image_of(missing, given, images)
        folder = key.rpartition("/")[0]
        near = [one for one in images.get(split, ()) if one.rpartition("/")[0] == folder]
        raise UserError(
            f"the key {missing!r} is no image of {given.folder and given.folder.path} (split {split}), "
            "and neither is any other",
            fix=f"{nearest_names(key, near)}check the keys, or leave --data out.",
        )


def _image_of(name: str, given: Imported, images: Images) -> tuple[str, str]:
    """Return split and key of the image that a key is of; of a path the longest end that is one's decides."""
    for end in _ends(name) if given.paths else (name,):
        split, key = _named(end)
        if key in images.get(split, ()):
            return split, key
        for other in (given.split, *images):
            if end in images.get(other, ()):
                return other, end
        if split in images:  # whose image is not there: a shorter end would be another's
            return split, key
    split, key = _named(name)
    return split or given.split, key


def _ends(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.partition("/")[2]


def _add_keys(given: Imported, rows: _Rows, images: Images) -> None:
    for row, name in enumerate(given.keys):
        split, key = _named(name, deep=given.labels is None)
        split = split or given.split
        # Without labels the first folder of a key is its class.
        flat = split == POOL or given.labels is not None
        if not is_key(f"-/{key}" if flat else key):
            raise UserError(f"{name!r:.120} is not a key", fix=_FIX)
        rows.add(split, key, row)


def _named(name: str, *, deep: bool = True) -> tuple[str, str]:
    """Return our name of the split that a key names, '' for none, and the rest of it.

    ``deep``: one that is no pool's names a split where two parts follow, a class and a file.
    """
    first, _, rest = name.partition("/")
    split = SPLIT_ALIASES.get(first, first)
    if split in SPLITS and ("/" in rest or (rest and (split == POOL or not deep))):
        return split, rest
    return "", name


def _split(given: Imported, name: str, rows: Mapping[str, int], images: Images) -> ImportedSplit:
    keys = sorted(rows)
    at = [rows[key] for key in keys]
    samples = [images[name][key] for key in keys] if images else []
    return ImportedSplit(
        split=name,
        keys=keys,
        labels=_labels(given, name, keys, at, samples),
        at=np.array(at, dtype=np.int64),
        samples=samples,
        embeddings=given.embeddings,
        captions=given.caption_embeddings,
        dtype=given.dtype,
    )


def _labels(
    given: Imported, split: str, keys: Sequence[str], at: Sequence[int], samples: Sequence[Sample]
) -> list[Labels]:
    if split == POOL:
        return [()] * len(keys)
    if samples:
        return [sample.labels for sample in samples]
    if given.labels is not None:
        return [given.labels[row] for row in at]
    return [(key.partition("/")[0],) for key in keys]


def _classes(split: ImportedSplit, folder: DataFolder | None) -> Labels:
    """Return the names of a split's classes; UserError for one that cannot be called so."""
    if folder is not None:
        return tuple(folder.classes[split.split])
    classes = tuple(sorted({name for names in split.labels for name in names}))
    try:
        check_class_names(classes)
    except ValueError as error:
        raise UserError(f"the labels are wrong: {error}", fix="rename that class.") from error
    return classes
