"""Unit rows of any source, by an exported model, a run, or a cache; and predictions of any source."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from helpers.exported import image_files, invoke, student_says, val_photos
from helpers.pictures import png_of
from helpers.servers import web
from helpers.tars import write_tar

from cache import EmbeddingCache


def embedded(*words):
    done = invoke("embed", *words, "--json")
    assert done.exit_code == 0, done.output + done.stderr
    return json.loads(done.stdout)


def rows_of(file):
    """What a parquet file holds: its columns, and its rows by key."""
    table = pq.read_table(file)
    keys = table["key"].to_pylist()
    rows = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    return table, dict(zip(keys, rows, strict=True))


@pytest.fixture
def hidden(trained, tmp_path):
    """The OOD photos, and what a camera, a desktop and git put beside them."""
    folder = shutil.copytree(trained / "photos" / "val", tmp_path / "photos")
    photo = val_photos(trained)[0]
    for name in ("lemon/._IMG.jpg", ".git/a.jpg", ".thumbnails/b.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(photo, folder / name)
    (folder / "lemon" / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_a_model_and_its_run_write_the_same_unit_rows_with_key_and_class(trained, plain, hidden, tmp_path):
    said = embedded(plain, hidden, "--out", tmp_path / "model.parquet", "--batch-size", 4)
    assert (said["rows"], said["by"]) == (len(val_photos(trained)), "model")
    assert said["left_out"] == {
        "hidden": {"count": 3, "names": [".git/", ".thumbnails/", "lemon/._IMG.jpg"]},
        "of no picture format": {"count": 1, "names": ["lemon/broken.jpg"]},
    }
    table, rows = rows_of(tmp_path / "model.parquet")
    assert table["embedding"].type.list_size == said["embed_dim"]
    assert table["class"].to_pylist() == [key.partition("/")[0] for key in rows]
    assert set(table["split"].to_pylist()) == {None}
    photos = val_photos(trained)
    student = student_says(trained, photos)
    ours = np.stack([rows[str(p.relative_to(trained / "photos" / "val"))] for p in photos])
    np.testing.assert_allclose(ours, student, atol=2e-3)
    embedded(trained / "run", hidden, "--device", "cpu", "--out", tmp_path / "run.npy")
    keys = (tmp_path / "run.keys.txt").read_text().splitlines()
    np.testing.assert_allclose(
        np.load(tmp_path / "run.npy"), np.stack([rows[key] for key in keys]), atol=1e-4
    )


def test_a_cache_gives_its_teachers_rows_kept_found_by_content_or_made_again(trained, teacher_dir, tmp_path):
    cache = EmbeddingCache.open(trained / "cache")
    kept = cache.split("ood_test")
    raw = np.asarray(kept.embeddings[:]).astype(np.float32)
    unit = dict(zip(kept.keys, raw / np.linalg.norm(raw, axis=1, keepdims=True), strict=True))
    said = embedded(trained / "cache", "--split", "val", "--out", tmp_path / "kept.npy")
    assert said["rows"] == len(kept)
    lines = (tmp_path / "kept.keys.txt").read_text().splitlines()
    own = [unit[line.removeprefix("ood_test/")] for line in lines]
    np.testing.assert_array_equal(np.load(tmp_path / "kept.npy"), np.stack(own))
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, key in enumerate(unit):
        shutil.copy(trained / "photos" / "val" / key, renamed / f"{number}.jpg")
    (renamed / "new.png").write_bytes(png_of(9))
    said = embedded(trained / "cache", renamed, "--out", tmp_path / "found.parquet")
    assert said["left_out"] == {"images without a row": {"count": 1, "names": ["new.png"]}}
    _, found = rows_of(tmp_path / "found.parquet")
    named = ("--teacher-model", f"local-dir:{teacher_dir}", "--device", "cpu")
    embedded(trained / "cache", renamed, *named, "--out", tmp_path / "made.parquet")
    _, made = rows_of(tmp_path / "made.parquet")
    assert len(made) == len(found) + 1
    for number, key in enumerate(unit):
        np.testing.assert_array_equal(found[f"{number}.jpg"], unit[key])
        np.testing.assert_allclose(made[f"{number}.jpg"], unit[key], atol=2e-3)


def test_tars_lists_and_addresses_are_embedded_and_predicted_as_their_files_are(trained, plain, tmp_path):
    photos = val_photos(trained)
    tar = write_tar(tmp_path / "all.tar", {f"{i:03d}": {"jpg": p.read_bytes()} for i, p in enumerate(photos)})
    listed = tmp_path / "all.csv"
    listed.write_text("\n".join(["path,label", *(f"{p},{p.parent.name}" for p in photos)]) + "\n")
    folder = trained / "photos" / "val"
    answers = {}
    with web(folder) as (address, _):
        places = {"folder": [folder], "tar": [tar], "list": [listed], "files": photos}
        places["address"] = [f"{address}/{p.relative_to(folder)}" for p in photos]
        for name, words in places.items():
            done = invoke("predict", plain, *words, "--format", "jsonl")
            assert done.exit_code == 0, done.output + done.stderr
            answers[name] = [json.loads(line) for line in done.stdout.splitlines()]
    for name, lines in answers.items():
        assert [one["labels"] for one in lines] == [one["labels"] for one in answers["files"]], name
    embedded(plain, f"val={listed}", "--out", tmp_path / "list.parquet")
    table, _ = rows_of(tmp_path / "list.parquet")
    assert sorted(table["class"].to_pylist()) == sorted(p.parent.name for p in photos)
    numbered = {f"{i}": {"jpg": p.read_bytes(), "cls": str(i % 2)} for i, p in enumerate(photos)}
    (tmp_path / "names.txt").write_text("plum\nlemon\n")
    words = [write_tar(tmp_path / "numbered.tar", numbered), "--names", tmp_path / "names.txt"]
    embedded(plain, *words, "--out", tmp_path / "numbered.parquet")
    assert {*rows_of(tmp_path / "numbered.parquet")[0]["class"].to_pylist()} == {"plum", "lemon"}
    embedded(plain, tar, "--out", tmp_path / "tar.npy")
    student = student_says(trained, photos)
    np.testing.assert_allclose(np.load(tmp_path / "tar.npy"), student, atol=2e-3)


def test_predict_leaves_hidden_files_and_folders_out_and_counts_them(trained, plain, hidden):
    done = invoke("predict", plain, hidden, "--format", "jsonl")
    assert len(done.stdout.splitlines()) == len(image_files(hidden / "lemon")) - 1 + 3
    assert "left out: 3 hidden: .git/, .thumbnails/, lemon/._IMG.jpg" in done.stderr


def test_embedding_by_a_model_imports_neither_torch_nor_h5py(trained, plain, tmp_path):
    code = (
        "import sys; from cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print([m for m in ('h5py', 'timm', 'open_clip', 'onnx') if m in sys.modules])"
    )
    words = ["embed", str(plain), str(trained / "photos" / "val"), "--out", str(tmp_path / "rows.npy")]
    ended = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["{plain}", "{photos}", "--out", "rows.txt"], 2, "rows.txt ends in neither .parquet nor .npy"),
        (["{photos}", "{photos}", "--out", "rows.npy"], 1, "no exported model, no run and no cache"),
        (["{plain}", "--out", "rows.npy"], 2, "name a SOURCE"),
        (["{plain}", "nowhere", "--out", "rows.npy"], 2, "nowhere does not exist"),
        (["{plain}", "{photos}", "--checkpoint", "best", "--out", "rows.npy"], 2, "--checkpoint is of a RUN"),
        (["{plain}", "{broken}", "--out", "rows.npy"], 1, "1 of no picture format: broken.jpg"),
        (["{cache}", "{photos}", "--split", "train", "--out", "rows.npy"], 2, "--split is of a CACHE's own"),
    ],
)
def test_what_cannot_be_embedded_is_told_in_a_line_and_leaves_no_file(
    trained, plain, tmp_path, monkeypatch, words, status, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.jpg").write_bytes(b"no picture")
    places = {"plain": plain, "photos": trained / "photos" / "val", "cache": trained / "cache"}
    done = invoke("embed", *(word.format(**places, broken=tmp_path / "broken") for word in words))
    assert (done.exit_code, says in done.output + done.stderr) == (status, True), done.output + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
