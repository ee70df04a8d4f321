"""A cache of another make is made beside the one that is there, which stays until the new one is whole.

``OUT.rebuild`` becomes ``OUT``, which meanwhile is ``OUT.replaced``. A kill leaves one of these, and the
next command goes on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer, only_writer_of_file
from cache.store.manifest import NAME, Manifest
from cache.store.spec import CacheSpec


@contextmanager
def writing_cache(out: Path, spec: CacheSpec, *, rebuild: bool) -> Iterator[Path]:
    """Be the only writer of a cache, and yield the folder to write it in.

    That is ``out``; but with ``rebuild``, where a cache of another make than ``spec`` is there, it is one
    beside it, which takes its place when the block ends well.

    Raises
    ------
    UserError
        If another process writes it.
    """
    finish_swap(out)
    with only_writer(out):
        if not rebuild or not _is_of_another_make(out, spec):
            yield out
            return
        new = _new(out)
        with only_writer(new):
            if _is_of_another_make(new, spec):  # what an earlier rebuild has begun
                _remove_all(new)
            yield new
        out.rename(_old(out))
        new.rename(out)
        shutil.rmtree(_old(out))


def finish_swap(out: Path) -> None:
    """Go on where a kill has interrupted the exchange of a cache for a rebuilt one."""
    new, old = _new(out), _old(out)
    if not old.exists():
        return
    with only_writer_of_file(old):
        if not out.exists():
            (new if (new / NAME).exists() else old).rename(out)
        shutil.rmtree(old, ignore_errors=True)


def _is_of_another_make(out: Path, spec: CacheSpec) -> bool:
    if not (out / NAME).exists():
        return False
    try:
        return bool(Manifest.load(out).spec.differences(spec))
    except UserError:  # of another version, or damaged: what is asked for is one of this make
        return True


def _remove_all(folder: Path) -> None:
    """Remove what a folder holds, but its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not path.name.startswith("."):
            path.unlink()


def _new(out: Path) -> Path:
    return out.with_name(f"{out.name}.rebuild")


def _old(out: Path) -> Path:
    return out.with_name(f"{out.name}.replaced")
