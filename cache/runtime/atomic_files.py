"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError
from cache.runtime.locks import check_held, is_lock
from cache.runtime.system_errors import write_error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it into place if the block succeeds.

    The temporary is a sibling because a rename is atomic only within one file system. ``tempfile`` is
    not used because it creates files that only their owner can read, and a cache is often shared by a
    group. If the block raises, ``path`` is untouched and the temporary is removed.

    Raises
    ------
    UserError
        If the folder cannot be made or written, or is not the one any more whose lock is held.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    check_held(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        check_held(path)
        temporary.replace(path)
    except UserError:
        raise
    except Exception as error:  # h5py's and torch's for a full disk are RuntimeErrors, safetensors' its own
        refused = write_error(path, error)
        if refused is None:
            raise
        raise refused from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_own_folders(folder: Path) -> None:
    """Raise a UserError if a folder in it is a link: what is written or removed there would lie elsewhere."""
    inner = (*folder.glob("*"), *folder.glob("*/*"))
    link = min((path for path in inner if path.is_symlink() and path.is_dir()), default=None)
    if link is not None:
        raise UserError(
            f"{link} is a link, so what is written or removed there lies elsewhere",
            fix="put the folder itself in its place.",
        )


def is_leftover(path: Path) -> bool:
    """Say whether a file is what a process that was killed in its first moments left: nobody's work."""
    return path.suffix == ".tmp" or is_lock(path)


def remove_temporaries(folder: Path, of: str = "*", *, below: bool = False) -> None:
    """Remove what a killed process left in a folder, or with ``below`` under it: temporaries of a file.

    Only where no other process writes.
    """
    for leftover in (folder.rglob if below else folder.glob)(f".{of}.tmp"):
        leftover.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Return a file's text, with ``\\n`` at the end of its lines.

    Raises
    ------
    UserError
        If it cannot be read, or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error})", fix="save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", fix="check the path.") from error
    if "\0" in text:  # which UTF-16 without its mark has between all letters, and no text has
        raise UserError(f"{path} holds zero bytes, and is not UTF-8 text", fix="save it as UTF-8.")
    return text


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in its one canonical spelling, in hexadecimal."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
