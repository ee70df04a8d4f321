"""Flipped bytes: verify finds every one and names the rows, readers never take one for a number, all is redone."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import make_cache, make_photos
from helpers.caches import read_back
from helpers.runs import ONE_EPOCH

import cli
from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.convert import convert_cache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import CacheMismatch, UserError
from cache.store import hdf5_columns, neighbours, shard_formats, text_banks
from cache.store import manifest as manifest_module
from cache.store.checksums import append_checksum, has_its_checksum, with_checksum
from cache.store.hdf5_columns import mapped_column, read_column, write_column
from cache.store.manifest import Manifest
from cache.teacher.text_tower import TextTower
from distill.checkpoint import read_checkpoint
from distill.settings import load_recipe, with_settings
from distill.train.start import train as run


@pytest.fixture(scope="module")
def whole(tmp_path_factory, teacher_dir) -> Path:
    """A folder with photos and a cache in each format, with everything that a cache can hold; to be copied."""
    root = tmp_path_factory.mktemp("whole")
    photos = make_photos(root / "photos")
    captions = [
        {"key": f"{n}/train_{i}.jpg", "caption": f"{n} number {i}"}
        for n in ("apple", "banana")
        for i in range(8)
    ]
    (photos / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in captions))
    for name in ("hdf5", "tar"):
        cache_features(photos, root / name, options_of(name, teacher_dir))
    return root


def options_of(name: str, teacher_dir: Path) -> FeatureOptions:
    return FeatureOptions(
        model=f"local-dir:{teacher_dir}",
        device="cpu",
        workers=0,
        format="hdf5" if name == "hdf5" else "webdataset",
        rows_per_shard=10,
        views=2,
        support_views=2,
        pixels=36,
        pixels_format="raw" if name == "hdf5" else "jpeg",
        keep_text_tower=True,
    )


def files_of(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("*")) if p.is_file()}


def assert_one_line(error: UserError) -> None:
    assert "\n" not in str(error)
    assert "Fix: " in str(error)


def flip(path: Path, at: int, rng: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= rng.randrange(1, 256)
    path.write_bytes(raw)


def content(folder: Path) -> dict[str, np.ndarray]:
    cache = EmbeddingCache.open(folder)
    found = read_back(cache)
    found["captions"] = np.array(cache.split("train").captions)
    found["caption_embeddings"] = np.asarray(cache.split("train").caption_embeddings)
    tower = TextTower.load(folder, files=cache.manifest.text_tower)
    found["tower"] = tower.embed(tower.tokens(["a fruit"])).detach().numpy()
    return found


def assert_same(name: str, found: object, expected: np.ndarray, *, where: str) -> None:
    """What is stored comes back to the last bit; what a reader may have computed anew, as near as sums come.

    Processors add up in another order: some units of float32's 6e-8 for a cosine, more for a text tower's row.
    """
    close = {"similarity": 1e-6, "tower": 1e-5}.get(name.rpartition("/")[2])
    if close is None:
        np.testing.assert_array_equal(np.asarray(found), expected, err_msg=f"{where}: {name}")
    else:
        np.testing.assert_allclose(
            np.asarray(found), expected, rtol=0, atol=close, err_msg=f"{where}: {name}"
        )


@pytest.mark.parametrize("flips_a_file", [1, pytest.param(6, marks=pytest.mark.long)])
@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_verify_finds_every_flipped_byte_and_readers_take_none_for_a_number(
    whole, tmp_path, format, flips_a_file
):
    rng = random.Random(format)
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    expected, clean = content(cache), files_of(cache)
    assert not any(check.problem for check in verify_cache(cache))
    for file, raw in clean.items():
        for _ in range(flips_a_file):
            flip(cache / file, at := rng.randrange(len(raw)), rng)
            try:
                found = [check for check in verify_cache(cache) if check.problem]
                assert [check.file for check in found] == [file], (file, at)
            except UserError as error:
                assert_one_line(error)
                assert file == "manifest.json"
            try:
                for name, numbers in content(cache).items():
                    assert_same(name, numbers, expected[name], where=f"{file}, {at}")
            except UserError as error:
                assert_one_line(error)
            shutil.rmtree(cache / "neighbours")  # a reader may have computed them anew
            shutil.copytree(whole / format / "neighbours", cache / "neighbours")
            (cache / file).write_bytes(raw)


@pytest.mark.parametrize(
    ("format", "column"),
    [
        ("hdf5", "image_embedding"),
        ("hdf5", "caption_embedding"),
        ("hdf5", "label"),
        ("hdf5", "key"),
        ("tar", ""),
    ],
)
def test_verify_names_the_rows_that_are_damaged(whole, tmp_path, format, column):
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    file = f"images/train-00001.{'h5' if format == 'hdf5' else 'tar'}"
    raw = bytearray((cache / file).read_bytes())
    keys = EmbeddingCache.open(cache).split("train").keys[10:20]
    if format == "hdf5":
        with h5py.File(cache / file) as shard:
            rows = shard[column]
            starts = [rows.id.get_offset() + row * rows.nbytes // len(rows) for row in (3, 7)]
    else:
        # The caption of the picture and an embedding lie within their rows' members.
        starts = [raw.index(f'"key": "{keys[row]}"'.encode()) + 9 for row in (3, 7)]
    for start in starts:
        raw[start] ^= 0x40
    (cache / file).write_bytes(raw)
    (bad,) = [check for check in verify_cache(cache) if check.problem]
    assert (bad.file, bad.damaged) == (file, (3, 7))
    assert "2 of 10 rows are damaged: 3" in bad.problem
    if column == "image_embedding":
        assert f"7 ({keys[7]})" in bad.problem


@pytest.mark.parametrize("count", [5, 6])
def test_verify_names_the_first_five_rows_and_counts_the_rest(whole, tmp_path, count):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    path = cache / "images" / "train-00001.h5"
    raw = bytearray(path.read_bytes())
    with h5py.File(path) as shard:
        column = shard["image_embedding"]
        for row in range(count):
            raw[column.id.get_offset() + row * column.nbytes // len(column)] ^= 0x40
    path.write_bytes(raw)
    (bad,) = [check for check in verify_cache(cache) if check.problem]
    assert f"{count} of 10 rows are damaged: 0 (" in bad.problem
    assert bad.problem.endswith("and 1 more" if count > 5 else ")")


def test_rows_behind_the_place_where_a_file_ends_too_soon_are_lost(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "tar", cache)
    keys = EmbeddingCache.open(cache).split("train").keys[10:20]
    path = cache / "images" / "train-00001.tar"
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(f'"key": "{keys[6]}"'.encode())])
    (bad,) = [check for check in verify_cache(cache) if check.problem]
    assert bad.damaged == (6, 7, 8, 9)


def test_a_reader_refuses_a_flipped_row_by_its_number_and_reads_the_others(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    rows = EmbeddingCache.open(cache).split("train").embeddings
    path = cache / "images" / "train-00001.h5"
    with h5py.File(path) as shard:
        column = shard["image_embedding"]
        at = column.id.get_offset() + 4 * column.nbytes // len(column)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    rows = EmbeddingCache.open(cache).split("train").embeddings
    assert rows[13].shape == (16,)
    with pytest.raises(
        UserError, match=r"row 4 of image_embedding of .*train-00001.h5 differs .* cache repair"
    ):
        rows[np.array([13, 14])]


@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_what_repair_takes_out_the_same_command_redoes_and_nothing_else(whole, tmp_path, teacher_dir, format):
    rng = random.Random(0)
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    clean = files_of(cache)
    when = {file: (cache / file).stat().st_mtime_ns for file in clean}
    ending = "h5" if format == "hdf5" else "tar"
    lost = [
        f"images/train-00001.{ending}",
        f"images/ood_test-00000.{ending}",
        "texts/labels.h5",
        "crop_views/train-00000.h5",
        "support_views/train-00000.h5",
        "pixels/train-00000.h5",
        "text_tower/text.safetensors",
    ]
    neighbours = "neighbours/train--labels.h5"
    for file in (*lost, neighbours):
        flip(cache / file, len(clean[file]) // 2, rng)
    lost.append(f"images/id_test-00000.{ending}")
    (cache / lost[-1]).unlink()
    repair = repair_cache(cache)
    assert sorted(check.file for check in repair.removed) == sorted([*lost, neighbours])
    kind = "hdf5" if format == "hdf5" else "webdataset"
    pixels = "raw" if format == "hdf5" else "jpeg"
    assert repair.commands == (
        f"distill cache-features DATA --out {cache} --model MODEL --pretrained WEIGHTS --precision float32 "
        f"--dtype float16 --format {kind} --rows-per-shard 10 --pixels 36 --pixels-format {pixels} --views 2 "
        "--views-scale 0.08 --support-views 2 --keep-text-tower",
    )
    with pytest.raises(UserError, match="is not finished"):
        EmbeddingCache.open(cache)
    again = repair_cache(cache)
    # Neighbours are of the rows that were there before.
    lacking = [check.file for check in again.removed if not check.file.startswith("neighbours/")]
    assert lacking == ["texts/labels.h5", "text_tower/text.safetensors"]
    assert again.commands == repair.commands
    cache_features(whole / "photos", cache, options_of(format, teacher_dir))
    assert not any(check.problem for check in verify_cache(cache))
    after = files_of(cache)
    assert after == clean
    # The tower's two files are written together.
    touched = (*lost, "neighbours", "manifest", "text_tower")
    sound = [file for file in clean if not file.startswith(touched)]
    assert [file for file in sound if (cache / file).stat().st_mtime_ns != when[file]] == []


def test_a_cache_without_its_neighbours_is_whole_and_a_reader_redoes_them(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    clean = files_of(cache)
    file = "neighbours/train--labels.h5"
    flip(cache / file, len(clean[file]) // 2, random.Random(0))
    (cache / "neighbours" / "train--nothing.h5").write_bytes(b"of no bank")
    repair = repair_cache(cache)
    assert {check.file for check in repair.removed} == {file, "neighbours/train--nothing.h5"}
    assert repair.commands == ()
    EmbeddingCache.open(cache).neighbours("train", "labels", 256)
    assert files_of(cache) == clean


def test_an_imported_and_a_converted_cache_are_mended_by_the_commands_that_made_them(tmp_path, photos):
    from cache.maintain.import_files import ImportOptions, import_files
    from cache.sources.image_folder import ImageFolder

    keys = [f"train/{image.key}" for image in ImageFolder.scan(photos).split("train").images]
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(len(keys), 8)).astype("float32"))
    np.save(tmp_path / "texts.npy", np.eye(3, 8, dtype="float32"))
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    (tmp_path / "classes.txt").write_text("apple\nbanana\ncherry\n")
    given = {name: str(tmp_path / f"{name}.txt") for name in ("keys", "classes")}
    given |= {"images": str(tmp_path / "rows.npy"), "texts": str(tmp_path / "texts.npy")}
    again = {
        "cache": lambda: import_files(tmp_path / "cache", ImportOptions(**given)),
        "tar": lambda: convert_cache(tmp_path / "cache", tmp_path / "tar", format="webdataset"),
    }
    for make in again.values():
        make()
    for name, command in (("tar", "cache convert CACHE --to webdataset"), ("cache", "cache import")):
        cache = tmp_path / name
        clean = files_of(cache)
        for file in clean:
            if file.startswith(("images", "texts")):
                flip(cache / file, len(clean[file]) // 2, random.Random(1))
        repair = repair_cache(cache)
        assert len(repair.removed) == 2
        assert repair.commands[0].startswith(f"distill {command}")
        again[name]()
        assert not any(check.problem for check in verify_cache(cache))
        assert files_of(cache) == clean


def test_repair_without_a_sound_manifest_says_so(tmp_path, photos):
    cache = make_cache(tmp_path / "cache", photos).path
    (cache / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        repair_cache(cache)


def test_the_commands_verify_and_repair_say_it_and_leave_with_a_status(whole, tmp_path, teacher_dir):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    with h5py.File(cache / "pixels" / "train-00000.h5") as shard:
        pixels = shard["pixels"]
        at = pixels.id.get_offset() + 7 * pixels.nbytes // len(pixels)
    flip(cache / "pixels" / "train-00000.h5", at, random.Random(0))

    def distill(*words: str) -> Result:
        return CliRunner().invoke(cli.main, ["cache", *words])

    verified = distill("verify", str(cache))
    assert verified.exit_code == 1
    assert "1 of 24 rows are damaged: 7 (apple/train_7.jpg)" in verified.stdout
    assert f"run 'distill cache repair {cache}'" in verified.stderr
    as_json = json.loads(distill("verify", str(cache), "--json").stdout)
    assert [len(check["damaged_rows"]) for check in as_json if check["problem"]] == [1]
    mended = distill("repair", str(cache))
    assert mended.exit_code == 1
    assert "taken out: pixels/train-00000.h5" in mended.stdout
    assert (
        f"Fix: run the command again that made it, with all that it was given: distill cache-features DATA --out {cache}"
        in mended.stderr
    )
    cache_features(whole / "photos", cache, options_of("hdf5", teacher_dir))
    assert distill("verify", str(cache)).exit_code == 0
    as_json = distill("repair", str(cache), "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (
        0,
        {"removed": [], "commands": []},
    )
    absent = distill("repair", str(tmp_path / "nothing"))
    assert absent.exit_code == 2


def test_a_sealed_text_notices_any_changed_byte():
    text = with_checksum({"a": 1, "b": ["ü", {"sha256": "0" * 64}]})
    assert has_its_checksum(text)
    assert has_its_checksum(text + "\n")
    for i in range(len(text)):
        assert not has_its_checksum(text[:i] + chr(ord(text[i]) ^ 1) + text[i + 1 :])
    assert not has_its_checksum("{}")
    assert not has_its_checksum("")


def test_a_checkpoint_with_a_flipped_byte_is_refused_wherever_it_is(whole, tmp_path):
    run(
        with_settings(load_recipe("smoke"), ONE_EPOCH),
        cache_dir=whole / "hdf5",
        data_dir=whole / "photos",
        out=tmp_path / "run",
    )
    path = tmp_path / "run" / "last.pt"
    raw, rng = path.read_bytes(), random.Random(0)
    assert torch.load(path, weights_only=True)["schema_version"] == 2  # plain torch reads on
    for at in [0, len(raw) - 1, len(raw) - 50, *(rng.randrange(len(raw)) for _ in range(40))]:
        flip(path, at, rng)
        with pytest.raises(UserError, match="is damaged"):
            read_checkpoint(path)
        path.write_bytes(raw)
    path.write_bytes(raw[:-1000])
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(path)


def test_a_text_bank_that_differs_beside_its_rows_is_not_read(whole, tmp_path):
    shutil.copytree(whole / "hdf5", tmp_path / "cache")
    with open(tmp_path / "cache" / "texts" / "labels.h5", "ab") as bank:
        bank.write(b"x")
    with pytest.raises(UserError, match="its checksum is not the manifest's"):
        EmbeddingCache.open(tmp_path / "cache").text_bank("labels")


def test_what_an_older_version_wrote_is_refused_as_that(whole, tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "last.pt"
    shutil.copytree(whole / "hdf5", cache)
    value = json.loads((cache / "manifest.json").read_text())
    del value["sha256"]
    (cache / "manifest.json").write_text(json.dumps({**value, "schema_version": 1}))  # as the first versions
    torch.save({"schema_version": 1}, run)
    for read in (lambda: EmbeddingCache.open(cache), lambda: read_checkpoint(run)):
        with pytest.raises(UserError, match=r"no checksum: it was cut short, or an older distill wrote it"):
            read()
    (cache / "manifest.json").write_text(with_checksum({**value, "schema_version": 1}))
    append_checksum(run)
    for read in (lambda: EmbeddingCache.open(cache), lambda: read_checkpoint(run)):
        with pytest.raises(
            CacheMismatch, match=r"schema version 1, .*an older distill wrote it: make it again"
        ):
            read()


def test_what_a_newer_version_wrote_is_refused_with_the_command_that_upgrades(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    value = json.loads((cache / "manifest.json").read_text())
    del value["sha256"]
    (cache / "manifest.json").write_text(with_checksum({**value, "schema_version": 99}))
    with pytest.raises(CacheMismatch, match=r"schema version 99.*bring yours up to date"):
        EmbeddingCache.open(cache)
    torch.save({"schema_version": 99}, tmp_path / "last.pt")
    append_checksum(tmp_path / "last.pt")
    with pytest.raises(UserError, match=r"schema version 99.*bring yours up to date"):
        read_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "file",
    ["/etc/passwd", "images/../../x.h5", "images/..", "images\\x.h5", "elsewhere/x.h5", "images/a/b.h5"],
)
def test_a_manifest_cannot_name_files_outside_of_its_cache(whole, tmp_path, file):
    shutil.copytree(whole / "hdf5", tmp_path / "cache")
    value = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    del value["sha256"]
    value["splits"]["train"]["shards"][0]["file"] = file
    (tmp_path / "cache" / "manifest.json").write_text(with_checksum(value))
    with pytest.raises(UserError, match="is no file of a cache"):
        Manifest.load(tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.__delitem__("label"), "no column label"),
        (
            lambda f: f.create_dataset("new", data=np.ones(24, dtype="float32")) and f.move("new", "label2"),
            None,
        ),
        (lambda f: replace_column(f, "label", np.ones(10, dtype="float32")), "label is float32"),
        (
            lambda f: replace_column(f, "image_embedding", np.ones((10, 3, 16), dtype="float16")),
            "3 dimensions",
        ),
        (lambda f: replace_column(f, "key", np.ones(10, dtype="int64")), "key is int64"),
        (lambda f: f.__delitem__("crc32"), "no column crc32"),
        (lambda f: replace_link(f, "label", h5py.ExternalLink("other.h5", "/label")), "no column label"),
        (lambda f: replace_link(f, "label", h5py.SoftLink("/file_bytes")), "no column label"),
        (
            lambda f: replace_link(f, "label", compressed(f)),
            "not a plain column",
        ),
        (lambda f: replace_column(f, "label", np.ones(4, dtype="int64")), "differ in length"),
        (
            lambda f: replace_column(f, "image_embedding", np.ones((10, 9), dtype="float16")),
            "the manifest says",
        ),
    ],
)
def test_columns_of_a_wrong_type_size_or_place_are_refused_by_name(whole, tmp_path, change, said):
    from dataclasses import replace

    from cache.runtime.atomic_files import sha256_of

    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    path = cache / "images" / "train-00000.h5"
    with h5py.File(path, "a") as file:
        change(file)
    manifest = Manifest.load(cache)
    shard = replace(manifest.splits["train"].shards[0], sha256=sha256_of(path), bytes=path.stat().st_size)
    manifest.with_shard("train", shard).save(cache)
    if said is None:
        assert len(EmbeddingCache.open(cache).split("train").keys) == 24
        return
    with pytest.raises(UserError, match=f"train-00000.h5 is damaged .*{said}"):
        EmbeddingCache.open(cache).split("train")


def replace_column(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Put another column in the place of one, with the right checksums, as one who made it on purpose would."""
    del file[name], file[f"crc32/{name}"]
    write_column(file, name, values)


def compressed(file: h5py.File) -> h5py.Dataset:
    return file.create_dataset("compressed", data=np.ones(10, dtype="int64"), compression="gzip")


def replace_link(file: h5py.File, name: str, link: object) -> None:
    del file[name]
    file[name] = link


@pytest.mark.parametrize("bug", [TypeError, AttributeError])
@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_a_bug_of_ours_keeps_its_traceback(whole, monkeypatch, format, bug):
    def broken(*given: object, **named: object) -> None:
        raise bug("a bug of ours")

    cache = EmbeddingCache.open(whole / format)
    for module, name, read in (
        (shard_formats, "_are_labels", lambda: cache.split("train")),
        (hdf5_columns, "_map" if format == "hdf5" else "_bytes", lambda: cache.crop_views("train")),
        (text_banks, "read_strings", lambda: cache.text_bank("labels")),
        (neighbours, "mapped_column", lambda: cache.neighbours("train", "labels", 2)),
        (manifest_module, "value_of", lambda: EmbeddingCache.open(whole / format)),
    ):
        with monkeypatch.context() as context:
            context.setattr(module, name, broken)
            with pytest.raises(bug, match="a bug of ours"):
                read()


@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_a_full_memory_is_no_damaged_file(whole, monkeypatch, format):
    def full(*given: object, **named: object) -> None:
        raise MemoryError("Unable to allocate 7.28 TiB")

    cache = EmbeddingCache.open(whole / format)
    monkeypatch.setattr(np, "array", full)
    with pytest.raises(MemoryError):
        cache.split("train")


def test_a_column_that_claims_more_than_the_file_has_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["label"] = np.arange(1000)
    raw = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(raw[:-4000])
    with pytest.raises((OSError, ValueError)), h5py.File(tmp_path / "x.h5") as file:
        read_column(file, "label", kinds="i")
    with pytest.raises(KeyError), h5py.File(tmp_path / "y.h5", "w") as file:
        mapped_column(tmp_path / "y.h5", file, "absent", kinds="f", ndim=(2,))


def test_no_text_in_an_hdf5_file_lies_in_a_heap_where_a_wrong_byte_would_stop_libhdf5(whole):
    files = sorted((whole / "hdf5").rglob("*.h5"))
    found = []

    def look(name: str, item: h5py.HLObject) -> None:
        kinds = [item.attrs.get_id(attribute).dtype for attribute in item.attrs]
        found.extend(kinds + ([item.dtype] if isinstance(item, h5py.Dataset) else []))

    for path in files:
        with h5py.File(path, "r") as file:
            look("/", file)
            file.visititems(look)
    assert {"S", "u", "f", "i"} <= {kind.kind for kind in found}
    assert not any(kind.hasobject for kind in found)


def test_a_disk_that_cannot_be_read_is_no_damage_and_repair_removes_nothing(cached, monkeypatch):
    def refuse(*args, **named):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = sorted(path.name for path in cached.path.rglob("*"))
    monkeypatch.setattr("cache.store.hdf5_shards.read_column", refuse)
    for command in (verify_cache, repair_cache):
        with pytest.raises(UserError, match="could not be read"):
            command(cached.path)
    assert sorted(path.name for path in cached.path.rglob("*")) == before
