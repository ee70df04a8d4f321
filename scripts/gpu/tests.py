"""The tests marked gpu."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from gpu.work import Work

ROOT = Path(__file__).parents[2]


def marked_gpu(work: Work) -> None:
    """Run the tests marked gpu, of the files alone that have some: others want packages of their own."""
    if importlib.util.find_spec("pytest") is None:
        work.keep([{"skipped": True, "said": "pytest is not installed (wheels: pytest iniconfig pluggy)"}])
        return
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if is_marked(path)]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(ended.stdout, ended.stderr)
    counts = re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", ended.stdout)
    said = ", ".join(f"{count} {how}" for count, how in counts) or f"pytest left with {ended.returncode}"
    work.keep([{"what": "tests marked gpu", "said": said, "goal": "all pass", "met": _met(ended.returncode)}])


def is_marked(path: Path) -> bool:
    """Say whether a file has tests marked gpu."""
    text = path.read_text(encoding="utf-8")
    return "pytest.mark.gpu" in text or "helpers.devices" in text


def _met(status: int) -> str:
    return "yes" if status == 0 else "no"
