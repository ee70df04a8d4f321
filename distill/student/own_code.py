"""A student of one's own: a function in a Python file that the command names, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cache.runtime.own_code import own_code_in
from distill.config import RunConfig
from distill.settings import parsed_settings, with_part


def with_code(config: RunConfig, code: Path | None, settings: Sequence[str]) -> tuple[RunConfig, Path | None]:
    """Return a config that names the file of one's own code without its folder, and that file.

    It is ``code``, or what the command's own ``settings`` name as ``student.arch=FILE.py:NAME``. A recipe
    alone names none: what is written in a file does not decide what is run.
    """
    own = own_code_in(config.student.arch)
    if own is None:
        return config, code
    file, name = own
    if code is None and parsed_settings(settings).get("student.arch") == config.student.arch:
        code = file
    return with_part(config, "student", arch=f"{file.name}:{name}"), code
