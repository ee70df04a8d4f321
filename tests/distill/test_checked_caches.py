"""With ``--check`` a file of the cache that is not what was written is found before it is learnt from."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.identity_runs import config_of

import cli
from cache.runtime.errors import UserError
from distill.judge.open_run import evaluate_run
from distill.judge.teachers import evaluate_teacher
from distill.train.start import train as run


@pytest.fixture
def silent(own):
    """A cache of which some numbers were changed in place: nothing but its checksum tells."""
    (file,) = (own / "cache" / "rows").glob("train-*/image_embedding.h5")
    with h5py.File(file, "r+") as opened:
        opened["embedding"][0] = np.asarray(opened["embedding"][0]) * 2
    return own, str(file)


def test_training_reads_changed_rows_unless_it_is_told_to_check(silent, tmp_path):
    own, file = silent
    given = {"cache_dir": own / "cache", "data_dir": own / "photos"}
    with pytest.raises(UserError, match=f"{file} differs from its checksum.*Fix: .*repair"):
        run(config_of(own), out=tmp_path / "checked", check=True, **given)
    assert run(config_of(own), out=tmp_path / "plain", **given)["status"] == "finished"


def test_evaluating_compares_the_files_that_it_reads(silent):
    own, file = silent
    run_of, cache = str(own / "runs" / "all"), str(own / "cache")
    ours = ["evaluate", run_of, "--cache", cache, "--data", str(own / "photos"), "--device", "cpu", "--check"]
    assert CliRunner().invoke(cli.main, ours).exit_code == 0  # whose student needs no rows
    for words in ([*ours, "--space", "--split", "train"], ["evaluate", cache, "--teacher", "--check"]):
        done = CliRunner().invoke(cli.main, words)
        assert done.exit_code == 1
        assert f"{file} differs from its checksum" in done.output
    assert evaluate_teacher(own / "cache", splits=("ood_test",), check=True)["ood_test"].images == 8


def test_a_sound_cache_passes(own):
    shutil.rmtree(own / "cache" / "index")  # which is made again, and is no file that was written with rows
    results = evaluate_run(own / "runs" / "all", cache_dir=own / "cache", device="cpu", check=True)
    assert set(results) == {"id_test", "ood_test"}
