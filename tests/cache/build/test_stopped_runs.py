"""Stage 1 that is killed or asked to stop, anywhere: the same command goes on, and the rows are the same."""

from __future__ import annotations

import signal
import subprocess

import pytest
from conftest import ROOT
from helpers.caches import rows_of, stage_1_words
from helpers.processes import HELPERS, python

from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.verify import verify_cache
from cache.store.journal import Journal


@pytest.fixture(scope="module")
def whole(teacher_dir, drawn_photos, tmp_path_factory):
    """The rows of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "cache"
    given = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, "batch_size": 4}
    cache_features(drawn_photos, out, FeatureOptions(**given))
    return rows_of(out)


@pytest.fixture
def build(teacher_dir, photos, tmp_path):
    """A function that runs stage 1 on ``photos`` in this process."""

    def run():
        given = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, "batch_size": 4}
        return cache_features(photos, tmp_path / "cache", FeatureOptions(**given))

    return run


@pytest.fixture
def stopped(teacher_dir, photos, tmp_path):
    """A function that runs the same in a process that a signal meets; returns it and the rows it listed."""

    def run(name, ending, count):
        words = stage_1_words(photos, tmp_path / "cache", teacher_dir, "--device", "cpu", "--workers", 0)
        where = [str(HELPERS / "signalled_process.py"), name, ending, str(count)]
        command = [*python(), *where, *words, "--batch-size", "4"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        journal = Journal.load(tmp_path / "cache")
        return done, sum(map(journal.rows, journal.splits))

    return run


@pytest.mark.parametrize(
    ("ending", "count"),
    [
        ("manifest.json", 1),
        ("labels.h5", 1),
        ("image_embedding.h5", 1),
        ("keys.h5", 3),
        ("keys.h5", 4),
        ("train.h5", 2),
        ("ood_test.chunks.json", 1),
        ("manifest.json", 4),
    ],
)
def test_a_killed_run_is_continued_with_the_same_rows_and_none_is_embedded_twice(
    whole, build, stopped, tmp_path, ending, count
):
    rows = sum(map(len, whole.values()))
    done, kept = stopped("SIGKILL", ending, count)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert build().new_rows == rows - kept
    assert rows_of(tmp_path / "cache") == whole
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_what_was_embedded_before_a_stop_is_written_and_listed(whole, build, stopped, tmp_path, name, status):
    # An image is opened twice: at the twentieth a row group of 8 and 4 rows of the next are embedded.
    done, kept = stopped(name, ".jpg", 39)
    assert (done.returncode, kept) == (status, 8 + 4), done.stderr
    assert build().new_rows == 39 - kept
    assert rows_of(tmp_path / "cache") == whole
