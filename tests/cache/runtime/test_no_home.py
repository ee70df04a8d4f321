"""A container's user may have neither a name nor a home."""

from __future__ import annotations

import getpass
import os
import pwd

from cache.runtime.no_home import settle


def test_a_user_without_a_name_or_home_is_given_both(monkeypatch):
    def unknown(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    settle()
    assert getpass.getuser() == f"uid{os.getuid()}"
    assert os.path.expanduser("~/.cache") == "/.cache"
