"""Calls as tasks of a Ray cluster: what each of them takes along."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest

from cache.runtime.ray_pool import RayCluster, connected, run_tasks

pytest.importorskip("ray", reason="needs the extra 'ray'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own


class Counted:
    """A value that notes in a file how often it was pickled."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __reduce__(self):
        with open(self.notes, "a") as file:
            file.write("pickled\n")
        return Path, (str(self.notes),)


@pytest.mark.long
def test_what_many_calls_are_given_is_pickled_once(tmp_path):
    shared = Counted(tmp_path / "notes")
    # Of a module that the workers have.
    calls = {str(number): (shared, f"file{number}") for number in range(5)}
    cluster = RayCluster(address="local")
    with connected(cluster):
        ended = dict(filter(None, run_tasks(posixpath.join, calls, cluster, fresh=False, asked_to_stop=bool)))
    assert ended == {str(number): str(tmp_path / f"notes/file{number}") for number in range(5)}
    assert (tmp_path / "notes").read_text().count("pickled") == 1
