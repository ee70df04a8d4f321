"""One account of what has no row: printed at the end of stage 1, kept, and told by ``cache info``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from helpers.caches import stage_1_words

import cli
from cache.build.from_folder import FeatureOptions, cache_features
from cache.sources.accounts import Account, LeftOut, Reason, Tally
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import SkippedImage
from cache.store.left_out import accounts_of
from cache.store.manifest import Manifest


def run(*words):
    done = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


@pytest.fixture
def odd(photos, write_jpeg):
    """Photos with one thing or two of what is left out for each reason that a folder can give."""
    apple = photos / "train" / "apple"
    (apple / "broken.jpg").write_bytes((apple / "train_0.jpg").read_bytes()[:200])
    (apple / "notes.doc").write_text("no picture")
    (apple / ".hidden.jpg").write_text("no picture")
    (apple / "gone.jpg").symlink_to("nowhere.jpg")
    (apple / "loop").symlink_to(photos / "train")
    (photos / "train" / "empty").mkdir()
    write_jpeg(photos / "train" / "no_class.jpg")
    write_jpeg(photos / "raw" / "beside.jpg")
    return photos


LINES = [
    "left out of train: 1 beside the folders of splits: raw/",
    "left out of train: 1 without a label: no_class.jpg",
    "left out of train: 1 hidden: apple/.hidden.jpg",
    "left out of train: 1 links to nothing: apple/gone.jpg",
    "left out of train: 1 of no picture format: apple/notes.doc",
    "left out of train: 1 links to a folder that they lie in: apple/loop/",
    "left out of train: 1 class folders without a picture: empty/",
    "left out of train: 1 unreadable: apple/broken.jpg",
]


def test_an_account_is_printed_kept_and_printed_again_when_nothing_changed(odd, tmp_path, teacher_dir):
    words = stage_1_words(odd, tmp_path / "cache", teacher_dir, "--workers", 0, "--device", "cpu")
    for shown in (run(*words), run(*words), run("cache", "info", tmp_path / "cache")):
        assert sorted(line for line in shown.output.splitlines() if line.startswith("left out")) == sorted(
            LINES
        )
    table = json.loads(run(*words, "--json").stdout)["left_out"]
    assert table == json.loads(run("cache", "info", tmp_path / "cache", "--json").stdout)["left_out"]
    assert table["train"]["unreadable"] == {"count": 1, "names": ["apple/broken.jpg"]}
    assert table.keys() == {"train"}


def test_an_account_follows_the_data(odd, tmp_path, teacher_dir, write_jpeg):
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0)
    before = cache_features(odd, tmp_path / "cache", options)
    assert before.left_out["train"].count == len(LINES)
    (odd / "train" / "apple" / "gone.jpg").unlink()
    write_jpeg(odd / "train" / "apple" / "broken.jpg")
    after = cache_features(odd, tmp_path / "cache", options)
    assert (after.new_rows, after.left_out["train"].count) == (1, len(LINES) - 2)
    assert (
        Manifest.load(tmp_path / "cache").left_out["train"].keys() == after.left_out["train"].left_out.keys()
    )


def test_the_account_of_many_is_of_constant_size(photos, tmp_path, teacher_dir):
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0)
    for number in range(50):
        (photos / "train" / "apple" / f"{number}.txt").write_text("no picture")
    cache_features(photos, tmp_path / "cache", options)
    size = (tmp_path / "cache" / "manifest.json").stat().st_size
    for number in range(50, 99):
        (photos / "train" / "apple" / f"{number}.txt").write_text("no picture")
    (photos / "train" / "apple" / "train_0.jpg").unlink()
    cache_features(photos, tmp_path / "cache", options)
    assert (tmp_path / "cache" / "manifest.json").stat().st_size == size
    assert Manifest.load(tmp_path / "cache").left_out["train"]["of no picture format"].count == 99


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("of too many pixels: 60,000 x 4, more than 100", Reason.TOO_LARGE),
        ("of no picture format: it is empty", Reason.FORMAT),
        ("image file is truncated", Reason.UNREADABLE),
    ],
)
def test_what_could_not_be_decoded_is_counted_by_why(odd, tmp_path, teacher_dir, words, reason):
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0)
    (odd / "train" / "apple" / "broken.jpg").unlink()
    cache_features(odd, tmp_path / "cache", options)
    JournalWriter(tmp_path / "cache").add(
        *(SkippedImage(split="pool", key=f"{i}.jpg", reason=words, bytes=1, mtime_ns=1) for i in range(5)),
        SkippedImage(split="train", key="apple/x.jpg", reason=words, bytes=1, mtime_ns=1),
    )
    manifest, journal = Manifest.load(tmp_path / "cache"), Journal.load(tmp_path / "cache")
    assert "apple/x.jpg" in accounts_of(manifest, journal)["train"].left_out[reason].names


def test_accounts_add_up_and_name_three():
    one = Account.of((Reason.HIDDEN, f"{i}") for i in range(2))
    other = Account.of((Reason.HIDDEN, f"{i}") for i in range(2, 9)) + Account.of([(Reason.FORMAT, "x")])
    assert (one + other).left_out == {
        Reason.HIDDEN: LeftOut(count=9, names=("0", "1", "2")),
        Reason.FORMAT: LeftOut(count=1, names=("x",)),
    }
    assert (one + other).count == 10
    assert (one + other).in_words() == ["9 hidden: 0, 1, 2 and 6 more", "1 of no picture format: x"]
    tally = Tally()
    tally.add(Reason.HIDDEN, "a", count=5)
    assert tally.account().in_words() == ["5 hidden: a and 4 more"]
