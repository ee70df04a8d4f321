"""The download script against a server of our own: no test here leaves the machine."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "download_data.sh"
PUBLISHED_MD5 = "52808999861908f626f3c1f4e79d11fa"
LISTS = ("train_data.txt", "val_on_train_data.txt", "val_data.txt", "label2text.txt", "chatgpt.txt")


@dataclass
class Mirror:
    """A server of a few files that knows ranges, and can hang up in the middle of a file."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    hang_up_after: list[int] = field(default_factory=list)
    ranges: bool = True


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = mirror.files.get(self.path)
            wanted = self.headers.get("Range", "bytes=0-") if mirror.ranges else "bytes=0-"
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            mirror.asked.append((self.path, start))
            if body is None:
                self.send_error(404)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            stop = start + mirror.hang_up_after.pop(0) if mirror.hang_up_after else len(body)
            self.wfile.write(body[start:stop])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    yield mirror
    server.shutdown()
    thread.join()
    server.server_close()


def make_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("jpg/image_00001.jpg", "jpg/image_00002.jpg"):
            info = tarfile.TarInfo(name)
            # Noise, so that the archive is too long for one packet.
            content = hashlib.shake_256(name.encode()).digest(50_000)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def flowers(mirror, tmp_path) -> tuple[Mirror, bytes, Path]:
    """The mirror with a small Flower102, its archive, and a script that expects its MD5."""
    body = make_archive()
    mirror.files["/102flowers.tgz"] = body
    for name in LISTS:
        mirror.files[f"/lists/Flower102/{name}"] = f"content of {name}\n".encode()
    text = SCRIPT.read_text()
    assert PUBLISHED_MD5 in text
    script = tmp_path / "download_data.sh"
    script.write_text(
        text.replace(PUBLISHED_MD5, hashlib.md5(body).hexdigest()).replace("ATTEMPTS=5", "ATTEMPTS=2")
    )
    return mirror, body, script


def download(script: Path, *given: str | Path, mirror: Mirror | None = None, **env: str):
    env = os.environ | {"DISTILL_MIRROR": mirror.url if mirror else "http://127.0.0.1:9"} | env
    return subprocess.run(
        ["bash", script, *given], env=env, capture_output=True, text=True, timeout=600, check=False
    )


def test_a_data_set_is_fetched_checked_extracted_and_its_lists_too(flowers, tmp_path):
    mirror, body, script = flowers
    done = download(script, "flower102", tmp_path / "set", mirror=mirror)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "set" / "102flowers.tgz").read_bytes() == body
    assert (tmp_path / "set" / "jpg" / "image_00002.jpg").stat().st_size == 50_000
    for name in LISTS:
        assert (tmp_path / "set" / "lists" / name).read_text() == f"content of {name}\n"
    assert f"distill split {tmp_path / 'set'} --dataset Flower102" in done.stdout
    asked = len(mirror.asked)
    (tmp_path / "set" / "102flowers.tgz").unlink()
    assert download(script, "Flower102", tmp_path / "set", mirror=mirror).returncode == 0
    assert len(mirror.asked) == asked


TOOLS = ["bash", "cat", "cut", "gzip", "md5sum", "mkdir", "mv", "rm", "sleep", "stat", "tar", "touch"]


@pytest.mark.parametrize("fetcher", ["curl", "wget"])
def test_a_truncated_archive_is_resumed_from_where_it_ends(flowers, tmp_path, fetcher):
    if not shutil.which(fetcher):
        pytest.skip(f"no {fetcher} here")
    mirror, body, script = flowers
    (tmp_path / "bin").mkdir()
    for tool in (*TOOLS, fetcher):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "102flowers.tgz.part").write_bytes(body[:30_000])
    mirror.hang_up_after = [20_000]
    done = download(script, "Flower102", tmp_path / "set", mirror=mirror, PATH=str(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    starts = [start for path, start in mirror.asked if path == "/102flowers.tgz"]
    assert starts == [30_000, 50_000]
    assert (tmp_path / "set" / "102flowers.tgz").read_bytes() == body


def test_a_line_that_breaks_again_and_again_leaves_what_came_for_the_next_run(flowers, tmp_path):
    mirror, body, script = flowers
    mirror.hang_up_after = [10_000, 10_000]
    done = download(script, "Flower102", tmp_path / "set", mirror=mirror)
    assert done.returncode == 1
    assert "could not be fetched. Fix: run again" in done.stderr
    assert (tmp_path / "set" / "102flowers.tgz.part").read_bytes() == body[:20_000]
    assert not (tmp_path / "set" / "jpg").exists()
    assert download(script, "Flower102", tmp_path / "set", mirror=mirror).returncode == 0


def test_a_server_that_cannot_resume_is_asked_for_the_whole(flowers, tmp_path):
    mirror, body, script = flowers
    mirror.ranges = False
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "102flowers.tgz.part").write_bytes(body[:30_000])
    assert download(script, "Flower102", tmp_path / "set", mirror=mirror).returncode == 0
    assert (tmp_path / "set" / "102flowers.tgz").read_bytes() == body


def test_an_archive_of_another_checksum_is_refused_and_not_extracted(flowers, tmp_path):
    mirror, body, script = flowers
    mirror.files["/102flowers.tgz"] = body[:-1] + bytes([body[-1] ^ 1])
    done = download(script, "Flower102", tmp_path / "set", mirror=mirror)
    assert done.returncode == 1
    assert "it was not extracted" in done.stderr
    assert [child.name for child in (tmp_path / "set").iterdir()] == ["102flowers.tgz.wrong"]


def test_lists_that_cannot_be_fetched_are_named(flowers, tmp_path):
    mirror, _, script = flowers
    del mirror.files["/lists/Flower102/val_data.txt"]
    done = download(script, "Flower102", tmp_path / "set", mirror=mirror)
    assert done.returncode == 1
    assert f"not fetched into {tmp_path / 'set'}/lists: val_data.txt. Fix:" in done.stderr
    assert not list((tmp_path / "set" / "lists").glob("*.part"))


@pytest.mark.parametrize(
    ("dataset", "folder", "page"),
    [
        ("StanfordCars", "cars_train", "https://www.kaggle.com/"),
        ("tiered-ImageNet", "tiered_imagenet/train", "https://lyy.mpi-inf.mpg.de/"),
    ],
)
def test_what_must_be_fetched_by_hand_is_said_and_checked(mirror, tmp_path, dataset, folder, page):
    done = download(SCRIPT, dataset, tmp_path / "set", mirror=mirror)
    assert done.returncode == 1
    assert f"open {page}" in done.stderr
    assert f"below {tmp_path / 'set'}/{folder}" in done.stderr
    assert not mirror.asked
    for name in LISTS:
        mirror.files[f"/lists/{dataset}/{name}"] = b"content\n"
    image = tmp_path / "set" / folder / "class" / "1.JPEG"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"no decoding here")
    done = download(SCRIPT, dataset.upper(), tmp_path / "set", mirror=mirror)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "set" / "lists" / "train_data.txt").exists()


@pytest.mark.parametrize(
    "given", [(), ("Flower102",), ("Flowers", "set"), ("Flower102", ""), ("a", "b", "c")]
)
def test_wrong_usage_is_status_2_and_makes_nothing(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    done = download(SCRIPT, *given)
    assert done.returncode == 2
    assert "Usage: bash scripts/download_data.sh DATASET FOLDER" in done.stderr
    assert not list(tmp_path.iterdir())


def test_help_is_status_0():
    done = download(SCRIPT, "--help")
    assert done.returncode == 0
    assert "DISTILL_MIRROR" in done.stdout
