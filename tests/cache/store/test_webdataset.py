"""Tars of pictures and rows: what plain webdataset and open_clip read of them, and what our own reader does."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, replace

import numpy as np
import pytest
import webdataset
from PIL import Image

from cache import EmbeddingCache
from cache.maintain.compact import compact_cache
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.image_folder import ImageSample
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import RemovedRows
from cache.store.row_group import claim_group, read_keys
from cache.store.tar_folder import TarFolder
from cache.store.tar_rows import TarRows
from cache.store.webdataset import tar_name, tar_names, write_tar_group
from tests.helpers.row_groups import WIDTH, row_of
from tests.helpers.tar_caches import add_tar_group, keys_of, make_tar_cache, save_photo

# webdataset leaves it to Python to close the files that it opened.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ODD = [
    "__x__/__y__.png",
    "a.b/c.d.jpg",
    "a.b/100%.png",
    "cats/long " + "n" * 200 + ".webp",
    "cats/one.BMP",
    "cats/one.png",
    "höhle/ñandú.jpeg",
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    make_tar_cache(root / "cache", root / "photos", {"train": [ODD]}, captioned=True)
    return root


def plain(root, name="train-00000"):
    return list(webdataset.WebDataset(str(root / f"cache/tars/{name}.tar"), shardshuffle=False))


def tar_of(root, split="train", number=0):
    journal = Journal.load(root / "cache")
    return TarRows.of(root / "cache", journal.groups(split)[number])


def test_plain_webdataset_reads_every_picture_and_row_whatever_its_name(odd):
    samples = {json.loads(sample["json"])["key"]: sample for sample in plain(odd)}
    assert samples.keys() == set(ODD)
    names = sorted({key.partition("/")[0] for key in ODD})
    for key, sample in samples.items():
        own = (odd / "photos/train" / key).read_bytes()
        ending = key.rpartition(".")[2].lower().replace("jpeg", "jpg")  # by what it is
        assert sample[ending] == own
        assert names[int(sample["cls"])] == key.partition("/")[0]
        assert sample["txt"].decode() == f"a photo of {key}"
        table = json.loads(sample["json"])
        assert table["labels"] == [key.partition("/")[0]]
        assert table["sha256"] == hashlib.sha256(own).hexdigest()
        embedding = np.load(io.BytesIO(sample["embedding.npy"]), allow_pickle=False)
        assert (embedding == row_of(key)).all()


def test_names_in_a_tar_are_told_apart_and_are_what_webdataset_takes_whole():
    keys = [*ODD, "a.b/c%2Ed.jpg", "a%2Eb/c.jpg"]
    names = tar_names(keys)
    assert len(set(names)) == len(keys)
    for name in names:
        assert webdataset.tariterators.base_plus_ext(f"{name}.jpg") == (name, "jpg")
        assert not any(part.startswith("__") and part.endswith("__") for part in name.split("/"))
    assert tar_name("cats/plain_name-1.jpg") == "cats/plain_name-1"


def test_the_data_pipeline_of_open_clip_reads_pictures_and_captions(odd):
    tar = str(odd / "cache/tars/train-00000.tar")
    pipeline = (
        webdataset.WebDataset(tar, shardshuffle=False)
        .decode("pilrgb")
        .rename(image="jpg;png;jpeg;webp;bmp", text="txt")
        .to_tuple("image", "text")
    )
    pairs = list(pipeline)
    assert {text for _, text in pairs} == {f"a photo of {key}" for key in ODD}
    assert all(image.size == (12, 12) for image, _ in pairs)


def test_open_clips_own_loader_reads_a_tar(odd, tmp_path):
    pytest.importorskip("pandas")
    import cache.runtime.torchvision_compat  # noqa: F401  # before torchvision

    data = pytest.importorskip("open_clip_train.data")
    params = pytest.importorskip("open_clip_train.params")
    make_tar_cache(
        tmp_path / "cache",
        tmp_path / "photos",
        {"train": [[f"cats/{i}.jpg" for i in range(6)]]},
        captioned=True,
    )
    tar = str(tmp_path / "cache/tars/train-00000.tar")
    args = params.parse_args(["--val-data", tar, "--val-num-samples", "6", "--batch-size", "3"])
    args.world_size, args.rank, args.distributed, args.workers = 1, 0, False, 1
    info = data.get_wds_dataset(
        args, lambda image: np.asarray(image).shape[0], is_train=False, tokenizer=lambda text: [text]
    )
    batches = list(info.dataloader)
    texts = [text for _, of_batch in batches for text in of_batch]
    assert len(texts) == 6
    assert all(text.startswith("a photo of cats/") for text in texts)


def test_equal_rows_and_pictures_are_equal_bytes_whatever_their_order_and_time(odd, tmp_path):
    make_tar_cache(tmp_path / "cache", odd / "photos", {"train": [ODD[::-1]]}, captioned=True)
    files = [root / "cache/tars/train-00000.tar" for root in (odd, tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_line_has_the_checksum_of_the_tar_and_row_i_of_the_keys_is_sample_i(odd):
    journal = Journal.load(odd / "cache")
    (group,) = journal.groups("train")
    assert group.lines["samples"].is_sound(odd / "cache")
    keys = EmbeddingCache.open(odd / "cache").split("train").groups.keys_of(group)
    samples = list(tar_of(odd).samples())
    assert [sample.key for sample in samples] == [keys.key(i) for i in range(len(ODD))]
    assert [sample.row for sample in samples] == list(range(len(ODD)))
    assert samples[0].caption == f"a photo of {samples[0].key}"


def test_reading_begins_and_ends_anywhere_and_passes_over_removed_rows(odd):
    tar = tar_of(odd)
    everything = [sample.key for sample in tar.samples(pictures=False)]
    assert [sample.key for sample in tar.samples(2, 5)] == everything[2:5]
    assert list(tar.samples(3, 3)) == []
    removed = replace(tar, removed=frozenset({0, 3}))
    assert [sample.row for sample in removed.samples()] == [1, 2, 4, 5, 6]


def test_the_embeddings_of_a_tar_are_mapped_in_the_order_of_the_split(odd):
    cache = EmbeddingCache.open(odd / "cache")
    rows = cache.split("train")
    assert rows.embeddings.shape == (len(ODD), WIDTH)
    for key in ODD:
        assert (rows.embeddings[rows.position[key]] == row_of(key)).all()
    assert (rows.embeddings[np.array([3, 1])] == np.stack([row_of(rows.keys[i]) for i in (3, 1)])).all()


def test_removed_rows_of_a_tar_are_not_seen(tmp_path):
    keys = [f"cats/{i}.png" for i in range(5)]
    make_tar_cache(tmp_path / "cache", tmp_path / "photos", {"train": [keys]})
    (group,) = Journal.load(tmp_path / "cache").groups("train")
    digests = asdict(group.keys.digests)
    JournalWriter(tmp_path / "cache").add(RemovedRows(group=group.name, rows=(1, 4), digests=digests))
    rows = EmbeddingCache.open(tmp_path / "cache").split("train")
    assert len(rows) == 3
    assert sorted(sample.row for sample in tar_of(tmp_path).samples()) == [0, 2, 3]


def test_a_picture_that_changed_while_it_was_embedded_is_refused(tmp_path):
    make_tar_cache(tmp_path / "cache", tmp_path / "photos", {"train": [["cats/1.png"]]})
    photo = ImageSample(key="cats/2.png", root=tmp_path / "photos/train")
    save_photo(photo.path, 2)
    keys = keys_of([photo])
    save_photo(photo.path, 3)
    group = claim_group(tmp_path / "cache", "train")
    with pytest.raises(CacheMismatch, match=r"2\.png is not the picture"):
        write_tar_group(tmp_path / "cache", group, keys, {}, [photo])
    assert not (tmp_path / f"cache/tars/{group}.tar").exists()


def test_compaction_makes_one_tar_of_many(tmp_path):
    keys = [[f"cats/{number}{i}.png" for i in range(5)] for number in range(3)]
    make_tar_cache(tmp_path / "cache", tmp_path / "photos", {"train": keys})
    (group, *_) = Journal.load(tmp_path / "cache").groups("train")
    digests = asdict(read_keys(tmp_path / "cache", group.keys).taken([1]).digests())
    JournalWriter(tmp_path / "cache").add(RemovedRows(group=group.name, rows=(1,), digests=digests))
    before = EmbeddingCache.open(tmp_path / "cache").split("train")
    rows = {key: before.embeddings[i].tobytes() for i, key in enumerate(before.keys)}
    assert compact_cache(tmp_path / "cache").after == 1
    after = EmbeddingCache.open(tmp_path / "cache").split("train")
    assert {key: after.embeddings[i].tobytes() for i, key in enumerate(after.keys)} == rows
    (tar,) = (tmp_path / "cache/tars").iterdir()
    samples = webdataset.WebDataset(str(tar), shardshuffle=False)
    assert {json.loads(sample["json"])["key"] for sample in samples} == set(rows)
    assert len(rows) == 14


def damaged(root, change):
    """Change the bytes of the tar of a small cache."""
    make_tar_cache(root / "cache", root / "photos", {"train": [[f"cats/{i}.png" for i in range(3)]]})
    path = root / "cache/tars/train-00000.tar"
    raw = bytearray(path.read_bytes())
    change(raw)
    path.write_bytes(raw)
    return tar_of(root)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.__setitem__(slice(len(raw) // 2, None), b""),
        lambda raw: raw.__setitem__(slice(0, 200), b"x" * 200),
        lambda raw: raw.__setitem__(slice(raw.index(b'"key"'), raw.index(b'"key"') + 5), b'"kex"'),
        lambda raw: raw.__setitem__(slice(raw.index(b"(8,)"), raw.index(b"(8,)") + 4), b"(9,)"),
        lambda raw: raw.__setitem__(slice(raw.index(b"'<f2'"), raw.index(b"'<f2'") + 5), b"'|O' "),
        lambda raw: raw.__setitem__(slice(raw.index(b"'<i8'"), raw.index(b"'<i8'") + 5), b"'<i4'"),
    ],
    ids=["cut short", "no header", "no key", "other shape", "objects", "other index"],
)
def test_a_damaged_tar_is_one_line_that_names_it(tmp_path, change):
    tar = damaged(tmp_path, change)
    with pytest.raises(UserError, match=r"tars/train-00000\.tar is damaged") as error:
        list(tar.samples(columns=["image_embedding"]))
    assert "\n" not in str(error.value)


def test_an_index_that_leads_out_of_its_tar_is_refused(tmp_path):
    def change(raw):
        at = raw.index(b"__index__/offset.npy") + 512 + 128
        raw[at + 8 * 2 : at + 8 * 3] = (10**12).to_bytes(8, "little")

    tar = damaged(tmp_path, change)
    with pytest.raises(UserError, match="is damaged"):
        list(tar.samples())


def test_what_is_no_file_of_one_picture_each_leaves_the_rows_alone(tmp_path):
    make_tar_cache(tmp_path / "cache", tmp_path / "photos", {"train": [["cats/1.png"]]})

    class Cameras(ImageSample):
        views = ("image", "wrist")

    name = add_tar_group(tmp_path / "cache", [Cameras(key="cats/1.png", root=tmp_path / "photos/train")])
    (sample,) = plain(tmp_path, name)
    assert not {"png", "jpg"} & sample.keys()
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert (cache.split("train").embeddings[0] == row_of("cats/1.png")).all()
    with pytest.raises(UserError, match=r"rows alone, no pictures.*--data"):
        TarFolder.of(cache.path, cache.manifest, cache.journal)


def test_the_index_is_the_last_member_and_plain_tar_lists_it(odd):
    with tarfile.open(odd / "cache/tars/train-00000.tar") as tar:
        names = tar.getnames()
        assert names[-1] == "__index__/offset.npy"
        assert {member.mtime for member in tar.getmembers()} == {0}
    assert Image.open(io.BytesIO(next(iter(tar_of(odd).samples())).picture)).size == (12, 12)
