"""A cache of another teacher is made beside the one that is there, which stays until the new one is whole."""

from __future__ import annotations

import signal
import subprocess

import pytest
from conftest import ROOT
from helpers.caches import rows_of, stage_1_words
from helpers.processes import HELPERS, python, torchrun

from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError

OTHER = {"preprocessing": "squash"}


@pytest.fixture(scope="module")
def fresh(teacher_dir, drawn_photos, tmp_path_factory):
    """The rows of a cache of the other make, where none was before."""
    out = tmp_path_factory.mktemp("fresh") / "cache"
    given = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, "batch_size": 4}
    cache_features(drawn_photos, out, FeatureOptions(**given, **OTHER))
    return rows_of(out)


@pytest.fixture
def build(teacher_dir, photos, tmp_path):
    """A function that runs stage 1 on ``photos`` in this process."""

    def run(**options):
        given = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, "batch_size": 4}
        return cache_features(photos, tmp_path / "cache", FeatureOptions(**{**given, **options}))

    return run


def folders(root):
    return sorted(path.name for path in root.iterdir() if path.name.startswith((".", "cache")))


def test_a_rebuilt_cache_takes_the_place_of_the_other(build, fresh, tmp_path):
    build()
    assert build(rebuild=True, **OTHER).new_rows == 39
    assert rows_of(tmp_path / "cache") == fresh
    assert folders(tmp_path) == ["cache"]
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))


def test_a_cache_of_this_make_is_not_made_again(build):
    build()
    assert build(rebuild=True).new_rows == 0


def test_the_old_rows_stay_when_a_rebuild_fails_or_is_killed_and_the_same_command_goes_on(
    build, fresh, photos, teacher_dir, tmp_path
):
    build()
    old = rows_of(tmp_path / "cache")
    words = stage_1_words(photos, tmp_path / "cache", teacher_dir, "--device", "cpu", "--workers", 0)
    words += ["--batch-size", "4", "--rebuild", "--preprocess", "squash"]
    helper = str(HELPERS / "signalled_process.py")
    done = subprocess.run([*python(), helper, "SIGKILL", "keys.h5", "3", *words], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert rows_of(tmp_path / "cache") == old
    assert build(rebuild=True, **OTHER).new_rows < 39
    assert rows_of(tmp_path / "cache") == fresh
    assert folders(tmp_path) == ["cache"]


@pytest.mark.parametrize("ending", ["cache.replaced", "/cache"])
def test_a_rebuild_that_is_killed_between_its_two_renames_is_finished_by_any_next_command(
    build, fresh, photos, teacher_dir, tmp_path, ending
):
    build()
    words = stage_1_words(photos, tmp_path / "cache", teacher_dir, "--device", "cpu", "--workers", 0)
    words += ["--batch-size", "4", "--rebuild", "--preprocess", "squash"]
    helper = str(HELPERS / "signalled_process.py")
    done = subprocess.run([*python(), helper, "SIGKILL", ending, "1", *words], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert build(rebuild=True, **OTHER).new_rows == 0
    assert rows_of(tmp_path / "cache") == fresh
    assert folders(tmp_path) == ["cache"]


def test_a_rebuild_of_a_third_make_begins_anew(build, photos, teacher_dir, tmp_path):
    build()
    bad = photos / "train" / "apple" / "bad.jpg"
    bad.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"bad\.jpg cannot be read"):
        build(rebuild=True, strict=True, **OTHER)
    assert folders(tmp_path) == ["cache", "cache.rebuild"]
    assert build(rebuild=True, dtype="float32").new_rows == 39
    assert folders(tmp_path) == ["cache"]


@pytest.mark.long
def test_two_processes_rebuild_a_cache(build, fresh, photos, teacher_dir, tmp_path):
    build()
    words = stage_1_words(photos, tmp_path / "cache", teacher_dir, "--device", "cpu", "--workers", 0)
    words += ["--batch-size", "4", "--rebuild", "--preprocess", "squash"]
    done = subprocess.run(torchrun(*words), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "cache") == fresh
    assert folders(tmp_path) == ["cache"]
