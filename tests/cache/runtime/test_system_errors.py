"""Limits of the system are told as what they are."""

from __future__ import annotations

from cache.runtime.system_errors import as_user_error, kept_fix


def test_other_limits_of_the_system_are_told_as_what_they_are():
    files = RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 24. Details")
    assert "too few file handles (Too many open files). Fix: raise their limit (ulimit -n)" in str(
        as_user_error(files)
    )
    assert "--pids-limit" in str(as_user_error(RuntimeError("can't start new thread")))
    assert "HOME" in kept_fix(PermissionError(13, "Permission denied", "/.cache"))
    assert kept_fix(ConnectionRefusedError(111, "Connection refused")) == ""
    assert as_user_error(ValueError("CUDA out of memory")) is None
