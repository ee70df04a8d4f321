"""A folder of pictures on a server as a source of each split: ``s3://BUCKET/FOLDER``, ``https://HOST/FOLDER``.

It is laid out as :mod:`cache.sources.image_folder` has it: folders of splits, else classes, else a pool. It
is listed once, by whoever opens it; names are kept as arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from urllib.parse import quote

import numpy as np

from cache.runtime.errors import UserError
from cache.sources.accounts import NOTHING, Account, Reason, Tally
from cache.sources.chunk_looks import ChunkListing
from cache.sources.decoding import ENDINGS
from cache.sources.key_chunks import KeyChunks
from cache.sources.key_hashes import hashes_of
from cache.sources.listed_chunks import ListedChunks
from cache.sources.pictures import PictureSample
from cache.sources.places import cannot_be_read, of_no_kind
from cache.sources.remote_files import RemoteFile, files_below, is_web, status
from cache.sources.samples import Chunk, Opened
from cache.sources.source_options import SourceOptions
from cache.sources.split_folders import SplitFolders
from cache.sources.tars import TAR, tar_sources


def open_remote_folder(place: str, options: SourceOptions, split: str) -> Opened:
    """Return the splits of a folder of pictures, or of tars, on a server; all is ``split`` where given.

    Raises
    ------
    UserError
        If it cannot be listed, or has no picture.
    """
    try:
        files = [*files_below(place)]
    except OSError as error:
        raise _of_no_kind(place, error) or cannot_be_read(place, error) from error
    pictures, tally = [], Tally()
    for file in files:
        name = file.name.rpartition("/")[2]
        if name.startswith("."):
            tally.add(Reason.HIDDEN, file.name)
        elif os.path.splitext(name)[1].lower() in ENDINGS:
            pictures.append(file)
        else:
            tally.add(Reason.FORMAT, file.name)
    if not pictures:
        tars = [file.place for file in files if file.name.endswith(TAR)]
        if tars:
            others = [file.name for file in files if not file.name.endswith(TAR)]
            return tar_sources(place, tars, options, split, beside=others)
        some = "; ".join(tally.account().in_words())
        raise UserError(
            f"{place} shows no picture{f' ({some})' if some else ''}",
            fix="check the address; a web server must show an index page of each folder.",
        )
    return _opened(place, pictures, tally, options, split)


def _of_no_kind(place: str, error: OSError) -> UserError | None:
    """Return the error of an address that is no folder, and is there; else None."""
    try:
        return of_no_kind(place) if isinstance(error, FileNotFoundError) and status(place) else None
    except OSError:
        return None


def _opened(
    place: str, pictures: Sequence[RemoteFile], tally: Tally, options: SourceOptions, split: str
) -> Opened:
    """Return the sources of some pictures by split; the account of the rest is with the first of them."""
    by_top: dict[str, list[RemoteFile]] = {}
    for file in pictures:
        by_top.setdefault(file.name.partition("/")[0] if "/" in file.name else "", []).append(file)
    splits = SplitFolders(
        place=place.rstrip("/"),
        folders=[] if split else [top for top in by_top if top],
        has_folders=lambda top: any(file.name.count("/") > 1 for file in by_top[top]),
    )
    called = splits.taken()
    notes = splits.notes(called)
    own = {}
    if not called:  # what lies beside a pool is by class
        called = dict(zip(["pool"], splits.pool(), strict=False))
        rest = [file for file in pictures if file.name.partition("/")[0] not in called.values()]
        own = {"": ("", rest)} if rest else {}
    else:
        for top, files in by_top.items():
            if top not in called.values():
                for file in files:
                    tally.add(Reason.SPLIT, file.name)
    own |= {name: (top, by_top[top]) for name, top in called.items()}
    sources: dict[str, RemoteFolder] = {}
    for name, (top, files) in own.items():
        depth = options.class_depth
        flat = not (name or split) and any("/" not in file.name for file in files)
        if flat or "pool" in (split, name):
            depth = 0
        below = f"{place.rstrip('/')}/{top}".rstrip("/")
        kept = tally.account() if not sources else NOTHING
        sources[name or split] = RemoteFolder(name or split, below, options, kept).of(files, top, depth)
    return Opened(sources, notes)


class RemoteFolder(ListedChunks):
    """The pictures below an address, as one split; chunks are cut by the hashes of their keys."""

    def __init__(self, split: str, place: str, options: SourceOptions, beside: Account) -> None:
        super().__init__()
        self.split, self._place, self._options, self._beside = split, place, options, beside
        self.classes = ()
        self._depth = 0
        self._names, self._status = b"", np.empty((0, 2), dtype=np.int64)

    def of(self, files: Iterable[RemoteFile], top: str, depth: int) -> RemoteFolder:
        """Take files as its pictures, whose folder ``depth`` below ``top`` is their class, 0 for none."""
        self._depth = depth
        names, status, classes, bare = [], [], set(), []
        for file in files:
            key = file.name.removeprefix(f"{top}/") if top else file.name
            label = _class_of(key, depth)
            if depth and not label:
                bare.append(file.name)
                continue
            classes |= {label} if label else set()
            names.append(key)
            status.append((file.bytes, file.mtime_ns))
        self._beside += Account.of((Reason.NO_LABEL, name) for name in bare)
        self._names = "\0".join(names).encode("utf-8", "surrogateescape")
        self._status = np.array(status, dtype=np.int64).reshape(-1, 2)
        self.classes = tuple(sorted(classes))
        return self

    @cached_property
    def _keys(self) -> list[str]:
        return self._names.decode("utf-8", "surrogateescape").split("\0") if self._names else []

    @cached_property
    def _chunks(self) -> KeyChunks:
        return KeyChunks.of(hashes_of(self._keys))

    def account(self) -> Account:
        """Return what is left out of the folder, and beside it."""
        return self._beside + super().account()

    def chunks(self) -> Sequence[Chunk]:
        """Return the chunks, with the size and time of every file, where a server tells them."""
        return self._chunks.chunks(self._status)

    def listing(self, chunk: str) -> ChunkListing:
        """List a chunk: nothing is asked of the server."""
        samples = []
        for at in self._chunks.keys(chunk).tolist():
            key, (size, mtime_ns) = self._keys[at], self._status[at].tolist()
            label = _class_of(key, self._depth)
            samples.append(
                PictureSample(
                    key=key,
                    place=f"{self._place}/{quote(key) if is_web(self._place) else key}",
                    labels=(label,) if label else (),
                    file_bytes=size,
                    mtime_ns=mtime_ns,
                    decoding=self._options.decoding,
                )
            )
        return ChunkListing(samples=tuple(sorted(samples, key=lambda sample: sample.key)))


def _class_of(key: str, depth: int) -> str:
    """Return the folder of a key that is its class; '' where there is none."""
    folders = key.split("/")[:-1]
    if depth > 0:
        return folders[depth - 1] if len(folders) >= depth else ""
    return folders[depth] if depth and len(folders) >= -depth else ""
