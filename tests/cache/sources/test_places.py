"""Files on servers: read whole and in parts, listed, and every way in which a server fails."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.servers import answering, nobody, s3, silent, web
from helpers.tars import photos, picture, write_tar

from cache.runtime.errors import UserError
from cache.sources import remote_files
from cache.sources.data import open_data
from cache.sources.places import beside, expanded, list_folder, open_binary, read_bytes, status_of

pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv(remote_files.SECONDS_VARIABLE, "1")
    monkeypatch.setattr(remote_files, "PAUSES", (0.01,))


@pytest.fixture
def bucket(monkeypatch):
    """A client of a server of S3 that has the bucket ``photos``."""
    pytest.importorskip("moto.server")
    environ = {}
    with s3(environ) as client:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        remote_files._by_scheme.cache_clear()
        yield client


@pytest.mark.parametrize("parts", [True, False])
def test_a_file_of_the_web_is_read_whole_in_parts_and_with_seeking(tmp_path, monkeypatch, parts):
    monkeypatch.setattr(remote_files, "BLOCK_BYTES", 1000)
    raw = bytes(range(256)) * 20
    (tmp_path / "a b.bin").write_bytes(raw)
    with web(tmp_path, parts=parts) as (address, _):
        place = f"{address}/a%20b.bin"
        remote_files.forget_blocks()
        assert read_bytes(place) == raw
        for start, size in ((0, 10), (995, 10), (1000, 1000), (10, 3000), (5000, 120), (5100, 100)):
            assert read_bytes(place, start, size) == raw[start : start + size]
        with open_binary(place) as file:
            assert file.read() == raw
            file.seek(-7, os.SEEK_END)
            assert file.read() == raw[-7:]
        stat = os.stat(tmp_path / "a b.bin")
        assert status_of(place) == (len(raw), int(stat.st_mtime) * 10**9)


def test_parts_that_follow_each_other_are_asked_for_once(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(100_000))
    with web(tmp_path) as (address, asked):
        remote_files.forget_blocks()
        for start in range(0, 100_000, 1000):
            assert len(read_bytes(f"{address}/a.bin", start, 1000)) == 1000
    assert len(asked) == 1


def test_a_folder_of_the_web_is_listed_by_its_index_pages(tmp_path):
    for name in ("b.png", "x/a b.png", "x/y/c#1.png", "x/y/100%25.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    with web(tmp_path) as (address, _):
        assert sorted(list_folder(address)) == ["b.png", "x/a b.png", "x/y/100%25.png", "x/y/c#1.png"]
        samples = open_data([f"pool={address}"]).splits["pool"].all()
        assert [one.content() for one in samples] == [one.key.encode() for one in samples]
        assert expanded(f"{address}/*.png") == [f"{address}/b.png"]
        assert expanded(f"{address}/{{0..1}}.png") == [f"{address}/0.png", f"{address}/1.png"]


@pytest.mark.parametrize("place", ["photo.jpg", "photos.zip", "photos/a.jpg"])
def test_a_file_that_is_no_source_is_called_so_wherever_it_lies(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(picture(0))
    with web(tmp_path) as (address, _):
        for where in (tmp_path, address):
            with pytest.raises(UserError, match=f"{place} is a file of a kind that is no source"):
                open_data([f"{where}/{place}"])


@pytest.mark.parametrize("place", ["a.tar", "*.tar", "a.parquet", "a.csv", "photos/"])
def test_what_a_server_refuses_is_said_of_every_kind_of_source(place):
    with (
        answering(403) as address,
        pytest.raises(UserError, match=r"cannot be read \(the server answers 403"),
    ):
        open_data([f"{address}/{place}"])


@pytest.mark.parametrize("place", ["http://127.0.0.1:99999/a.tar", "http://[::1/a.tar"])
def test_what_is_no_address_is_one_line(place):
    with pytest.raises(UserError, match=r"cannot be read \(no address: "):
        open_data([place])
    with pytest.raises(OSError, match="no address"):  # of one of many it is that one's own
        read_bytes(place)


@pytest.mark.parametrize("name", ["a b.png", "c#1.png", "x/d.png"])
def test_relative_paths_of_a_list_on_a_server_are_from_its_folder(tmp_path, name):
    (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "set" / name).write_bytes(b"here")
    with web(tmp_path) as (address, _):
        assert read_bytes(beside(f"{address}/set/list.csv", name)) == b"here"
        assert beside(f"{address}/set/list.csv", "https://other/a.png") == "https://other/a.png"


def test_s3_is_read_listed_and_expanded(bucket, monkeypatch):
    monkeypatch.setattr(remote_files, "BLOCK_BYTES", 1000)
    raw = bytes(range(256)) * 20
    for name in ("0.tar", "1.tar", "below/2.tar"):
        bucket.put_object(Bucket="photos", Key=f"set/{name}", Body=raw)
    assert list(list_folder("s3://photos/set")) == ["0.tar", "1.tar", "below/2.tar"]
    assert expanded("s3://photos/set/*.tar") == ["s3://photos/set/0.tar", "s3://photos/set/1.tar"]
    assert read_bytes("s3://photos/set/0.tar", 990, 2000) == raw[990:2990]
    size, mtime_ns = status_of("s3://photos/set/0.tar")
    assert size == len(raw)
    assert mtime_ns > 10**18
    bucket.put_object(Bucket="photos", Key="set/0.tar", Body=b"new")
    assert status_of("s3://photos/set/0.tar")[0] == 3
    assert read_bytes("s3://photos/set/0.tar") == b"new"


def one_line(place):
    with pytest.raises(UserError) as error:
        open_data([place])
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", ["a.tar", "list.csv", "folder", "{0..3}.tar"])
def test_what_a_server_does_not_have_is_one_line_that_names_the_address(tmp_path, name):
    with web(tmp_path) as (address, _):
        assert f"{address}/{name}".replace("{0..3}", "0") in one_line(f"{address}/{name}")


@pytest.mark.parametrize("name", ["a.tar", "list.csv", "folder"])
@pytest.mark.parametrize(("status", "words"), [(403, "403"), (500, "500"), (503, "503")])
def test_what_a_server_refuses_is_one_line_that_names_the_address(name, status, words):
    with answering(status) as address:
        line = one_line(f"{address}/{name}")
    assert f"{address}/{name}" in line
    assert words in line


@pytest.mark.parametrize("name", ["a.tar", "list.csv", "folder"])
def test_a_server_that_says_nothing_is_given_up_in_one_line(name):
    with silent() as address:
        line = one_line(f"{address}/{name}")
    assert f"{address}/{name}" in line
    assert "1 seconds" in line


def test_an_address_where_nobody_listens_is_one_line():
    address = nobody()
    assert f"{address}/a.tar" in one_line(f"{address}/a.tar")


def test_a_bucket_that_is_not_there_and_a_server_of_s3_that_is_not_are_one_line(bucket, monkeypatch):
    assert "s3://none/set" in one_line("s3://none/set")
    assert "s3://photos/0.tar" in one_line("s3://photos/0.tar")
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody())
    monkeypatch.setenv(remote_files.SECONDS_VARIABLE, "1.5")
    assert "s3://photos/0.tar" in one_line("s3://photos/0.tar")


def test_a_silent_server_of_s3_is_given_up(bucket, monkeypatch):
    with silent() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv(remote_files.SECONDS_VARIABLE, "0.5")
        assert "s3://photos/0.tar" in one_line("s3://photos/0.tar")


def test_an_unknown_kind_of_address_is_one_line():
    assert "gopher://" in one_line("gopher://host/a.tar")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_seconds_that_are_none_are_an_error_that_names_the_variable(monkeypatch, text):
    monkeypatch.setenv(remote_files.SECONDS_VARIABLE, text)
    assert remote_files.SECONDS_VARIABLE in one_line("http://127.0.0.1:9/a.tar")


def test_without_the_package_the_extra_is_named(tmp_path):
    program = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from cache.runtime.errors import UserError\n"
        "from cache.sources.data import open_data\n"
        "try: open_data(['https://host.invalid/a.tar'])\n"
        "except UserError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "[remote]" in done.stdout, done.stderr
    assert "https://" in done.stdout


def test_a_picture_on_a_server_is_fetched_once(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1))
    with web(tmp_path) as (address, asked):
        (sample,) = open_data([f"pool={address}"]).splits["pool"].all()
        asked.clear()
        sha256, *_ = sample.identity()
        (image,) = sample.pictures()
        assert image.size == (12, 12)
        assert len(sha256) == 64
        assert asked == [("GET", "/a.png", "")]


def test_folders_of_a_server_are_splits_classes_or_a_pool(tmp_path):
    names = {
        "splits": (
            "train/fig/0.png",
            "val_on_train/fig/1.png",
            "val/plum/2.png",
            "other/3.png",
            "train/4.png",
        ),
        "classes": ("fig/0.png", "fig/deep/1.png", "plum/2.png", "pool/3.png", "notes.txt", ".hidden.png"),
        "flat": ("0.png", "x/1.png"),
    }
    for root, files in names.items():
        for name in files:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).write_bytes(picture(1))
    with web(tmp_path) as (address, _):
        for root in names:
            remote, here = (open_data([f"{place}/{root}"]) for place in (address, tmp_path))
            assert remote.classes == here.classes
            for split, source in remote.splits.items():
                keys = {one.key: one.labels for one in source.all()}
                assert keys == {one.key: one.labels for one in here.splits[split].all()}
        splits = open_data([f"{address}/splits"]).splits
        counts = sum((s.account() for s in splits.values()), type(splits["train"].account())())
        assert counts.count == 2


def test_tars_on_servers_hold_what_they_hold_here(tmp_path, bucket):
    for n in range(2):
        path = write_tar(tmp_path / f"{n}.tar", photos(3 * n, 3))
        bucket.upload_file(str(path), "photos", f"set/{n}.tar")

    def held(place):
        return [(s.key, s.labels, s.content()) for s in open_data([place]).splits["train"].all()]

    here = held(str(tmp_path))
    assert len(here) == 6
    for parts in (True, False):
        with web(tmp_path, parts=parts) as (address, _):
            assert held(address) == held(f"{address}/{{0..1}}.tar") == held(f"{address}/*.tar") == here
    assert held("s3://photos/set") == held("s3://photos/set/*.tar") == here
