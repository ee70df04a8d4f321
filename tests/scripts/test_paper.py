"""The paper's tables from an archive folder, on a small copy of one data set's layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = (
    *("student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=1", "train.batch_size=8"),
    *("data.repeat_epochs=1", "data.workers=0", "train.device=cpu"),
)


def as_archive(photos: Path, folder: Path) -> Path:
    """Lay ``photos`` out as the archive of Flower102: all images in one folder, classes in the lists."""
    (folder / "jpg").mkdir(parents=True)
    (folder / "lists").mkdir()
    for split in ("train", "val_on_train", "val"):
        lines = []
        for image in sorted((photos / split).glob("*/*.jpg")):
            name = f"{image.parent.name}_{image.name}"
            (folder / "jpg" / name).write_bytes(image.read_bytes())
            lines.append(f"{split}/{image.parent.name}/{name}\n")
        (folder / "lists" / f"{split}_data.txt").write_text("".join(lines))
    for name in ("label2text.txt", "chatgpt.txt"):
        (folder / "lists" / name).write_bytes((photos / name).read_bytes())
    return folder


def paper(archive: Path, out: Path, teacher: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **{"PYTHON": sys.executable, "MODEL": f"local-dir:{teacher}", "PRETRAINED": "", "VIEWS": "2"},
    }
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = ["bash", str(ROOT / "scripts/paper/flower102.sh"), str(archive), str(out), *settings, *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_data_sets_script_goes_from_its_archive_to_the_table_and_trains_nothing_twice(
    photos, teacher_dir, tmp_path
):
    archive, out = as_archive(photos, tmp_path / "archive"), tmp_path / "out"
    captions = [
        json.dumps(
            {
                "key": f"{split}/{image.parent.name}/{image.parent.name}_{image.name}",
                "caption": f"a fruit of {image.parent.name}",
            }
        )
        for split in ("train", "val_on_train", "val")
        for image in sorted((photos / split).glob("*/*.jpg"))
    ]
    (archive / "captions.jsonl").write_text("\n".join(captions))
    options = ("--seeds", "0", "--shots", "1", "--fewshot-set", "train.epochs=1")
    done = paper(archive, out, teacher_dir, *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "runs" / "results.json").read_text())["rows"]
    titles = [row["title"] for row in rows]
    assert titles[1:] == [
        "closed set, no teacher",
        "L-cls",
        "+ L-mse",
        "+ L-im-cst",
        "+ L-vlalign",
        "+ descriptions",
        "all losses + captions",
        "1-shot finetune",
        "1-shot retrieval",
    ]
    assert not any("skipped" in row for row in rows)
    config = (out / "runs" / "4-losses-seed-0" / "config.toml").read_text()
    assert "vlalign_filter = true" in config
    assert "cap = 0.0" in config
    assert "captions" in (out / "runs" / "results.md").read_text()
    before = (out / "runs" / "4-losses-seed-0" / "last.pt").stat().st_mtime_ns
    assert paper(archive, out, teacher_dir, *options).returncode == 0
    assert (out / "runs" / "4-losses-seed-0" / "last.pt").stat().st_mtime_ns == before


def test_a_data_sets_script_without_its_folders_says_how_it_is_used(tmp_path):
    script = str(ROOT / "scripts/paper/food101.sh")
    done = subprocess.run(["bash", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "ARCHIVE OUT" in done.stderr
