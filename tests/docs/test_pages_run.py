"""Every command of README and docs runs, page by page, from top to bottom, but those marked as needing what is not here."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.doc_pages import ROOT, RUN, Block, blocks, name_of, pages
from helpers.doc_world import make_world
from helpers.once import made_once
from helpers.processes import HELPERS, python

pytestmark = pytest.mark.long
SECONDS = 900


def runs(block: Block) -> bool:
    return (block.language in RUN or bool(block.file)) and not block.needs


def script_of(page: Path, side: Path) -> str:
    """One script of bash of all that a page runs; what is in other languages lies in files beside it."""
    parts = ["set -euo pipefail"]
    for block in filter(runs, blocks(page)):
        parts.append(f"echo '-- line {block.line}' >&2")
        if block.language == "bash":
            parts.append(block.text)
            continue
        file = side / f"{block.line}.{block.language}"
        file.write_text(block.text + "\n", encoding="utf-8")
        target = block.file
        parts.append(f"mkdir -p $(dirname {target}) && cp {file} {target}" if target else f"python {file}")
    return "\n".join(parts) + "\n"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "doc_world", make_world)


@pytest.mark.parametrize("page", [page for page in pages() if any(map(runs, blocks(page)))], ids=name_of)
def test_every_command_of_a_page_runs(page, tmp_path, world):
    side, here = tmp_path / "side", tmp_path / "here"
    here.mkdir()
    programs(side / "bin")
    script, servers = side / "page.sh", side / "servers"
    script.write_text(script_of(page, side), encoding="utf-8")
    serves = "distill serve" in script.read_text(encoding="utf-8")
    # The pages that serve all do so at one port.
    with FileLock(world.parent / "port.lock") if serves else nullcontext():
        if serves and in_use(8000):
            pytest.skip("another program listens at port 8000")
        try:
            done = subprocess.run(
                ["bash", script], cwd=here, env=surroundings(world, side), capture_output=True, text=True,
                timeout=SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            stop(servers)
    assert done.returncode == 0, f"{name_of(page)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"


def programs(folder: Path) -> None:
    """Write the programs that stand before the real ones; each is a process that need import nothing anew."""
    folder.mkdir(parents=True)
    for name in ("distill", "torchrun", "have", "python"):
        words = [*python(), *(() if name == "python" else (str(HELPERS / "doc_distill.py"), name))]
        typed = (
            f'if [ "$1" = - ]; then exec {shlex.join(words)} -c "$(cat)"; fi\n' if name == "python" else ""
        )
        (folder / name).write_text(f'#!/bin/sh\n{typed}exec {shlex.join(words)} "$@"\n')
        (folder / name).chmod(0o755)


def surroundings(world: Path, side: Path) -> dict[str, str]:
    """The environment of a page: the programs that stand before the real ones, and no network."""
    return {
        **os.environ,
        "PATH": f"{side / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DOC_WORLD": str(world),
        "DOC_SERVERS": str(side / "servers"),
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        "PYTHONWARNINGS": "default",
    }


def in_use(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def stop(servers: Path) -> None:
    for line in servers.read_text().split() if servers.exists() else ():
        with suppress(ProcessLookupError):
            os.kill(int(line), signal.SIGTERM)
