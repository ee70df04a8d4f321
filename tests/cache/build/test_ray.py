"""Both stages on a real Ray cluster of several nodes, of which one is killed."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_cache, make_photos
from helpers.caches import rows_of, stage_1_words
from helpers.columns import all_of
from helpers.runs import BASE, numbers

import cli
from cache import EmbeddingCache
from cache.maintain.verify import verify_cache
from distill.sweep.plan import load_sweep
from distill.sweep.run import FAILED, FINISHED, Place
from distill.train.start import train as run

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own


@pytest.fixture(scope="module")
def head():
    """A cluster whose head takes no tasks."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def cluster(head):
    """A cluster of a head that takes no tasks and two nodes that take one each."""
    head.workers = [*head.worker_nodes]
    while len(head.workers) < 2:
        head.workers.append(head.add_node(num_cpus=1))
    yield head
    ray.shutdown()


def invoke(*words):
    return CliRunner().invoke(cli.main, list(map(str, words)))


@pytest.mark.long
def test_a_sweep_with_a_killed_node_gives_the_table_of_one_without(cluster, tmp_path, monkeypatch):
    # What lies in the working folder is not what its workers import.
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("cache", "distill", "cli", "random"):
        Path(f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\n")
    cached = make_cache(tmp_path / "cache", make_photos(tmp_path / "photos"))
    path = tmp_path / "mine.toml"
    path.write_text(
        BASE.replace("epochs = 2", "epochs = 60")
        + "[[runs]]\nname = 'a'\n[[runs]]\nname = 'b'\nloss.mse = 0\ntrain.epochs = 2\n[[runs]]\nname = 'bad'\ntext = 'no-such-bank'\n"
    )
    place = Place(cache=cached.path, data=tmp_path / "photos", out=tmp_path / "runs")
    killed = {}

    def kill_one():
        running = place.out / "a,seed=0"
        while not (running / "metrics.jsonl").exists() or not numbers(running):
            time.sleep(0.05)
        killed["epochs"] = len(numbers(running))
        cluster.remove_node(_node_that_runs("a,seed=0", cluster), allow_graceful=False)
        cluster.add_node(num_cpus=1)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    where = ["--cache", place.cache, "--data", place.data, "--out", place.out]
    ended = invoke("sweep", path, *where, "--engine", "ray", "--address", cluster.address, "--json")
    assert not (tmp_path / "ran").exists()
    assert ended.exit_code == 1  # of the bad one
    results = {one["name"]: one for one in json.loads(ended.stdout)}
    assert [one["status"] for one in results.values()] == [FINISHED, FINISHED, FAILED], ended.stdout
    killer.join()
    assert "no-such-bank" in results["bad,seed=0"]["error"]
    assert 0 < killed["epochs"] < 60
    log = (place.out / "logs" / "a,seed=0.log").read_text()
    assert log.count("a,seed=0 on ") == 2  # it was begun, lost, and went on elsewhere
    for planned in load_sweep(str(path)).runs[:2]:
        alone = tmp_path / "alone" / planned.name
        run(planned.config, cache_dir=place.cache, data_dir=place.data, out=alone)
        assert numbers(place.folder(planned)) == numbers(alone)
        assert (
            results[planned.name]["id_test_accuracy"]
            == json.loads((alone / "summary.json").read_text())["id_test_accuracy"]
        )


def _node_that_runs(name, cluster):
    """The node whose worker has the log of the run of that name open."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.workers}
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if file.readlink().name == f"{name}.log" and (parent := _parent(file.parts[2])) in raylets:
                return raylets[parent]
    raise AssertionError(f"no node runs {name}")


def _parent(pid):
    return int(Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.long
def test_rows_made_on_a_cluster_with_a_killed_node_are_those_of_one_process(cluster, teacher_dir, tmp_path):
    photos = make_photos(tmp_path / "photos", train=30)
    (photos / "train" / "apple" / "broken.jpg").write_bytes(b"no image")
    (photos / "captions.jsonl").write_text('{"key": "apple/train_0.jpg", "caption": "a red apple"}\n')
    words = stage_1_words(photos, tmp_path / "one", teacher_dir, "--device", "cpu", "--workers", "0")
    words += ["--batch-size", "2", "--views", "2"]
    assert invoke(*words).exit_code == 0
    words[words.index(str(tmp_path / "one"))] = tmp_path / "many"

    def kill_one():
        while not list((tmp_path / "many").glob("rows/*/keys.h5")):
            time.sleep(0.02)
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    ended = invoke(*words, "--engine", "ray", "--address", cluster.address, "--json")
    assert ended.exit_code == 0, ended.output
    killer.join()
    summary = json.loads(ended.stdout)
    assert list(summary["skipped"]) == ["train/apple/broken.jpg"]
    assert summary["rows"] == summary["new_rows"] == 105
    assert rows_of(tmp_path / "many") == rows_of(tmp_path / "one")
    one, many = ((tmp_path / name / "manifest.json").read_text() for name in ("one", "many"))
    assert json.loads(many) == json.loads(one)
    assert all(not check.problem for check in verify_cache(tmp_path / "many"))


@pytest.mark.long
def test_columns_made_on_a_cluster_with_a_killed_node_are_those_of_one_process(
    cluster, teacher_dir, tmp_path
):
    photos = make_photos(tmp_path / "photos", train=12)
    (photos / "captions.jsonl").write_text('{"key": "apple/train_0.jpg", "caption": "a red apple"}\n')
    first = ("--device", "cpu", "--workers", "0", "--batch-size", "2", "--dtype", "float32")
    more = ("--views", "2", "--support-views", "3", "--pixels", "8", "--neighbours", "2")
    for name in ("one", "many"):
        assert invoke(*stage_1_words(photos, tmp_path / name, teacher_dir, *first)).exit_code == 0
    assert invoke(*stage_1_words(photos, tmp_path / "one", teacher_dir, *first, *more)).exit_code == 0

    def kill_one():
        while not list((tmp_path / "many").glob("rows/*/crop_views.h5")):
            time.sleep(0.02)
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    words = stage_1_words(photos, tmp_path / "many", teacher_dir, *first, *more)
    ended = invoke(*words, "--engine", "ray", "--address", cluster.address)
    assert ended.exit_code == 0, ended.output
    killer.join()
    one, many = (EmbeddingCache.open(tmp_path / name) for name in ("one", "many"))
    for name, values in all_of(one).items():
        np.testing.assert_array_equal(values, all_of(many)[name], err_msg=name)
    assert {file: line.made_from for file, line in one.journal.files.items()} == {
        file: line.made_from for file, line in many.journal.files.items()
    }
    assert all(not check.problem for check in verify_cache(many.path))


def test_an_address_where_no_cluster_is_is_named(tmp_path):
    cached = make_cache(tmp_path / "cache", make_photos(tmp_path / "photos", train=2, test=1))
    where = ["--cache", cached.path, "--data", tmp_path / "photos", "--out", tmp_path / "runs"]
    ended = invoke("sweep", "losses", *where, "--engine", "ray", "--address", "127.0.0.1:1")
    assert ended.exit_code == 1
    assert "127.0.0.1:1" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("Error: no Ray cluster answers at 127.0.0.1:1")


@pytest.mark.parametrize(
    "words", [["--gpus", "1"], ["--engine", "ray", "--jobs", "2"], ["--engine", "ray", "--together"]]
)
def test_options_that_do_not_go_together_are_usage_errors(words, tmp_path):
    where = ["--cache", tmp_path, "--data", tmp_path, "--out", tmp_path / "runs"]
    assert invoke("sweep", "losses", *where, *words).exit_code == 2
