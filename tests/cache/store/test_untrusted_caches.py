"""Caches, episodes and configs from elsewhere: no name leads out of a folder, no number fills the machine."""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.row_groups import add_group, make_rows

from cache import EmbeddingCache
from cache.build.preparation import open_manifest
from cache.maintain.compact import compact_cache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.sources.decoding import UnreadableImage
from cache.sources.episodes import EpisodeFolder
from cache.store.checksums import with_checksum
from cache.store.journal import Journal, JournalWriter
from cache.store.manifest import Manifest
from cache.store.row_group import read_keys
from cli import main


@pytest.mark.parametrize("name", ["../../../escaped", "a/b", "", ".hidden", "x" * 101, "a\nb"])
def test_a_bank_that_a_manifest_calls_so_that_it_leaves_the_folder_is_refused(tmp_path, cached, name):
    cache = shutil.copytree(cached.path, tmp_path / "inner" / "copy")
    manifest = Manifest.load(cache)
    manifest.with_bank(name, manifest.banks["labels"]).save(cache)
    for read in (EmbeddingCache.open, verify_cache, repair_cache):
        with pytest.raises(UserError, match=r"manifest\.json is damaged .*a text bank is called"):
            read(cache)
    for odd in (name, "nothing"):
        with pytest.raises(UserError, match="has no text bank"):
            cached.neighbours("train", odd, 3)
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["copy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told["splits"].update({"../x": told["splits"]["train"]}), "is no split"),
        (lambda told: told["columns"].update({"pixels": {"splits": ["../x"], "settings": {}}}), "is no split"),
        (lambda told: told["columns"].update({"../x": {"splits": [], "settings": {}}}), "a column is called"),
        (lambda told: told["columns"].update({"pixels": {"splits": [], "settings": []}}), "settings"),
        (lambda told: told["teachers"].update({"../x": {"spec": told["spec"]["teacher"], "embed_dim": 8}}), "a teacher is called"),
        (lambda told: told["teachers"].update({"x": {"spec": told["spec"]["teacher"], "embed_dim": 10**9}}), "embed_dim"),
        (lambda told: told["splits"]["train"].__setitem__(0, "../x"), "a class is called"),
        (lambda told: told["splits"]["train"].__setitem__(0, ".."), "a class is called"),
        (lambda told: told["splits"]["train"].append("apple"), "a class twice"),
        (lambda told: told["banks"]["labels"].update(file="../x.h5"), "is no file of a cache"),
        (lambda told: told.update(text_tower=[{"file": "text_tower/../x", "bytes": 1, "sha256": ""}]), "is no file of a cache"),
        (lambda told: told["spec"]["teacher"].update(image_size=[10**12, 8]), "image_size"),
        (lambda told: told["spec"]["teacher"].update(image_size=[8]), "image_size"),
        (lambda told: told["spec"].update(format="$(touch ran)"), "rows are stored as"),
        (lambda told: told.update(embed_dim=10**9), "embed_dim"),
    ],
)  # fmt: skip
def test_a_manifest_from_elsewhere_that_names_odd_places_or_sizes_is_refused(
    tmp_path, cached, change, message
):
    cache = shutil.copytree(cached.path, tmp_path / "inner" / "copy")
    told = json.loads((cache / "manifest.json").read_text())
    del told["sha256"]
    change(told)
    (cache / "manifest.json").write_text(with_checksum(told))
    with pytest.raises(UserError, match=rf"manifest\.json is damaged .*{message}"):
        Manifest.load(cache)


def test_no_word_of_a_manifest_gets_into_the_command_that_repair_prints(tmp_path, cached):
    cache = shutil.copytree(cached.path, tmp_path / "inner" / "copy")
    told = json.loads((cache / "manifest.json").read_text())
    del told["sha256"]
    odd = "x; touch ran"
    told["command"] = odd
    told["spec"]["teacher"] |= {"model": odd, "pretrained": odd, "preprocessing": odd, "precision": odd}
    told["banks"]["labels"]["templates"] = [odd]
    told["columns"] = {
        "pixels": {"splits": ["train"], "settings": {"side": odd, "encoding": odd}},
        "crop_views": {
            "splits": ["train"],
            "settings": {
                "views": 2,
                "scale": 0.1,
                "operations": 2,
                "magnitude": 9,
                "teacher": odd,
                "projection": odd,
            },
        },
    }
    (cache / "manifest.json").write_text(with_checksum(told))
    (cache / "rows" / "train-00000" / "keys.h5").unlink()
    ended = CliRunner().invoke(main, ["cache", "repair", str(cache)])
    assert ended.exit_code == 1
    assert "touch" not in ended.output
    assert "distill cache-features DATA --out" in ended.output
    assert "--views 2 --views-scale 0.1" in ended.output


@pytest.mark.parametrize(
    "words",
    [
        ["train", "CACHE", "--data", "DATA", "--out", "run", "--recipe", "smoke", "--text", "../../x"],
        ["cache", "add-texts", "CACHE", "--bank", "../x", "--run", "RUN"],
        ["cache-features", "DATA", "--out", "CACHE", "--model", "local-dir:x", "--teacher", "../x"],
        ["cache-features", "DATA", "--out", "new", "--model", "local-dir:x", "--text-file", "a b.txt"],
    ],
)
def test_a_name_on_the_command_line_leads_out_of_no_folder(tmp_path, cached, photos, monkeypatch, words):
    (tmp_path / "inner" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "inner" / "here")
    Path("a b.txt").write_text("one text\n")
    put = {"CACHE": cached.path, "DATA": photos, "RUN": photos}
    ended = CliRunner().invoke(main, [str(put.get(word, word)) for word in words])
    assert ended.exit_code in (1, 2)
    assert ended.stderr.count("\n") == 1
    assert "Error: " in ended.stderr
    left = [str(path.relative_to(tmp_path)) for path in (tmp_path / "inner").rglob("*")]
    assert sorted(left) == ["inner/here", "inner/here/a b.txt"]


LINE = {"line": "file", "file": "rows/train-00000/keys.h5", "bytes": 1, "sha256": "", "rows": 1}
ZERO = dict.fromkeys(("keys", "content", "labels"), "0" * 64)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**LINE, "file": "rows/train-00000/../../../etc/passwd.h5"}, "is no file of a cache"),
        ({**LINE, "file": "/etc/passwd"}, "is no file of a cache"),
        ({**LINE, "file": "rows/../x-00000/keys.h5"}, "is no"),
        ({**LINE, "file": "tars/../../train-00000.tar"}, "is no file of a cache"),
        ({**LINE, "file": "rows/secret-00000/keys.h5"}, "is no row group"),
        ({**LINE, "rows": 10**30}, "rows is"),
        ({**LINE, "rows": -1}, "rows is"),
        ({**LINE, "rows": "1"}, "rows is"),
        ({**LINE, "bytes": 1.5}, "bytes is"),
        ({**LINE, "about": []}, "about is"),
        (LINE, "digests"),
        ({**LINE, "about": {"digests": {**ZERO, "keys": "x" * 64}}}, "is no digest"),
        ({**LINE, "more": 1}, "unknown 'more'"),
        ({"line": "removed", "group": "../x-00000", "rows": [0], "digests": ZERO}, "is no row group"),
        ({"line": "removed", "group": "train-00000", "rows": [[0]], "digests": ZERO}, "rows is"),
        ({"line": "skipped", "split": "train", "key": "../x", "reason": "", "bytes": 0, "mtime_ns": 0}, "no place in a folder"),
        ({"line": "skipped", "split": "x", "key": "x", "reason": "", "bytes": 0, "mtime_ns": 0}, "is no split"),
        ({"line": "dropped", "file": "../manifest.json"}, "is no file of a row group"),
        ({"line": "dropped", "file": "rows/train-00000/keys.h5", "x": 1}, "unknown 'x'"),
        ({"line": "eval", "file": "x"}, "no kind of ours"),
        ([1], "object"),
        (json.loads("[" * 500 + "]" * 500), "object"),
    ],
)  # fmt: skip
def test_a_line_of_a_journal_from_elsewhere_that_says_odd_things_is_refused_and_repair_drops_it(
    tmp_path, line, message
):
    cache = tmp_path / "inner" / "cache"
    make_rows(cache, {"train": [["a/0.jpg"]]})
    before = list(EmbeddingCache.open(cache).split("train").keys)
    text = json.dumps(line, separators=(",", ":"))
    journal = cache / "journal" / "main.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + f'{text[:-1]},"crc32":{zlib.crc32(text.encode())}}}\n'.encode())
    with pytest.raises(UserError, match=r"line 3 of .*main.jsonl is damaged") as caught:
        EmbeddingCache.open(cache)
    assert message in str(caught.value) or isinstance(line, list)
    assert [check.file for check in verify_cache(cache) if check.problem] == ["journal/main.jsonl"]
    repair_cache(cache)
    assert journal.read_bytes() == whole
    replace(Manifest.load(cache), complete=True).save(cache)
    assert list(EmbeddingCache.open(cache).split("train").keys) == before
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["cache"]


@pytest.mark.parametrize("key", ["../x.jpg", "/x.jpg", "a//x.jpg", "a/.", ""])
def test_rows_whose_keys_lead_out_of_their_folder_are_damaged(tmp_path, key):
    make_rows(tmp_path, {"train": [["b/0.jpg"]]}, classes={"train": ("a", "b")})
    add_group(tmp_path, [key, "a/1.jpg"], labels=[("a",), ("a",)])
    problems = [check.problem for check in verify_cache(tmp_path) if "keys.h5" in check.file]
    assert "which is no place in a folder" in problems[1]
    with pytest.raises(UserError, match="which is no place in a folder"):
        read_keys(tmp_path, Journal.load(tmp_path).groups("train")[1].keys)


@pytest.mark.parametrize("storage", ["link", "soft", "raw", "virtual", "huge"])
@pytest.mark.parametrize(
    ("column", "name"), [("keys", "content"), ("image_embedding", "embedding"), ("keys", "key")]
)
def test_a_column_reads_no_other_file_and_no_more_than_its_own(tmp_path, storage, column, name):
    cache = tmp_path / "inner"
    make_rows(cache, {"train": [["a/0.jpg", "a/1.jpg"]]})
    (tmp_path / "secret").write_bytes(b"s" * 10**6)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = np.zeros(2)
    line = Journal.load(cache).groups("train")[0].lines[column]
    with h5py.File(cache / line.file, "a") as file:
        outside(file, name, tmp_path, storage)
    path = cache / line.file
    changed = replace(line, bytes=path.stat().st_size, sha256=sha256_of(path))
    JournalWriter(cache).add(changed)
    (bad,) = [check for check in verify_cache(cache) if check.problem]
    assert bad.file == line.file
    assert "\n" not in bad.problem

    def read():
        rows = EmbeddingCache.open(cache, check=True).split("train")
        return rows.embeddings[0], rows.files.content[0], rows.keys[0]

    with pytest.raises(UserError, match="is damaged"):
        read()
    (cache / "index" / "train.h5").unlink()
    if column == "image_embedding":
        add_group(cache, ["b/0.jpg"])
    with pytest.raises(UserError, match="is damaged"):
        compact_cache(cache)
    assert not [file for file in cache.rglob("*.h5") if b"sss" in file.read_bytes()]


def outside(file: h5py.File, name: str, tmp_path: Path, storage: str) -> None:
    """Put what lies in another file in the place of a dataset."""
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    if storage == "link":
        file[name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/secret")
    elif storage == "soft":
        file["secret"] = np.zeros(shape, dtype)
        file[name] = h5py.SoftLink("/secret")
    elif storage == "raw":
        file.create_dataset(name, shape, dtype, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
    elif storage == "huge":
        file.create_dataset(name, (2**20, 2**20, *shape[2:]), dtype, chunks=(1, 64, *shape[2:]))
    else:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "secret", shape)
        file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("storage", ["link", "soft", "raw", "virtual", "huge"])
@pytest.mark.parametrize(
    "part", ["dict_str_hand_camera/dict_str_rgb", "dict_str_base_camera/dict_str_depth", "model_ids"]
)
def test_episodes_read_no_other_file_and_no_more_than_a_picture(tmp_path, episodes, storage, part):
    folder = shutil.copytree(episodes, tmp_path / "episodes")
    (tmp_path / "secret").write_bytes(b"s" * 10**6)
    sample = EpisodeFolder.scan(folder).split("train").all()[0]
    with h5py.File(folder / "train.h5", "a") as file:
        if storage == "huge" and part == "model_ids":
            del file[f"{sample.key}/{part}"]
            file.create_dataset(f"{sample.key}/{part}", (2**40,), "S8", chunks=(64,))
        else:
            outside(file, f"{sample.key}/{part}", tmp_path, storage)
    with pytest.raises(UserError, match=f"episode '{sample.key}'") as caught:
        EpisodeFolder.scan(folder)
    assert "\n" not in str(caught.value)
    if part != "model_ids":  # a file that is exchanged after it was looked at
        with pytest.raises(UnreadableImage):
            sample.frames()


def test_a_whole_episode_behind_a_link_and_an_object_called_like_a_path_are_refused(tmp_path, episodes):
    folder = shutil.copytree(episodes, tmp_path / "episodes")
    with h5py.File(folder / "train.h5", "a") as file:
        first = next(iter(file))
        file["linked"] = h5py.ExternalLink("val.h5", first)
    with pytest.raises(UserError, match="episode 'linked' has no"):
        EpisodeFolder.scan(folder)
    with h5py.File(folder / "train.h5", "a") as file:
        del file["linked"]
        del file[f"{first}/model_ids"]
        file[f"{first}/model_ids"] = np.array([b"001_../x"])
    with pytest.raises(UserError, match=r"a class is called '\.\./x'"):
        EpisodeFolder.scan(folder)


@pytest.mark.parametrize("name", ["rows", "rows/train-00000", "texts", "journal", "index"])
def test_nothing_is_written_or_removed_behind_a_link_in_a_cache(tmp_path, cached, name):
    cache = shutil.copytree(cached.path, tmp_path / "inner" / "copy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("precious")
    shutil.rmtree(cache / name, ignore_errors=True)
    (cache / name).parent.mkdir(exist_ok=True)
    (cache / name).symlink_to(tmp_path / "mine", target_is_directory=True)
    manifest = Manifest.load(cache)
    for write in (
        lambda: repair_cache(cache),
        lambda: compact_cache(cache),
        lambda: open_manifest(cache, manifest.spec, manifest.embed_dim),
    ):
        with pytest.raises(UserError, match="is a link, so what is written or removed there lies elsewhere"):
            write()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.jpg"]
