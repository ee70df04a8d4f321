"""The whole way in a container: 64 MB of /dev/shm, no network, a root that cannot be written, no home, no name."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from helpers.containers import TEACHER, contained, distill, needs_containers

pytestmark = [pytest.mark.long, needs_containers()]
CACHE, RUN, MODEL, DATA = "artifacts/demo/cache", "runs/first", "models/first", "artifacts/demo/data"
SWEEP = 'recipe = "smoke"\nseeds = [0, 1]\n[base]\nstudent.arch = "timm:test_resnet"\ntrain.epochs = 1\ndata.workers = 2\n'
SMALL = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--epochs", 1]
WORKERS = ["--set", "data.workers=2", "--set", "data.memory_mb=0"]
ASK = """
import re, subprocess, sys, urllib.request
server = subprocess.Popen([sys.executable, "-P", "-m", "cli", "serve", "models/first", "--port", "0"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
address = next(found[0] for line in server.stdout if (found := re.search("http://[0-9.:]+", line)))
request = urllib.request.Request(address + "/predict", data=open(sys.argv[1], "rb").read())
sys.stdout.write(urllib.request.urlopen(request).read().decode())
server.send_signal(2)
sys.exit(server.wait())
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """What can be written in the container, after the demo."""
    work = tmp_path_factory.mktemp("container") / "work"
    work.mkdir()
    ended = distill(work, "demo", "--epochs", 1)
    assert ended.returncode == 0, ended.stderr
    ended = distill(work, "train", CACHE, "--out", RUN, *SMALL, *WORKERS)
    assert ended.returncode == 0, ended.stderr
    (work / "sweep.toml").write_text(SWEEP)
    (work / "names.txt").write_text(
        "\n".join(p.name.replace("_", " ") for p in (work / DATA / "val").iterdir())
    )
    return work


def fine(ended) -> str:
    """What a command printed that ended well, with no word of a library's about home or memory."""
    assert ended.returncode == 0, ended.stderr
    for word in ("Traceback", "Matplotlib", "warning", "Permission"):
        assert word not in ended.stderr, ended.stderr
    return ended.stdout


def test_the_tour_works_in_a_container(work):
    photo = next((work / DATA / "val").glob("*/*")).relative_to(work)
    fine(
        distill(
            work, "cache-features", DATA, "--out", "again", "--model", TEACHER, "--workers", 2, "--views", 2
        )
    )
    fine(distill(work, "cache", "info", CACHE))
    fine(distill(work, "cache", "verify", CACHE))
    fine(distill(work, "evaluate", CACHE, "--teacher"))
    fine(distill(work, "evaluate", RUN))
    fine(distill(work, "export", RUN, "--out", MODEL))
    assert photo.parent.name.split("_")[1] in fine(distill(work, "predict", MODEL, photo, "--top", 50))
    fine(distill(work, "embed", MODEL, f"{DATA}/val", "--out", "rows.npy"))
    assert '"label":' in fine(contained(work, sys.executable, "-P", "-c", ASK, photo)).replace(" ", "")
    fine(distill(work, "sweep", "sweep.toml", "--cache", CACHE, "--out", "runs/sweep"))
    fine(distill(work, "report", "runs/sweep", "--out", "report.html"))
    fine(distill(work, "fewshot", RUN, "--shots", 1, "--method", "finetune", "--epochs", 1))
    start = ["--start", "scratch", "--arch", "timm:test_resnet", "--budget", "1m"]
    fine(
        distill(
            work,
            "adapt",
            f"{DATA}/val",
            "--names",
            "names.txt",
            "--out",
            "adapted",
            "--model",
            TEACHER,
            *start,
        )
    )
    assert not (work / "~").exists()


def test_batches_larger_than_shared_memory_go_through_and_none_at_all_is_one_process(work):
    large = [
        "--recipe",
        "smoke",
        "--arch",
        "timm:test_resnet",
        "--epochs",
        1,
        "--image-size",
        160,
        "--batch-size",
        256,
    ]
    fine(distill(work, "train", CACHE, "--out", "runs/large", *large, *WORKERS, shm="1m"))
    ended = distill(work, "train", CACHE, "--out", "runs/none", *SMALL, *WORKERS, hidden="/dev/shm")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("warning: /dev/shm cannot be used") == 1
    # The same numbers as with workers.
    of_runs = [json.loads((work / name / "metrics.jsonl").read_text()) for name in (RUN, "runs/none")]
    assert of_runs[0]["loss_total"] == of_runs[1]["loss_total"]


def test_a_full_disk_is_one_line_in_training_and_export_and_what_is_whole_goes_on(work):
    fill = "dd if=/dev/zero of=/srv/fill bs=1M count=36 status=none; "
    words = f"{sys.executable} -P -m cli"
    train = f"{words} train {CACHE} --out /srv/run --recipe smoke --arch timm:test_resnet --epochs 2"
    command = f"{fill} {train}; echo $?; rm /srv/fill; {train} --resume && ls /srv/run/summary.json"
    ended = contained(work, "bash", "-c", command)
    assert "/srv/run/last.pt could not be written (No space left on device)" in ended.stderr
    assert "run it again with --resume" in ended.stderr
    assert ended.stdout.splitlines()[0] == "1"
    assert ended.stdout.splitlines()[-1] == "/srv/run/summary.json"
    assert "Traceback" not in ended.stderr
    export = f"{words} export {RUN} --out /srv/model"
    command = f"dd if=/dev/zero of=/srv/fill bs=1K count=40900 status=none; {export}; echo $?; ls -A /srv; rm /srv/fill; {export}"
    ended = contained(work, "bash", "-c", command)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[:2] == ["1", "fill"]
    assert ended.stderr.count("No space left on device") == 1
    assert "Traceback" not in ended.stderr


def test_a_hidden_proc_is_one_line_and_a_hidden_sys_is_nothing(work):
    ended = distill(work, "evaluate", CACHE, "--teacher", hidden="/proc /sys")
    assert ended.returncode == 1
    assert "Error: torch finds no processor: /proc/cpuinfo is hidden. Fix: mount /proc" in ended.stderr
    fine(distill(work, "evaluate", CACHE, "--teacher", hidden="/sys"))


def test_little_memory_is_one_line(work):
    ended = contained(
        work, "prlimit", f"--as={1_300_000_000}", sys.executable, "-P", "-m", "cli", "train", CACHE, "--out", "runs/m",
        "--recipe", "smoke", "--arch", "timm:resnet10t", "--image-size", 224, "--batch-size", 512, "--device", "cpu",
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "Error: the computer's memory is full" in ended.stderr
    assert "data.memory_mb" in ended.stderr
    assert os.path.exists(work / CACHE)
