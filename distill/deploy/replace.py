"""A new model in place of the one that a folder holds: all its files at once, whatever else lies there.

A folder that also holds other things cannot be renamed as a whole, and files renamed one after the other are
for a moment of two models, which a kill would make of it for good. So every file becomes a link through one
link, ``.current``, to the folder of the old model's files; that one is then set to the new folder, which is
one rename; and every link becomes the file that it leads to. Each other step leaves what is read as it is.
Readers begin again where ``model.json`` has changed while they read: see ``Shipped.open``.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from cache.runtime.atomic_files import remove_temporaries
from distill.deploy.info import NAME

CURRENT, VERSIONS = ".current", ".versions"


def put_in_place(new: Path, model: Path, *, beside: str) -> None:
    """Make the files of ``new``, an exported folder on the same disk that is used up, those of ``model``.

    ``beside`` is the folder in ``model`` that is none of the model's. Called again after a kill it does it
    anew; only one process may.
    """
    settle(model, beside=beside)
    if not (model / NAME).is_file():  # which makes a model of a folder: last
        for name in sorted(_files(new), key=lambda name: name == NAME):
            _renamed(new / name, model / name)
        shutil.rmtree(new)
        return
    versions = model / VERSIONS
    (versions / "old").mkdir(parents=True)
    before = _files(model, beside)
    for name in before:
        _linked(model / name, versions / "old" / name)
    new.replace(versions / "new")
    try:
        _set_link(model / CURRENT, Path(VERSIONS, "old"))
        for name in sorted({*before, *_files(versions / "new")}):
            _set_link(model / name, Path(*[".."] * name.count("/"), CURRENT, name))
        _set_link(model / CURRENT, Path(VERSIONS, "new"))  # from here on it is the new one
    except OSError:  # a disk without links
        if (model / CURRENT).is_symlink():
            raise
        for name in sorted(_files(versions / "new"), key=lambda name: name == NAME):
            _renamed(versions / "new" / name, model / name)
    settle(model, beside=beside)


def settle(model: Path, *, beside: str) -> None:
    """Put the files that links lead to in the links' place, and remove what a kill left."""
    if (model / CURRENT).is_symlink():
        for name in _files(model, beside, links=True):
            path = model / name
            if path.is_symlink() and path.exists():
                temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
                _linked(path.resolve(), temporary)
                temporary.replace(path)
            elif path.is_symlink():  # of the other version alone
                path.unlink()
        (model / CURRENT).unlink()
    if (model / VERSIONS).is_dir():
        remove_temporaries(model)
        for folder in model.iterdir():
            if folder.is_dir() and folder.name not in (beside, VERSIONS):
                remove_temporaries(folder, below=True)
        shutil.rmtree(model / VERSIONS)


def _files(folder: Path, beside: str = "", *, links: bool = False) -> list[str]:
    """Return the files of a model below its folder; with ``links`` those that lead to nothing too."""
    tops = [path for path in folder.iterdir() if path.name != beside and not path.name.startswith(".")]
    paths = [path for top in tops for path in (top.rglob("*") if top.is_dir() else [top])]
    own = [path for path in paths if path.is_file() or (links and path.is_symlink())]
    return [path.relative_to(folder).as_posix() for path in own if not path.name.startswith(".")]


def _linked(path: Path, other: Path) -> None:
    other.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, other)
    except OSError:  # a disk without hard links
        shutil.copyfile(path, other)


def _renamed(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    path.replace(to)


def _set_link(path: Path, to: Path) -> None:
    """Make ``path`` a link, whatever it was, by one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.symlink_to(to)
    temporary.replace(path)
