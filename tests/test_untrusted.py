"""Files from elsewhere: nothing in them is run, written outside its folder, or believed."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cache import EmbeddingCache
from cache.archives import read_lists
from cache.arrays import load_array
from cache.build import open_manifest
from cache.describe import describe
from cache.episodes import EpisodeFolder
from cache.errors import UserError
from cache.features import FeatureOptions, cache_features
from cache.files import sha256_of
from cache.images import ImageRecord, UnreadableImage, load_rgb
from cache.import_embeddings import ImportedTexts, import_embeddings
from cache.manifest import Manifest
from cache.progress import LineProgress
from cache.repair import repair_cache
from cache.seal import sealed
from cache.shard_writer import write_shard
from cache.shards import read_shard
from cache.shards_webdataset import read as read_tar
from cache.texts import read_captions
from cache.verify import verify_cache
from cli import main
from distill.checkpoint import read_checkpoint
from distill.images_of_run import PixelMaker, decoding_workers
from distill.outputs import load_outputs
from distill.recipes import run_config
from distill.settings import from_toml
from distill.students import read_state_dict
from distill.sweep import load_sweep


def png_of(side: int) -> bytes:
    """A PNG of side x side black pixels, a few kilobytes of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes(1 + (side + 7) // 8)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * side, 9))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("side", "said"), [(30_000, "exceeds limit"), (9_600, "9,600 x 9,600 pixels are more")]
)
def test_an_image_bomb_is_refused_before_it_is_decoded(tmp_path, side, said):
    (tmp_path / "bomb.png").write_bytes(png_of(side))
    with pytest.raises(UnreadableImage, match=said):
        load_rgb(tmp_path / "bomb.png")


@pytest.mark.parametrize("format", ["TIFF", "GIF", "PPM", "EPS", "PDF", "ICO"])
def test_another_format_under_an_images_ending_is_no_image(tmp_path, format):
    Image.new("RGB", (32, 32)).save(tmp_path / "x", format=format)
    (tmp_path / "x").rename(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImage):
        load_rgb(tmp_path / "x.jpg")
    assert ImageRecord(key="x.jpg", root=tmp_path, label=0).identity()[0] == sha256_of(tmp_path / "x.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "MPO"])
def test_the_formats_that_endings_promise_are_images_whatever_the_ending(tmp_path, format):
    Image.new("RGB", (32, 32), (9, 200, 30)).save(tmp_path / "x", format=format)
    (tmp_path / "x").rename(tmp_path / "x.png")
    assert load_rgb(tmp_path / "x.png").size == (32, 32)


class Evil:
    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


def test_nothing_in_a_weights_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"student": Evil(), "schema_version": 2}, "evil.pt")
    Path("evil.pkl").write_bytes(pickle.dumps(Evil()))
    np.save("evil.npy", np.array([Evil()], dtype=object))
    np.savez("evil.npz", x=np.array([Evil()], dtype=object))
    for read in (
        lambda: read_checkpoint(Path("evil.pt")),
        lambda: read_state_dict(Path("evil.pt")),
        lambda: read_state_dict(Path("evil.pkl")),
        lambda: load_array("evil.pt"),
        lambda: load_array("evil.npy"),
        lambda: load_array("evil.npz:x"),
    ):
        with pytest.raises(UserError):
            read()
    assert not Path("ran").exists()


def test_an_array_that_claims_more_than_it_has_is_one_line(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    (tmp_path / "huge.npy").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="holds no plain array"):
        load_array(str(tmp_path / "huge.npy"))
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue())
    with pytest.raises(UserError, match="holds no plain array"):
        load_array(f"{tmp_path / 'huge.npz'}:x")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, raw in (
            ("a/b.json", b'{"split": "train", "key": "a/b.jpg", "label": 0}'),
            ("a/b.embedding.npy", buffer.getvalue()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    with pytest.raises(UserError, match=r"embedding\.npy holds float32 of shape"):
        read_tar(tmp_path / "x.tar", sha256=sha256_of(tmp_path / "x.tar"))


@pytest.mark.parametrize(
    "key",
    ["../x.jpg", "/x.jpg", "a/..", "./x.jpg", "a/x\0.jpg", "a/b/c/d.jpg", "x.jpg", f"a/{'x' * 300}.jpg"],
)
def test_a_key_cannot_lead_out_of_its_folder(tmp_path, key):
    with pytest.raises(UserError, match="is not a key"):
        import_embeddings(
            tmp_path / "cache", keys=[key], embeddings=np.ones((1, 4), dtype="float32"), texts=[]
        )
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize("name", ["../labels", "/tmp/labels", "a/b", "", ".hidden"])
def test_a_bank_cannot_lead_out_of_its_folder(tmp_path, name):
    bank = ImportedTexts(name=name, classes=["a"], embeddings=np.ones((1, 4), dtype="float32"))
    with pytest.raises(UserError, match="cannot name a file"):
        import_embeddings(
            tmp_path / "cache", keys=["a/b.jpg"], embeddings=np.ones((1, 4), dtype="float32"), texts=[bank]
        )


@pytest.mark.parametrize(
    "line", ["/train/a/b.jpg", "train/../b.jpg", "train/a/../../b.jpg", "train/.a/b.jpg", "../train/a/b.jpg"]
)
def test_a_list_cannot_lead_out_of_its_folder(tmp_path, line):
    for name, folder in (("train", "train"), ("val_on_train", "val_on_train"), ("val", "val")):
        (tmp_path / f"{name}_data.txt").write_text(line if name == "train" else f"{folder}/a/b.jpg\n")
    with pytest.raises(UserError, match=r"line 1: .* is not train/CLASS/FILE"):
        read_lists(tmp_path)


def test_deep_nesting_is_one_line(tmp_path):
    (tmp_path / "captions.jsonl").write_text("[" * 200_000)
    with pytest.raises(UserError, match="is not a caption"):
        read_captions(tmp_path / "captions.jsonl")
    deep = f"x = {'[' * 200_000}"
    with pytest.raises(UserError, match="is not TOML"):
        from_toml(deep, where="deep.toml")
    (tmp_path / "deep.toml").write_text(deep)
    with pytest.raises(UserError, match="is not TOML"):
        load_sweep(str(tmp_path / "deep.toml"))


def test_names_do_not_reach_the_terminal_as_commands(tmp_path, photos, teacher_dir):
    red = "\x1b[31mred\x1b[0m"
    (photos / "train" / "apple" / f"{red}.jpg").write_bytes(b"not an image")
    words = [
        "cache-features",
        str(photos),
        "--out",
        str(tmp_path / "cache"),
        "--model",
        f"local-dir:{teacher_dir}",
    ]
    ended = CliRunner().invoke(main, [*words, "--device", "cpu", "--workers", "0"])
    assert ended.exit_code == 0
    assert "\x1b" not in ended.output
    assert "apple/\\x1b[31mred" in ended.output
    stream = io.StringIO()
    LineProgress("x", stream=stream).note("a\rb\nc")
    assert stream.getvalue() == "a\\rb\\nc\n"
    odd = CliRunner().invoke(
        main, ["cache-features", str(photos), "--out", "x", "--model", f"local-dir:{red}\n2"]
    )
    assert odd.exit_code == 1
    assert odd.stderr.count("\n") == 1
    assert "\x1b" not in odd.stderr


def test_the_key_is_neither_shown_nor_kept_when_a_server_says_it_back(tmp_path, photos, monkeypatch):
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Echo(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
            key = self.headers["Authorization"]
            status = 200 if "good" in self.path else 401
            answer = {"choices": [{"message": {"role": "assistant", "content": f"red, {key}, {asked}"}, "index": 0, "finish_reason": "stop"}], "id": "1", "object": "chat.completion", "created": 1, "model": "m"}  # fmt: skip
            body = json.dumps(
                answer if status == 200 else {"error": {"message": f"wrong key {key}"}}
            ).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    base = f"http://127.0.0.1:{server.server_port}"
    (photos / "chatgpt.txt").unlink()
    try:
        ended = CliRunner().invoke(
            main, ["--debug", "describe", str(photos), "--model", "m", "--base-url", f"{base}/bad/v1"]
        )
        import traceback

        said = ended.output + "".join(traceback.format_exception(*ended.exc_info))
        assert "wrong key Bearer ***" in said
        assert "sk-very-secret" not in said
        describe(photos, model="m", base_url=f"{base}/good/v1")
        assert "red, Bearer ***" in (photos / "chatgpt.txt").read_text()
    finally:
        server.shutdown()
        server.server_close()
    kept = [path for path in photos.rglob("*") if path.is_file() and b"sk-very-secret" in path.read_bytes()]
    assert kept == []


def test_a_file_that_cannot_be_opened_for_want_of_handles_is_not_skipped(
    tmp_path, photos, teacher_dir, monkeypatch
):
    import errno

    def starved(*given: object, **named: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Image, "open", starved)
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0)
    with pytest.raises(OSError, match="Too many open files"):
        cache_features(photos, tmp_path / "cache", options)


def test_a_zip_of_a_version_unknown_is_one_line(tmp_path):
    path = tmp_path / "outputs.npz"
    np.savez(path, x=np.ones(1))
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    raw[central + 6] = 173  # the version needed to read it
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"outputs\.npz cannot be read \(zip file version 17\.3\)"):
        load_outputs(path)


@pytest.mark.parametrize("header", ["{'descr': (((", "{'descr': '<f4', ]", "\x00", "{" * 500, "[" * 500])
def test_an_array_whose_header_is_no_python_literal_is_one_line(tmp_path, header):
    padded = header.encode().ljust(117) + b"\n"
    raw = np.lib.format.magic(1, 0) + struct.pack("<H", len(padded)) + padded
    path = tmp_path / "train-00000.tar"
    with tarfile.open(path, "w") as tar:
        for name, part in (("a.json", b"{}"), ("a.image_emb.npy", raw)):
            member = tarfile.TarInfo(name)
            member.size = len(part)
            tar.addfile(member, io.BytesIO(part))
    with pytest.raises(UserError, match=r"train-00000\.tar is damaged"):
        read_tar(path, sha256=sha256_of(path))


@pytest.mark.parametrize("name", ["../../../escaped", "a/b", "", ".hidden", "x" * 101, "a\nb"])
def test_a_bank_that_a_manifest_calls_so_that_it_leaves_the_folder_is_none(tmp_path, cached, name):
    cache = shutil.copytree(cached.path, tmp_path / "inner" / "copy")
    manifest = Manifest.load(cache)
    manifest.with_bank(name, manifest.banks["labels"]).save(cache)
    opened = EmbeddingCache.open(cache)
    assert name not in opened.bank_names
    for read in (lambda: opened.text_bank(name), lambda: opened.neighbours("train", name, 3)):
        with pytest.raises(UserError, match="has no text bank"):
            read()
    assert [check.problem for check in verify_cache(cache) if check.problem] == [
        f"it lists a text bank called {name!r:.80}, which is none"
    ]
    assert [check.file for check in repair_cache(cache).redone] == ["manifest.json"]
    assert not [check for check in verify_cache(cache) if check.problem]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["copy"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told["splits"].update({"../x": told["splits"]["train"]}), "is no split"),
        (lambda told: told["pixels"].update({"../x": {"side": 8, "kind": "raw", "shards": [], "made_from": []}}), "is no split"),
        (lambda told: told["pixels"].update({"train": {"side": 10**6, "kind": "raw", "shards": [], "made_from": []}}), "side"),
        (lambda told: told["pixels"].update({"train": {"side": 8, "kind": "$(x)", "shards": [], "made_from": []}}), "kind"),
        (lambda told: told["support"].update({"train": {"views": 10**6, "shards": [], "made_from": []}}), "views"),
        (lambda told: told["splits"]["train"]["class_names"].__setitem__(0, "../x"), "a class is called"),
        (lambda told: told["splits"]["train"]["class_names"].__setitem__(0, ".."), "a class is called"),
        (lambda told: told["splits"]["train"]["skipped"].append({"key": "/etc/x", "reason": "", "bytes": 0, "mtime_ns": 0}), "a skipped image is called"),
        (lambda told: told["splits"]["train"]["shards"][0].update(file="../x.h5"), "is no file of a cache"),
        (lambda told: told["spec"].update(rows_per_shard=10**12), "rows_per_shard"),
        (lambda told: told["spec"].update(format="$(touch ran)"), "rows are stored as"),
        (lambda told: told.update(embed_dim=10**9), "embed_dim"),
    ],
)  # fmt: skip
def test_a_manifest_from_elsewhere_that_names_odd_places_or_sizes_is_refused(tmp_path, cached, change, said):
    cache = shutil.copytree(cached.path, tmp_path / "inner" / "copy")
    told = json.loads((cache / "manifest.json").read_text())
    del told["sha256"]
    change(told)
    (cache / "manifest.json").write_text(sealed(told))
    with pytest.raises(UserError, match=rf"manifest\.json is damaged .*{said}"):
        Manifest.load(cache)


def test_no_word_of_a_manifest_gets_into_the_command_that_repair_prints(tmp_path, cached):
    cache = shutil.copytree(cached.path, tmp_path / "inner" / "copy")
    told = json.loads((cache / "manifest.json").read_text())
    del told["sha256"]
    odd = "x; touch ran"
    told["made_by"] = {"command": odd, "data": odd, "options": {"model": odd}}
    told["spec"]["teacher"] |= {"model": odd, "pretrained": odd, "preprocessing": odd, "precision": odd}
    told["banks"]["labels"]["templates"] = [odd]
    (cache / "manifest.json").write_text(sealed(told))
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
        ["cache", "add-prompts", "RUN", "--bank", "../x"],
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


def outside(file: h5py.File, name: str, tmp_path: Path, kind: str) -> None:
    """Put what lies in another file in the place of a dataset."""
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    if kind == "link":
        file[name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/secret")
    elif kind == "soft":
        file["secret"] = np.zeros(shape, dtype)
        file[name] = h5py.SoftLink("/secret")
    elif kind == "raw":
        file.create_dataset(name, shape, dtype, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
    elif kind == "huge":
        file.create_dataset(name, (2**20, 2**20, *shape[2:]), dtype, chunks=(1, 64, *shape[2:]))
    else:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "secret", shape)
        file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("kind", ["link", "soft", "raw", "virtual", "huge"])
@pytest.mark.parametrize(
    "part", ["dict_str_hand_camera/dict_str_rgb", "dict_str_base_camera/dict_str_depth", "model_ids"]
)
def test_episodes_read_no_other_file_and_no_more_than_a_picture(tmp_path, episodes, kind, part):
    folder = shutil.copytree(episodes, tmp_path / "episodes")
    (tmp_path / "secret").write_bytes(b"s" * 10**6)
    record = EpisodeFolder.scan(folder).split("train").images[0]
    with h5py.File(folder / "train.h5", "a") as file:
        if kind == "huge" and part == "model_ids":
            del file[f"{record.key}/{part}"]
            file.create_dataset(f"{record.key}/{part}", (2**40,), "S8", chunks=(64,))
        else:
            outside(file, f"{record.key}/{part}", tmp_path, kind)
    with pytest.raises(UserError, match=f"episode '{record.key}'") as caught:
        EpisodeFolder.scan(folder)
    assert "\n" not in str(caught.value)
    if part != "model_ids":  # a file that is exchanged after it was looked at
        with pytest.raises(UnreadableImage):
            record.frames()


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
        run_config(recipe="smoke", settings=(setting,))


def test_workers_and_memory_of_a_larger_machine_become_those_of_this_one():
    from cache.bounds import most_processes

    config = run_config(recipe="smoke", settings=("data.workers=512", f"data.memory_mb={2**40}"))
    assert decoding_workers(config.data) == min(512, most_processes())
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert PixelMaker(config=config, cache=None).budget <= physical // 2


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(
            (["cache-features", ".", "--out", "x"], name)
            for name in ("--workers", "--batch-size", "--pixels")
        ),
        *((["cache-features", ".", "--out", "x"], name) for name in ("--views", "--support-views")),
        *((["cache-features", ".", "--out", "x"], name) for name in ("--rows-per-shard", "--neighbours")),
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
