"""onnxruntime-web, which runs a model in a browser: one version, by the checksums of its files.

It is no part of this project: npm fetches it when the first page is made, and it is kept in the user's cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError, printable, reason_of
from cache.runtime.progress import Progress, Silent

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
WANTED = f"{PACKAGE}@{VERSION}"
SCRIPT, GLUE, WASM = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
SHA256 = {
    SCRIPT: "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    GLUE: "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
# The largest of the three has 14 MB.
MOST_BYTES = 2**26
SECONDS = 600
GIVE = f"give --runtime what 'npm pack {WANTED}' writes, or a folder of it unpacked"


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """The files that a page needs: ``script`` is loaded first, ``glue`` a module that starts ``wasm``."""

    script: bytes
    glue: bytes
    wasm: bytes


def runtime_for_web(given: Path | None = None, *, progress: Progress | None = None) -> Runtime:
    """Return onnxruntime-web: what is ``given``, else what is kept, else what npm fetches and is then kept.

    ``given`` is the .tgz that ``npm pack`` writes, or a folder of it unpacked; no network is asked then.

    UserError if that is another version, or damaged; if npm is not installed, or cannot fetch it.
    """
    if given is not None:
        return _checked(_read(given), given)
    kept = kept_in()
    try:
        return _checked(_read(kept), kept)
    except UserError:  # not there yet, or damaged
        (progress or Silent()).note(f"npm fetches {WANTED} (33 MB), once; it is kept in {kept}")
    with tempfile.TemporaryDirectory() as folder:
        packed = _fetched(Path(folder))
        files = _read(packed)
        runtime = _checked(files, packed)
        for name in SHA256:
            with replacing(kept / name) as temporary:
                temporary.write_bytes(files[name])
    return runtime


def kept_in() -> Path:
    """Return the folder of the user's cache that keeps it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "distill" / f"{PACKAGE}-{VERSION}"


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"a page needs {WANTED}, and npm is not installed to fetch it", fix=f"{GIVE}.")
    command = [npm, "pack", WANTED, "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"npm could not fetch {WANTED} ({reason_of(error)})", fix=f"{GIVE}.") from error
    packed = next(folder.glob("*.tgz"), None)
    if done.returncode or packed is None:
        reason = _reason(done.stderr) or f"it ended with {done.returncode}"
        raise UserError(f"npm could not fetch {WANTED} ({reason})", fix=f"look at the network, or {GIVE}.")
    return packed


def _reason(stderr: str) -> str:
    """Return what npm says first of an error, behind its codes."""
    lines = re.findall(r"^npm (?:error|ERR!) (?!code |errno |syscall )(.*\S)", stderr, re.MULTILINE)
    return printable(lines[0])[:200].rstrip(".") if lines else ""


def _read(path: Path) -> Mapping[str, bytes]:
    """Return what is there of the files, by name, and of ``package.json``."""
    names = (*SHA256, "package.json")
    if path.is_dir():
        places = [path / inner for inner in ("", "dist", "package", "package/dist")]
        found = {name: next((p / name for p in places if (p / name).is_file()), None) for name in names}
        with _reading(path):
            return {name: at.read_bytes()[:MOST_BYTES] for name, at in found.items() if at is not None}
    files: dict[str, bytes] = {}
    with _reading(path), tarfile.open(path, "r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix("package/").removeprefix("dist/")
            if name in names and member.isfile() and (file := tar.extractfile(member)) is not None:
                files[name] = file.read(MOST_BYTES)
    return files


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read as {PACKAGE} ({reason_of(error)})", fix=f"{GIVE}.") from error


def _checked(files: Mapping[str, bytes], path: Path) -> Runtime:
    missing = [name for name in SHA256 if name not in files]
    if missing:
        raise UserError(f"{path} is not {PACKAGE}: it has no {missing[0]}", fix=f"{GIVE}.")
    differ = [name for name, wanted in SHA256.items() if sha256(files[name]).hexdigest() != wanted]
    version = _version(files)
    if differ and version not in ("", VERSION):
        raise UserError(f"{path} is {PACKAGE} {version}, and pages are made with {VERSION}", fix=f"{GIVE}.")
    if differ:
        raise UserError(f"{path} is not {WANTED}: its {differ[0]} has another checksum", fix=f"{GIVE}.")
    return Runtime(script=files[SCRIPT], glue=files[GLUE], wasm=files[WASM])


def _version(files: Mapping[str, bytes]) -> str:
    try:
        return f"{json.loads(files['package.json'])['version']:.40}"
    except (KeyError, TypeError, ValueError):
        return ""
