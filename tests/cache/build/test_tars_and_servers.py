"""Stage 1 on tars and on servers: the same rows wherever pictures lie, and what grew is all that is embedded."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import Counted
from helpers.servers import s3, web
from helpers.tars import photos as tar_photos
from helpers.tars import picture, write_tar

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.sources import remote_files


@pytest.fixture
def build(teacher_dir, tmp_path):
    """A function (sources, name of the cache, options) that runs stage 1; returns its summary and notes."""

    def run(given, out="cache", **options):
        usual = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, "batch_size": 4}
        progress = Counted()
        summary = cache_features(
            given, tmp_path / out, FeatureOptions(**{**usual, **options}), progress=progress
        )
        return summary, progress.notes

    return run


def rows_of(path, ending=""):
    """Labels and embeddings of every row, by split and key without its ending."""
    cache = EmbeddingCache.open(path)
    return {
        (name, key.removesuffix(ending)): (str(rows.labels[i]), rows.embeddings[i].tobytes())
        for name in cache.split_names
        for rows in [cache.split(name)]
        for key, i in rows.position.items()
    }


def as_tars(photos, root):
    """The photos of each split as one tar of plain webdataset, in the order of their keys."""
    for split in ("train", "val_on_train", "val"):
        samples = {
            str(path.relative_to(photos / split).with_suffix("")): {
                "jpg": path.read_bytes(),
                "cls": path.parent.name,
            }
            for path in sorted((photos / split).rglob("*.jpg"))
        }
        write_tar(root / split / "0.tar", samples)
    for text in photos.glob("*.txt"):
        (root / text.name).write_bytes(text.read_bytes())
    return root


def as_lists(photos, root):
    """The photos of all splits as a list of them, and as parquet with their bytes."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for folder, split in (("train", "train"), ("val_on_train", "id_test"), ("val", "ood_test")):
        for path in sorted((photos / folder).rglob("*.jpg")):
            key = str(path.relative_to(photos / folder))
            image = {
                "path": str(path.relative_to(root)),
                "label": path.parent.name,
                "split": split,
                "key": key,
            }
            rows.append({**image, "image": path.read_bytes()})
    lines = [",".join([*row.values()][:-1]) for row in rows]
    (root / "list.csv").write_text("\n".join(["path,label,split,key", *lines]))
    columns = {name: [row[name] for row in rows] for name in ("image", "label", "split", "key")}
    parquet.write_table(pa.table(columns), root / "all.parquet", row_group_size=10)


def test_the_same_photos_give_the_same_rows_wherever_they_lie(build, photos, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    tars, expected = as_tars(photos, tmp_path / "tars"), None
    texts = {"label2text": photos / "label2text.txt", "descriptions": photos / "chatgpt.txt"}
    as_lists(photos, tmp_path)
    environ = {}
    with web(tmp_path) as (address, _), s3(environ) as bucket:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        remote_files._by_scheme.cache_clear()
        for path in (*photos.rglob("*.*"), *tars.rglob("*.*")):
            bucket.upload_file(str(path), "photos", str(path.relative_to(tmp_path)))
        places = [
            photos,
            tars,
            f"{address}/photos",
            f"{address}/tars",
            "s3://photos/photos",
            "s3://photos/tars",
            f"{address}/list.csv",
            f"{address}/all.parquet",
        ]
        for number, place in enumerate(places):
            build([place], f"cache{number}", **texts)
            rows = rows_of(tmp_path / f"cache{number}", ".jpg")
            expected = expected or rows
            assert len(rows) == 39
            assert rows == expected, place


def test_decoding_processes_read_from_servers_that_this_process_has_asked(build, tmp_path):
    pytest.importorskip("fsspec")
    write_tar(tmp_path / "0.tar", tar_photos(0, 6))
    write_tar(tmp_path / "1.tar", tar_photos(6, 6))
    with web(tmp_path) as (address, _):
        done = threading.Timer(120, lambda: pytest.exit("decoding processes hang"))
        done.start()
        summary, _ = build([f"pool={address}"], workers=2)
        done.cancel()
    assert summary.rows == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_goes_away_ends_the_run_in_one_line_that_loses_no_row(
    build, tmp_path, monkeypatch, workers
):
    pytest.importorskip("fsspec")
    monkeypatch.setattr(remote_files, "PAUSES", (0.01,))
    for n in range(8):
        (tmp_path / "photos" / f"{n}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{n}.png").write_bytes(picture(n))
    with web(tmp_path / "photos", breaks_at="/6.png") as (address, _):
        with pytest.raises(UserError, match=f"{address}/6.png") as error:
            build([f"pool={address}"], workers=workers, batch_size=2)
        assert "\n" not in str(error.value)
    with web(tmp_path / "photos") as (address, _):
        summary, _ = build([f"pool={address}"], workers=workers, batch_size=2)
    assert summary.rows == 8
    assert 0 < summary.new_rows < 8


def test_a_picture_that_a_server_has_no_more_is_left_out_and_named(build, tmp_path):
    pytest.importorskip("fsspec")
    lines = ["path"]
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
        lines.append(f"{n}.png")
    (tmp_path / "list.csv").write_text("\n".join([*lines, "gone.png"]) + "\n")
    with web(tmp_path) as (address, _):
        summary, notes = build([f"pool={address}/list.csv"])
        assert summary.rows == 4
        assert [note for note in notes if "gone.png" in note and "is not there" in note]
        again, _ = build([f"pool={address}/list.csv"])
        assert again.new_rows == 0


def test_a_new_tar_is_embedded_alone_and_a_tar_written_again_not_at_all(build, tmp_path):
    tars = tmp_path / "tars"
    for n in range(2):
        write_tar(tars / f"{n}.tar", tar_photos(4 * n, 4), mtime=1_700_000_000)
    assert build([f"pool={tars}"])[0].new_rows == 8
    assert build([f"pool={tars}"])[0].new_rows == 0
    write_tar(tars / "2.tar", tar_photos(8, 3))
    assert build([f"pool={tars}"])[0].new_rows == 3
    # Other places in the tar, another time of each file, one sample more, and one of another content.
    again = {"zzz": {"png": picture(99)}, **tar_photos(4, 4)}
    again["000005"]["png"] = picture(55)
    write_tar(tars / "1.tar", again, mtime=1_800_000_000)
    summary, notes = build([f"pool={tars}"])
    assert summary.new_rows == 2
    assert summary.rows == 12
    assert [note for note in notes if "1 image added" in note and "1 replaced" in note]
    (tars / "0.tar").unlink()
    summary, _ = build([f"pool={tars}"])
    assert (summary.rows, summary.new_rows) == (8, 0)
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))


def test_the_tars_of_a_cache_are_a_source_with_its_keys_labels_captions_and_splits(build, photos, tmp_path):
    summary, _ = build([photos], "first", format="webdataset")
    texts = {"label2text": photos / "label2text.txt", "descriptions": photos / "chatgpt.txt"}
    again, _ = build([tmp_path / "first" / "tars"], "second", **texts)
    assert again.rows == summary.rows == 39
    first, second = EmbeddingCache.open(tmp_path / "first"), EmbeddingCache.open(tmp_path / "second")
    for name in first.split_names:
        own, other = first.split(name), second.split(name)
        assert [*own.keys] == [*other.keys]
        assert own.class_names == other.class_names
        np.testing.assert_array_equal(own.labels, other.labels)
        np.testing.assert_allclose(own.embeddings, other.embeddings, rtol=1e-3, atol=1e-3)
