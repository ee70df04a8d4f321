"""A folder that appears whole or not at all, and what may be written into one that is there."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.runtime.errors import UserError, some_of
from cache.runtime.system_errors import write_error


def check_new(out: Path, option: str = "--out") -> None:
    """Raise a UserError for a folder, given as ``option``, that holds something, or is none."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty", fix=f"choose another {option}, or remove it.")


def check_begun(out: Path, begun: Path, *, what: str) -> None:
    """Raise a UserError for a folder that holds other things than what makes ``begun`` first, or is none."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", fix="choose a folder for --out.")
    if out.is_dir() and not begun.is_dir() and (found := sorted(path.name for path in out.iterdir())):
        raise UserError(
            f"{out} holds other files ({some_of(found)}), and no {what} was begun in it",
            fix="choose another --out, or empty it.",
        )


@contextmanager
def new_folder(out: Path, option: str = "--out") -> Iterator[Path]:
    """Yield a folder beside ``out`` that takes its place if the block succeeds; raises as check_new."""
    check_new(out, option)
    out = out.resolve()
    for leftover in out.parent.glob(f".{out.name}.*.export"):  # of an export that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    folder = out.with_name(f".{out.name}.{uuid.uuid4().hex}.export")
    try:
        folder.mkdir(parents=True)
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except UserError:
        raise
    except Exception as error:
        if refused := write_error(out, error):
            raise refused from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
