"""What this machine, or the container on it, lets a program use."""

from __future__ import annotations

import os

from cache.runtime.machine_limits import cores


def test_cores_are_at_least_one_and_no_more_than_there_are():
    assert 1 <= cores() <= (os.cpu_count() or 1)
