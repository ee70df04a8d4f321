"""Code of one's own: a Python file that the command names, and nothing else does."""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from cache.runtime.errors import UserError, nearest_names, reason_of
from cache.runtime.system_errors import read_error

_OWN = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


def own_code_in(name: str) -> tuple[Path, str] | None:
    """Return the file and what is called in it of ``FILE.py:NAME``; None of any other name."""
    found = _OWN.fullmatch(name)
    return (Path(found["file"]), found["name"]) if found else None


@dataclass(frozen=True, kw_only=True)
class OwnCode:
    """A Python file as it was when it was read; runs keep its ``sha256`` alone."""

    path: Path
    source: bytes
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file, and run nothing in it; UserError where it cannot be read."""
        try:
            source = path.read_bytes()
        except OSError as error:
            if refused := read_error(path, error):
                raise refused from error
            raise UserError(
                f"the code {path} cannot be read ({reason_of(error)})", fix="check the path."
            ) from error
        return cls(path=path, source=source, sha256=hashlib.sha256(source).hexdigest())

    def function(self, name: str, *, makes: str, takes: str) -> Callable[..., Any]:
        """Run the file and return one of its functions or classes; UserError if it fails or has none.

        ``makes`` and ``takes`` say in a message what is looked for: "a student", "the embedding's size".
        """
        module = self._module()
        named = getattr(module, name, None)
        if not callable(named):
            names = [other for other, value in vars(module).items() if callable(value)]
            raise UserError(
                f"{self.path} has nothing called {name!r} that makes {makes}",
                fix=f"{nearest_names(name, names)}give FILE.py:NAME of what takes {takes}.",
            )
        function: Callable[..., Any] = named
        return function

    def _module(self) -> ModuleType:
        called = self._called
        if called in sys.modules:
            return sys.modules[called]
        module = ModuleType(called)
        module.__file__ = str(self.path)
        sys.modules[called] = module  # where dataclasses and pickle look for it
        try:
            # The bytes that were hashed, not what the file holds by now.
            exec(compile(self.source, str(self.path), "exec"), vars(module))
        except Exception as error:
            del sys.modules[called]
            raise UserError(
                f"{self.path} cannot be run ({self.told(error)})", fix="correct it: it has to import alone."
            ) from error
        return module

    def told(self, error: Exception) -> str:
        """Return what went wrong in the file, and in which of its lines."""
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if self._is(one.filename)]
        where = f", line {lines[-1]}" if lines else ""
        return f"{type(error).__name__}: {reason_of(error)}{where}"

    def _is(self, filename: str) -> bool:
        # The same code may have been read from another place before.
        return filename in (str(self.path), getattr(sys.modules.get(self._called), "__file__", ""))

    @property
    def _called(self) -> str:
        return f"distill_own_code_{self.sha256}"
