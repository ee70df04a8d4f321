"""The rows of a group and their pictures as a tar, ``tars/SPLIT-00000.tar``, which plain webdataset reads.

A sample is ``KEY.jpg`` (the picture's file as it is, under its own ending), ``.cls`` (its class's number when
it was written), ``.txt`` (its caption), ``.json`` (key, labels, sha256), ``.embedding.npy`` and further
columns, ``.NAME.npy``. Row i of ``rows/SPLIT-00000/keys.h5`` is sample i. Samples lie in the order of their
keys' hashes, in which classes are mixed. At the end ``__index__/offset.npy``, which webdataset passes over,
says where each of them begins: with it a reader begins anywhere.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import digest, replacing
from cache.runtime.errors import CacheMismatch
from cache.sources.class_texts import name_of_captions
from cache.sources.decoding import ENDINGS, ending_of
from cache.sources.key_hashes import hashes_of
from cache.store.column_lines import map_listed
from cache.store.hdf5_columns import Forms
from cache.store.journal import RowGroup
from cache.store.journal_lines import SAMPLES, TARS, FileLine
from cache.store.manifest import Manifest
from cache.store.mapped_arrays import MappedRows
from cache.store.row_group import UNKNOWN, GroupKeys, write_keys
from cache.store.split_rows import SplitGroups, line_of
from cache.store.tar_rows import TarRows, member_of

if TYPE_CHECKING:
    from cache.sources.samples import Sample

INDEX = "__index__/offset.npy"
# What a tar's line remembers: the classes that ``.cls`` are numbers of, and what names its captions.
CLASSES, TEXTS = "classes", "captions"
# webdataset passes over what is called so, and every file in a folder of such a name.
_META = re.compile(r"__.*__", re.DOTALL)


def tar_name(key: str) -> str:
    """Return a key's name in the tar: without its ending, and with nothing that WebDataset takes otherwise.

    It cuts a name at its first dot, and passes over ``__x__``.
    """
    *folders, file = key.split("/")
    # Only what is an image's ending: an episode may be called "run.1".
    stem = file.rpartition(".")[0] if PurePosixPath(file).suffix.lower() in ENDINGS else file
    return "/".join([*map(_plain, folders), _plain(stem or file).replace(".", "%2E")])


def _plain(name: str) -> str:
    name = name.replace("%", "%25")
    return f"%5F{name[1:]}" if _META.fullmatch(name) else name


def tar_names(keys: Sequence[str]) -> list[str]:
    """Return the names of some keys; two pictures of one stem keep their endings."""
    names = [tar_name(key) for key in keys]
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [
        name if seen[name] == 1 else f"{name}%2E{key.rpartition('.')[2].replace('%', '%25')}"
        for name, key in zip(names, keys, strict=True)
    ]


def write_tar_group(
    cache: Path,
    group: str,
    keys: GroupKeys,
    columns: Mapping[str, NDArray[Any]],
    samples: Sequence[Sample] | None,
    about: Mapping[str, Any] | None = None,
    *,
    captions: Sequence[str | None] | None = None,
) -> list[FileLine]:
    """Write a row group whose rows lie in a tar beside their pictures; return its lines, the keys' last.

    ``columns`` are arrays [n, ...] by name, ``samples`` the images, whose files are taken as they are,
    ``captions`` texts, else a sample's own is taken. Without samples, and where these are no files of one
    picture each, as episodes are not, the rows are alone. Equal rows and pictures give equal bytes.

    Raises
    ------
    UserError
        If a file cannot be read, or is not what the row was made from.
    """
    pictures = samples if samples and all(sample.views == ("image",) for sample in samples) else ()
    order = np.argsort(hashes_of(keys.keys), kind="stable")
    texts = captions or [sample.caption for sample in samples or ()] or [None] * len(keys)
    keys, columns = keys.taken(order), {name: column[order] for name, column in columns.items()}
    contents = (
        content_of(pictures[i] if pictures else None, texts[i], content.tobytes())
        for i, content in zip(order.tolist(), keys.content, strict=True)
    )
    return write_tar_rows(cache, group, keys, columns, contents, about)


@dataclass(frozen=True, kw_only=True, slots=True)
class TarContent:
    """What a row has beside its numbers: the bytes of its picture's file, its ending, and its caption.

    Without an ``ending`` there is no picture.
    """

    caption: str | None = None
    picture: bytes = b""
    ending: str = ""


def write_tar_rows(
    cache: Path,
    group: str,
    keys: GroupKeys,
    columns: Mapping[str, Any],
    contents: Iterable[TarContent],
    about: Mapping[str, Any] | None = None,
) -> list[FileLine]:
    """Write a row group as a tar, its rows in the order of their keys' hashes already; return its lines.

    ``columns`` are arrays [n, ...], or what gives one row when it is asked for.
    """
    class_names = Manifest.load(cache).splits.get(keys.split, ())
    rows = _Rows(keys=keys, columns=dict(columns), contents=contents, class_names=class_names)
    file = f"{TARS}/{group}.tar"
    with replacing(cache / file) as temporary, open(temporary, "wb") as raw:
        written = _Written(raw)
        index = _write(written, rows)
    line = FileLine(
        file=file,
        bytes=written.size,
        sha256=written.sha256.hexdigest(),
        rows=len(keys),
        about={"index": index, "columns": sorted(columns), "pictures": rows.pictures > 0, **rows.told()},
    )
    return [line, write_keys(cache, group, keys, about)]


def read_embeddings(groups: SplitGroups, column: str) -> MappedRows:
    """Return a column of embeddings of every group, of its tar or of a file beside it, in the split's order.

    Raises
    ------
    UserError
        If a group has no such column, or it is damaged.
    """
    if groups.has(column):
        return groups.column(column, "embedding", ("f", (2, 3)))
    tars = (TarRows.of(groups.cache, group, groups.line(group, SAMPLES)) for group in groups.groups)
    return MappedRows([tar.column(column) for tar in tars], groups.index.order)


def rows_of_group(cache: Path, group: RowGroup, column: str) -> Any:
    """Return a group's rows of a column of embeddings, of a file or of its tar, [n, ...] in its order.

    Raises
    ------
    UserError
        If it has no such column, or that is damaged.
    """
    if column not in group.lines and SAMPLES in group.lines:
        return TarRows.of(cache, group).column(column)
    forms: Forms = {"embedding": ("f", (2, 3))}
    return map_listed(cache, line_of(cache, group, column), forms, rows=group.rows)["embedding"]


@dataclass(kw_only=True)
class _Rows:
    """What is written, in the order of the tar; ``pictures`` counts those that were."""

    keys: GroupKeys
    columns: dict[str, Any]
    contents: Iterable[TarContent]
    class_names: Sequence[str]
    pictures: int = 0
    captions: list[str | None] = field(default_factory=list)

    def members(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield the name of every row, and its files by ending."""
        number = {name: str(i).encode() for i, name in enumerate(self.class_names)}
        for i, (name, content) in enumerate(zip(tar_names(self.keys.keys), self.contents, strict=True)):
            labels = self.keys.labels[i]
            files = {member_of(column): _npy(rows[i]) for column, rows in sorted(self.columns.items())}
            if len(labels) == 1 and labels[0] in number:
                files["cls"] = number[labels[0]]
            self.captions.append(content.caption)
            if content.caption is not None:
                files["txt"] = content.caption.encode("utf-8", "surrogateescape")
            files["json"] = json.dumps(
                {"key": self.keys.keys[i], "labels": labels, "sha256": self.keys.content[i].tobytes().hex()}
            ).encode()
            if content.ending:
                files[content.ending] = content.picture
                self.pictures += 1
            yield name, files

    def told(self) -> dict[str, Any]:
        """Return what the line of the tar remembers of classes and captions."""
        has_captions = any(caption is not None for caption in self.captions)
        texts = {TEXTS: name_of_captions(self.captions)} if has_captions else {}
        return {CLASSES: [len(self.class_names), digest([*self.class_names])], **texts}


def content_of(sample: Sample | None, caption: str | None, content: bytes) -> TarContent:
    """Return a sample with its picture's file; CacheMismatch where its SHA-256 is not ``content``."""
    if sample is None:
        return TarContent(caption=caption)
    try:
        picture = sample.content()
    except FileNotFoundError:
        picture = None
    if picture is None or content not in (UNKNOWN, sha256(picture).digest()):
        raise CacheMismatch(
            f"{sample.where} is not the picture that its row was made from",
            fix="bring it back, or run 'distill cache-features' again: it embeds what has changed.",
        )
    return TarContent(caption=caption, picture=picture, ending=ending_of(picture) if picture else "")


@dataclass
class _Written:
    """A file that is written from front to end, and its checksum."""

    file: BinaryIO
    size: int = 0
    sha256: Any = field(default_factory=sha256)

    def write(self, raw: bytes) -> int:
        self.sha256.update(raw)
        self.size += len(raw)
        return self.file.write(raw)

    def tell(self) -> int:
        return self.size


def _write(file: _Written, rows: _Rows) -> int:
    """Write a tar; return where the numbers of its index begin."""
    endings = [member_of(column) for column in sorted(rows.columns)]
    offset = np.empty((len(rows.keys) + 1, 1 + len(endings)), dtype=np.int64)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for i, (name, members) in enumerate(rows.members()):
            offset[i, 0] = file.size
            for ending, raw in members.items():
                at = _add(tar, file, f"{name}.{ending}", raw)
                if ending in endings:
                    offset[i, 1 + endings.index(ending)] = at
        offset[-1] = file.size
        return _add(tar, file, INDEX, _npy(offset))


def _add(tar: tarfile.TarFile, file: _Written, name: str, raw: bytes) -> int:
    """Add a file; return where its bytes begin."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = len(raw), 0o444, "distill", "distill"
    tar.addfile(info, io.BytesIO(raw))
    tar.members = []  # type: ignore[attr-defined]  # which takes a kilobyte for every file
    return file.size - -(-len(raw) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _npy(row: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(row), allow_pickle=False)
    return buffer.getvalue()
