"""Tars as a source of pictures: as webdataset, img2dataset and open_clip write them."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile

import pytest
from helpers.tars import photos, picture, write_tar

from cache.runtime.errors import UserError
from cache.sources import listed_chunks, tars
from cache.sources.accounts import Reason
from cache.sources.data import open_data
from cache.sources.source_options import SourceOptions


def opened(place, split="train", **options):
    return open_data([str(place)], SourceOptions(**options)).splits[split]


def by_key(source):
    return {sample.key: sample for chunk in source.chunks() for sample in source.read(chunk.id)}


def left_out(source):
    return {reason: (one.count, one.names) for reason, one in source.account().left_out.items()}


def plain_tar(path, files):
    """A tar of names and bytes, in that order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_samples_of_plain_webdataset_have_key_picture_label_and_caption(tmp_path):
    files = {"jpg": picture(1, "JPEG"), "cls": "granny smith", "txt": " a green apple\n"}
    write_tar(tmp_path / "a.tar", {"one": files, "two": {"webp": picture(2, "WEBP"), "cls": "plum"}})
    source = opened(tmp_path / "a.tar")
    samples = by_key(source)
    assert source.classes == ("granny smith", "plum")
    assert samples["one"].labels == ("granny smith",)
    assert samples["one"].caption == "a green apple"
    assert samples["two"].caption is None
    assert samples["one"].content() == files["jpg"]
    assert [picture.size for picture in samples["two"].pictures()] == [(12, 12)]


def test_tars_of_img2dataset_are_a_pool_with_captions_and_its_own_files_beside_are_not_counted(tmp_path):
    told = {"key": "000000000", "caption": "red square", "sha256": "0" * 64, "status": "success"}
    write_tar(
        tmp_path / "00000.tar",
        {
            "000000000": {"jpg": picture(0, "JPEG"), "json": json.dumps(told)},
            "000000001": {"jpg": picture(1, "JPEG"), "txt": "blue star", "json": '{"key": 1}'},
        },
    )
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "00000_stats.json").write_text("{}")
    source = opened(tmp_path, "pool")
    assert source.classes == ()
    samples = by_key(source)
    assert {key: one.caption for key, one in samples.items()} == {
        "000000000": "red square",
        "000000001": "blue star",
    }
    assert not source.account().count


@pytest.mark.parametrize(
    ("text", "names", "label"),
    [("1", (), "1"), ("1", ("plum", "fig"), "fig"), ("fig\n", ("plum", "fig"), "fig")],
)
def test_a_class_is_a_name_or_a_number_among_names(tmp_path, text, names, label):
    write_tar(tmp_path / "a.tar", {"a": {"png": picture(1), "cls": text}})
    assert by_key(opened(tmp_path / "a.tar", names=names))["a"].labels == (label,)


def test_a_class_number_beyond_the_names_is_an_error_that_names_the_sample(tmp_path):
    write_tar(tmp_path / "a.tar", {"key7": {"png": picture(1), "cls": "9"}})
    with pytest.raises(UserError, match=r"a\.tar.*key7.*9"):
        opened(tmp_path / "a.tar", names=("plum", "fig"))


def test_names_are_cut_as_webdataset_cuts_them(tmp_path):
    files = [
        ("./x/y.1/a.b.image.JPG", picture(1, "JPEG")),
        ("x/y.1/a.cls", b"plum"),
        ("__meta__/0.jpg", picture(2)),
        ("__info__", b"-"),
        ("deep/__kept__/c.png", picture(3)),
        ("deep/__kept__/c.cls", b"fig"),
    ]
    source = opened(plain_tar(tmp_path / "a.tar", files))
    assert {key: one.labels for key, one in by_key(source).items()} == {
        "x/y.1/a": ("plum",),
        "deep/__kept__/c": ("fig",),
    }
    assert not source.account().count


def test_what_is_no_sample_is_counted_by_reason(tmp_path):
    good = {"png": picture(1), "cls": "fig"}
    write_tar(
        tmp_path / "0.tar", [("a", good), ("text", {"txt": "no picture"}), ("bare", {"png": picture(2)})]
    )
    files = [
        ("README", b"-"),
        (".DS_Store", b"-"),
        ("../out.png", picture(3)),
        ("a.png", picture(4)),
        ("a.cls", b"fig"),
        ("b.png", picture(5)),
        ("b.cls", b"fig"),
        ("c.txt", b"between two of one name"),
        ("b.png", picture(6)),
    ]
    plain_tar(tmp_path / "1.tar", files)
    (tmp_path / "2.tar.gz").write_bytes(b"-")
    source = opened(tmp_path)
    assert sorted(by_key(source)) == ["a", "b"]
    assert by_key(source)["a"].content() == good["png"]
    counts = {reason: count for reason, (count, _) in left_out(source).items()}
    assert counts == {
        Reason.NO_PICTURE: 2,
        Reason.NO_LABEL: 1,
        Reason.FORMAT: 2,
        Reason.HIDDEN: 1,
        Reason.OUTSIDE: 1,
        Reason.DUPLICATE: 2,
    }
    assert left_out(source)[Reason.DUPLICATE][1] == (f"{tmp_path}/1.tar: b", f"{tmp_path}/1.tar: a")


def test_a_key_of_two_tars_is_the_first_ones_wherever_it_is_asked_for(tmp_path):
    write_tar(tmp_path / "0.tar", photos(0, 3))
    write_tar(tmp_path / "1.tar", photos(2, 3, "plum"))
    source = opened(tmp_path)
    assert len(source) == 5
    assert [one.key for one in source.list("1.tar")] == ["000003", "000004"]
    assert [sample.labels for sample in source.samples(["000003", "000002"])] == [("plum",), ("apple",)]
    assert [sample.key for sample in source.all()] == sorted(f"{n:06d}" for n in range(5))
    with pytest.raises(KeyError):
        source.samples(["000009"])


def test_braces_stars_and_folders_name_the_same_tars(tmp_path):
    for n in range(3):
        write_tar(tmp_path / "shards" / f"{n:03d}.tar", photos(4 * n, 4))
    places = ["shards", "shards/{000..002}.tar", "shards/*.tar", "shards/00{0,1,2}.tar"]
    keys = [sorted(by_key(opened(f"{tmp_path}/{place}"))) for place in places]
    assert all(own == keys[0] and len(own) == 12 for own in keys)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("{000..003}.tar", "003.tar does not exist"),
        ("nothing*.tar", "nothing"),
        ("{000..", "does not exist"),
        ("{000...tar", "braces"),
    ],
)
def test_a_pattern_that_names_no_tar_is_one_line(tmp_path, place, words):
    for n in range(3):
        write_tar(tmp_path / f"{n:03d}.tar", photos(n, 1))
    with pytest.raises(UserError) as error:
        opened(tmp_path / place)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_tars_in_folders_of_splits_or_called_so_are_those_splits(tmp_path):
    for folder, name, own in (("train", "0", "fig"), ("val_on_train", "0", "fig"), ("val", "0", "plum")):
        write_tar(tmp_path / "folders" / folder / f"{name}.tar", photos(0, 2, own))
    for name, own in (("imagenet-train-000000", "fig"), ("imagenet-val-000000", "plum"), ("pool", "fig")):
        write_tar(tmp_path / "names" / f"{name}.tar", photos(0, 2, own))
    folders, names = (open_data([tmp_path / one]).splits for one in ("folders", "names"))
    assert {split: source.classes for split, source in folders.items()} == {
        "train": ("fig",),
        "id_test": ("fig",),
        "ood_test": ("plum",),
    }
    assert {split: source.classes for split, source in names.items()} == {
        "train": ("fig",),
        "pool": (),
        "ood_test": ("plum",),
    }


def test_a_split_that_is_named_gets_all_of_a_place(tmp_path):
    write_tar(tmp_path / "train-0.tar", photos(0, 3, "fig"))
    data = open_data([f"pool={tmp_path}"])
    assert list(data.splits) == ["pool"]
    assert {one.labels for one in by_key(data.splits["pool"]).values()} == {()}


def test_a_labelled_split_of_tars_without_labels_is_an_error(tmp_path):
    write_tar(tmp_path / "a.tar", {"a": {"png": picture(1)}})
    with pytest.raises(UserError, match=r"no label.*pool="):
        open_data([f"train={tmp_path}"])


def cut(raw):
    return raw[: len(raw) // 2]


def one_header_damaged(raw):
    at = raw.index(b"000003.cls") // 512 * 512
    return raw[:at] + b"\xff" * 512 + raw[at + 512 :]


def without_end(raw):
    return raw.rstrip(b"\0") + bytes(-len(raw.rstrip(b"\0")) % 512)


SPOILED = {
    "cut": cut,
    "cut in a header": lambda raw: raw[: raw.index(b"000003.cls") // 512 * 512 + 100],
    "one header damaged": one_header_damaged,
    "without its end": without_end,
    "two in one": lambda raw: raw + raw,
    "gzip": lambda raw: gzip.compress(raw),
    "empty": lambda raw: b"",
    "no tar": lambda raw: b"<html>404 not found</html>" * 100,
    "a picture": lambda raw: picture(3),
    "zeros": lambda raw: bytes(10240),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_tar_that_is_spoiled_is_one_line_that_names_it(tmp_path, how):
    write_tar(tmp_path / "0.tar", photos(0, 3))
    path = write_tar(tmp_path / "1.tar", photos(3, 3))
    path.write_bytes(SPOILED[how](path.read_bytes()))
    with pytest.raises(UserError) as error:
        opened(tmp_path / "1.tar" if how == "zeros" else tmp_path)
    assert "1.tar" in str(error.value)
    assert "\n" not in str(error.value)


def test_long_names_big_numbers_and_names_of_other_writers_are_read(tmp_path):
    long = "folder/" + "x" * 150
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        path = tmp_path / f"{format}.tar"
        with tarfile.open(path, "w", format=format) as tar:
            for name in ("a" * 80 + "/" + "b" * 70, *([long] if format != tarfile.USTAR_FORMAT else [])):
                for ending, content in (("png", picture(1)), ("cls", b"fig")):
                    member = tarfile.TarInfo(f"{name}.{ending}")
                    member.size, member.mtime = len(content), 1_700_000_000
                    tar.addfile(member, io.BytesIO(content))
        samples = by_key(opened(path))
        assert len(samples) == (1 if format == tarfile.USTAR_FORMAT else 2)
        assert {one.mtime_ns for one in samples.values()} == {1_700_000_000 * 10**9}
        assert {one.content() for one in samples.values()} == {picture(1)}


def test_pictures_beside_tars_make_a_folder_of_pictures(tmp_path):
    write_tar(tmp_path / "old.tar", photos(0, 2))
    (tmp_path / "fig").mkdir()
    (tmp_path / "fig" / "a.png").write_bytes(picture(7))
    assert not tars.holds_tars(str(tmp_path))
    assert tars.holds_tars(str(tmp_path / "old.tar"))


def test_each_tar_is_listed_once_while_there_is_room(tmp_path, monkeypatch):
    for n in range(8):
        write_tar(tmp_path / f"{n}.tar", photos(4 * n, 4))
    listed = []
    listing = tars.TarSource.listing
    monkeypatch.setattr(
        tars.TarSource, "listing", lambda self, chunk: listed.append(chunk) or listing(self, chunk)
    )
    source = opened(tmp_path)
    assert len(source) == len(by_key(source)) == len(list(source.samples([*by_key(source)]))) == 32
    assert sorted(listed) == sorted(f"{n}.tar" for n in range(8))
    monkeypatch.setattr(listed_chunks, "BYTES_KEPT", 0)
    assert len(by_key(opened(tmp_path))) == 32


def test_texts_of_any_bytes_are_captions_keys_and_classes_or_an_error(tmp_path):
    own = json.dumps({"key": "\ud800", "labels": ["fig"], "sha256": ""})
    samples = {
        "a": {"png": picture(1), "cls": "fig", "txt": b"\xff a\0b\n\n c"},
        "b": {"png": picture(2), "cls": "fig", "json": json.dumps({"caption": "\ud800 x"})},
        "c": {"png": picture(3), "cls": b"\xfffig", "json": "[" * 100_000},
        "d": {"png": picture(4), "json": own},
    }
    source = opened(write_tar(tmp_path / "a.tar", samples))
    held = by_key(source)
    assert {key: one.caption for key, one in held.items()} == {"a": "\ufffd a b c", "b": "? x", "c": None}
    assert source.classes == ("fig", "\ufffdfig")
    assert left_out(source) == {Reason.OUTSIDE: (1, (f"{tmp_path}/a.tar: \ud800",))}
    for name in ("a/b", "a\0b"):
        spoiled = {"e": {"png": picture(5), "json": json.dumps({"key": "e", "labels": [name], "sha256": ""})}}
        with pytest.raises(UserError, match=r"e\.json"):
            opened(write_tar(tmp_path / "b.tar", spoiled))


def test_a_tar_with_any_bytes_changed_is_listed_or_refused_in_one_line(tmp_path):
    rng = random.Random(0)
    path = write_tar(tmp_path / "a.tar", photos(0, 3))
    raw = path.read_bytes()
    headers = [at for at in range(0, len(raw), 512) if raw[at + 257 : at + 262] == b"ustar"]
    refused = []
    for _ in range(300):
        changed = bytearray(raw)
        for _ in range(rng.randrange(1, 4)):
            header = rng.choice(headers)
            at, value = header + rng.randrange(0, 160), rng.choice([0, 0x30, 0x80, 0xFF, rng.randrange(256)])
            changed[at] = value
            checksum = sum(changed[header : header + 148]) + 256 + sum(changed[header + 156 : header + 512])
            changed[header + 148 : header + 156] = b"%06o\0 " % checksum
        path.write_bytes(changed)
        try:
            splits = open_data([path]).splits
        except UserError as error:
            refused.append(str(error))
            continue
        for sample in (sample for source in splits.values() for sample in source.all()):
            assert len(sample.content()) == sample.file_bytes
    assert 0 < len(refused) < 300
    assert not [line for line in refused if "\n" in line or "a.tar" not in line]
