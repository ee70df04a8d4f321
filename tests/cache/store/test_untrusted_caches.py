"""Caches, episodes and configs from elsewhere: no name leads out of a folder, no number fills the machine."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from cache import EmbeddingCache
from cache.build.preparation import open_manifest
from cache.build.shard_writer import write_shard
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.sources.episodes import EpisodeFolder
from cache.sources.samples import UnreadableImage
from cache.store.checksums import with_checksum
from cache.store.manifest import Manifest
from cache.store.shard_formats import read_shard
from cli import main
from distill.data.pixel_sources import PixelMaker, decoding_workers
from distill.settings import load_recipe, with_settings
from distill.sweep.plan import load_sweep


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
        (lambda told: told["pixels"].update({"../x": {"side": 8, "encoding": "raw", "shards": [], "made_from": []}}), "is no split"),
        (lambda told: told["pixels"].update({"train": {"side": 10**6, "encoding": "raw", "shards": [], "made_from": []}}), "side"),
        (lambda told: told["pixels"].update({"train": {"side": 8, "encoding": "$(x)", "shards": [], "made_from": []}}), "encoding"),
        (lambda told: told["support_views"].update({"train": {"views": 10**6, "shards": [], "made_from": []}}), "views"),
        (lambda told: told["splits"]["train"]["class_names"].__setitem__(0, "../x"), "a class is called"),
        (lambda told: told["splits"]["train"]["class_names"].__setitem__(0, ".."), "a class is called"),
        (lambda told: told["splits"]["train"]["skipped"].append({"key": "/etc/x", "reason": "", "bytes": 0, "mtime_ns": 0}), "a skipped image is called"),
        (lambda told: told["splits"]["train"]["shards"][0].update(file="../x.h5"), "is no file of a cache"),
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
    (cache / "manifest.json").write_text(with_checksum(told))
    (next((cache / "images").iterdir())).unlink()
    (cache / "teachers" / "$(touch ran)").mkdir(parents=True)
    shutil.copy(cache / "manifest.json", cache / "teachers" / "$(touch ran)")
    ended = CliRunner().invoke(main, ["cache", "repair", str(cache)])
    assert ended.exit_code == 1
    assert "touch" not in ended.output
    assert "distill cache-features DATA --out" in ended.output


@pytest.mark.parametrize(
    "words",
    [
        ["train", "CACHE", "--data", "DATA", "--out", "run", "--text", "../../x"],
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


def test_rows_whose_keys_lead_out_of_their_folder_are_damaged(tmp_path, cached):
    cache = shutil.copytree(cached.path, tmp_path / "inner" / "copy")
    entry = Manifest.load(cache).splits["train"].shards[0]
    rows = read_shard(cache, entry, Manifest.load(cache), "train").loaded()
    for key in ("../x.jpg", "/x.jpg", "a//x.jpg", "a/.", ""):
        odd = replace(rows, keys=[key, *rows.keys[1:]])
        manifest = Manifest.load(cache).with_shard("train", write_shard(cache, entry.file, odd, "hdf5"))
        with pytest.raises(UserError, match="which is no place in a folder"):
            read_shard(cache, manifest.splits["train"].shards[0], manifest, "train")


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


@pytest.mark.parametrize(
    "setting",
    [
        *("data.workers=100000", "train.batch_size=1000000000", "train.eval_batch_size=1000000000"),
        *("student.image_size=1000000", "prompts.n_ctx=1000000", "data.repeat_epochs=1000000"),
    ],
)
def test_a_config_cannot_ask_for_more_than_a_machine_has(setting):
    name, _, value = setting.partition("=")
    with pytest.raises(UserError, match=rf"{name} is {int(value):,}\. Fix: give at most [\d,]+\."):
        with_settings(load_recipe("smoke"), [setting])


def test_workers_and_memory_of_a_larger_machine_become_those_of_this_one():
    from cache.runtime.machine_limits import most_processes

    config = with_settings(load_recipe("smoke"), ["data.workers=512", f"data.memory_mb={2**40}"])
    assert decoding_workers(config.data) == min(512, most_processes())
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert PixelMaker(config=config.data, cache=None, decode=None).budget <= physical // 2


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(
            (["cache-features", ".", "--out", "x"], name)
            for name in ("--workers", "--batch-size", "--pixels")
        ),
        *((["cache-features", ".", "--out", "x"], name) for name in ("--views", "--support-views")),
        (["cache-features", ".", "--out", "x"], "--neighbours"),
        (["sweep", "losses", "--cache", ".", "--data", ".", "--out", "x"], "--jobs"),
        (["caption", ".", "--model", "x"], "--workers"),
        (["describe", ".", "--model", "x"], "--workers"),
        (["predict", ".", "."], "--batch-size"),
        (["predict", ".", "."], "--threads"),
    ],
)
def test_an_option_cannot_ask_for_more_than_a_machine_has(command, option):
    ended = CliRunner().invoke(main, [*command, option, "1000000000"])
    assert ended.exit_code == 2
    assert f"'{option}': 1000000000 is not in the range" in ended.output


def test_a_grid_of_too_many_runs_is_refused_before_they_are_made(tmp_path):
    lists = "".join(
        f"loss.{name} = {list(range(1, 60))}\n" for name in ("cls", "mse", "im_cst", "vlalign", "cap")
    )
    (tmp_path / "s.toml").write_text(f"[grid]\n{lists}")
    with pytest.raises(UserError, match=r"\[grid\] has 714,924,299 combinations. Fix: give at most 10,000"):
        load_sweep(str(tmp_path / "s.toml"))


@pytest.mark.parametrize("name", ["images", "neighbours", "teachers/other"])
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
        lambda: open_manifest(cache, manifest.spec, manifest.embed_dim, rebuild=True),
    ):
        with pytest.raises(UserError, match="is a link, so what is written or removed there lies elsewhere"):
            write()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.jpg"]
