"""A container without an engine: ``unshare``, a root that cannot be written, no network, a user that is nobody.

Only root can make one, on Linux. Written can be one folder, which is ``/mnt`` inside, and a small ``/tmp``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

UID = 54321
# The first line of all is bash's own: a folder that is the root inside, made of what is outside.
INSIDE = """
set -e
mount --make-rprivate /
mount --rbind / "$R"
mount -o remount,bind,ro "$R"
mount -t tmpfs -o size=$SHM,mode=1777 tmpfs "$R/dev/shm"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$R/tmp"
for place in $CLOSED; do mount -t tmpfs -o mode=755 tmpfs "$R$place"; done
for needed in $NEEDED; do
    mkdir -p "$R$needed"
    mount --bind "$needed" "$R$needed"
    mount -o remount,bind,ro "$R$needed"
done
mount --bind "$WORK" "$R/mnt"
mount -t tmpfs -o size=$SMALL,mode=1777 tmpfs "$R/srv"
for hidden in $HIDDEN; do mount -t tmpfs -o mode=755 tmpfs "$R$hidden"; done
"$PYTHON" -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 65))'
exec chroot --userspec=$ID:$ID "$R" env -i -C /mnt PATH=/usr/bin:/bin PYTHONPATH="$OURS" OMP_NUM_THREADS=1 "$@"
"""
TEACHER = f"local-dir:{ROOT / 'distill' / 'demo' / 'teacher'}"


def needs_containers() -> pytest.MarkDecorator:
    """What skips a test where no container can be made."""
    possible = sys.platform.startswith("linux") and os.getuid() == 0 and shutil.which("unshare")
    if possible:
        possible = subprocess.run(["unshare", "-m", "-n", "true"], capture_output=True).returncode == 0
    return pytest.mark.skipif(not possible, reason="only root on Linux, with unshare, makes containers")


def contained(
    work: Path, *command: object, shm: str = "64m", small: str = "40m", hidden: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command in a container whose /mnt is ``work``; /srv is a disk of ``small``, ``hidden`` are empty."""
    os.chown(work, UID, UID)
    root = work.parent / "root"
    root.mkdir(exist_ok=True)
    needed = [sys.base_prefix, sys.prefix, str(ROOT)]
    # Folders that another user does not enter, such as root's own, hold what is needed alone.
    closed = {
        str(above)
        for one in needed
        for above in Path(one).parents
        if not above.stat().st_mode & 0o001 and above != Path("/")
    }
    told = {
        "R": root, "WORK": work, "SHM": shm, "SMALL": small, "HIDDEN": hidden, "ID": UID, "PYTHON": sys.executable,
        "OURS": ROOT, "NEEDED": " ".join(needed), "CLOSED": " ".join(sorted(closed)),
    }  # fmt: skip
    return subprocess.run(
        ["unshare", "-m", "-n", "bash", "-c", INSIDE, "contained", *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, **{name: str(value) for name, value in told.items()}},
    )


def distill(work: Path, *words: object, **how: str) -> subprocess.CompletedProcess[str]:
    """Run ``distill`` in a container; see :func:`contained`."""
    return contained(work, sys.executable, "-P", "-m", "cli", *words, **how)
