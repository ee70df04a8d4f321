"""Files from elsewhere: nothing in them is run, written outside its folder, or believed."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.caches import stage_1_words
from helpers.pictures import png_of
from PIL import Image

from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.prepare.describe import describe
from cache.prepare.published_splits import read_lists
from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.runtime.progress import LineProgress
from cache.sources.arrays import load_array
from cache.sources.class_texts import read_captions
from cache.sources.decoding import UnreadableImage, load_rgb
from cache.sources.folder_listing import FolderRoot
from cache.sources.image_folder import ImageSample
from cache.store.tar_rows import TarRows
from cli import main
from distill.checkpoint import read_checkpoint
from distill.judge.outputs import load_outputs
from distill.settings import from_toml
from distill.student.weights_files import read_state_dict
from distill.sweep.plan import load_sweep


@pytest.mark.parametrize(
    ("side", "message"),
    [(30_000, "of too many pixels: 30,000 x 30,000, more than"), (9_600, "9,600 x 9,600, more than")],
)
def test_an_image_bomb_is_refused_before_it_is_decoded(tmp_path, side, message):
    (tmp_path / "bomb.png").write_bytes(png_of(side))
    with pytest.raises(UnreadableImage, match=message):
        load_rgb(tmp_path / "bomb.png")


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI"])
def test_another_format_under_an_images_ending_is_no_image(tmp_path, format):
    Image.new("RGB", (32, 32)).save(tmp_path / "x", format=format)
    (tmp_path / "x").rename(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImage, match=r"^of no picture format: it begins with"):
        load_rgb(tmp_path / "x.jpg")
    assert ImageSample(key="x.jpg", of=FolderRoot(root=str(tmp_path))).identity()[0] == sha256_of(
        tmp_path / "x.jpg"
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "MPO", "GIF", "TIFF", "PPM"])
def test_the_formats_that_endings_promise_are_images_whatever_the_ending(tmp_path, format):
    Image.new("RGB", (32, 32), (9, 200, 30)).save(tmp_path / "x", format=format)
    (tmp_path / "x").rename(tmp_path / "x.png")
    assert load_rgb(tmp_path / "x.png").size == (32, 32)


class Evil:
    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


def test_nothing_in_a_weights_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"student": Evil(), "schema_version": 3}, "evil.pt")
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


def read_tar(path):
    """Read a tar of one sample, of which its index says nothing wrong."""
    size = path.stat().st_size
    tar = TarRows(path=path, bytes=size, rows=1, columns=("image_embedding",), index_at=0)
    vars(tar)["offsets"] = np.array([[0, 0], [size, 0]])
    return list(tar.samples(columns=tar.columns, pictures=False))


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
            ("a/b.json", b'{"key": "a/b.jpg", "labels": ["a"]}'),
            ("a/b.embedding.npy", buffer.getvalue()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    with pytest.raises(UserError, match=r"embedding\.npy holds float32 of shape"):
        read_tar(tmp_path / "x.tar")


@pytest.mark.parametrize(
    "key",
    ["../x.jpg", "/x.jpg", "a/..", "./x.jpg", "a/x\0.jpg", "a/b/../d.jpg", "x.jpg", f"a/{'x' * 300}.jpg"],
)
def test_a_key_cannot_lead_out_of_its_folder(tmp_path, key):
    with pytest.raises(UserError, match="is not a key"):
        import_embeddings(
            tmp_path / "cache", Imported(keys=[key], embeddings=np.ones((1, 4), dtype="float32"), texts=[])
        )
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize("name", ["../labels", "/tmp/labels", "a/b", "", ".hidden"])
def test_a_bank_cannot_lead_out_of_its_folder(tmp_path, name):
    bank = ImportedTexts(name=name, classes=["a"], embeddings=np.ones((1, 4), dtype="float32"))
    with pytest.raises(UserError, match="cannot name a file"):
        import_embeddings(
            tmp_path / "cache",
            Imported(keys=["a/b.jpg"], embeddings=np.ones((1, 4), dtype="float32"), texts=[bank]),
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
    words = stage_1_words(photos, tmp_path / "cache", teacher_dir, "--device", "cpu", "--workers", "0")
    ended = CliRunner().invoke(main, words)
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

        shown = ended.output + "".join(traceback.format_exception(*ended.exc_info))
        assert "wrong key Bearer ***" in shown
        assert "sk-very-secret" not in shown
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

    monkeypatch.setitem(Image.OPEN, "JPEG", (starved, Image.OPEN["JPEG"][1]))
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
        for name, part in (("a.json", b'{"key": "a", "labels": []}'), ("a.embedding.npy", raw)):
            member = tarfile.TarInfo(name)
            member.size = len(part)
            tar.addfile(member, io.BytesIO(part))
    with pytest.raises(UserError, match=r"train-00000\.tar is damaged"):
        read_tar(path)
