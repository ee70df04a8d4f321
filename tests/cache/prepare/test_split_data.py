from __future__ import annotations

from pathlib import Path

import pytest
from helpers.folders import every_file, keys_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.prepare import split_files
from cache.prepare.split import split_images
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.progress import Silent

GOLDEN_OOD = {"cat", "dog", "fox"}
GOLDEN_ID_TEST = {"ant/3.jpg", "ant/4.jpg", "bee/3.jpg", "bee/4.jpg", "eel/1.jpg", "eel/4.jpg"}


@pytest.fixture
def source(tmp_path, write_jpeg):
    """SOURCE/CLASS/FILE: six classes of five images."""
    for name in ("ant", "bee", "cat", "dog", "eel", "fox"):
        for i in range(5):
            write_jpeg(tmp_path / "source" / name / f"{i}.jpg")
    return tmp_path / "source"


def test_a_ratio_keeps_classes_and_images_apart_and_loses_none(source, tmp_path):
    summary = split_images(source, tmp_path / "data")
    assert summary.images == {"train": 9, "id_test": 6, "ood_test": 15}
    assert summary.classes == {"train": 3, "id_test": 3, "ood_test": 3}
    keys = keys_of(tmp_path / "data")
    assert set.union(*keys.values()) == {f"{p.parent.name}/{p.name}" for p in source.rglob("*.jpg")}
    assert sum(map(len, keys.values())) == 30
    classes = {name: {key.split("/")[0] for key in split_keys} for name, split_keys in keys.items()}
    assert classes["train"] == classes["id_test"]
    assert not classes["train"] & classes["ood_test"]
    labels = (tmp_path / "data" / "label2text.txt").read_text().splitlines()
    assert labels == [f"{n} {i} {n}" for i, n in enumerate(("ant", "bee", "cat", "dog", "eel", "fox"), 1)]


def test_a_seed_is_a_split(source, tmp_path):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        split_images(source, tmp_path / out, seed=seed)
    assert keys_of(tmp_path / "a") == keys_of(tmp_path / "b") != keys_of(tmp_path / "c")
    # Pinned: the same names and seed must give this split on every machine and with every numpy.
    keys = keys_of(tmp_path / "a")
    assert {key.split("/")[0] for key in keys["ood_test"]} == GOLDEN_OOD
    assert keys["id_test"] == GOLDEN_ID_TEST


def test_more_images_of_one_class_leave_the_others_as_they_were(source, write_jpeg, tmp_path):
    split_images(source, tmp_path / "before")
    for i in range(10, 20):
        write_jpeg(source / "bee" / f"{i}.jpg")
    split_images(source, tmp_path / "after")
    before, after = keys_of(tmp_path / "before"), keys_of(tmp_path / "after")
    for split in before:
        assert {k for k in before[split] if k[:3] != "bee"} == {k for k in after[split] if k[:3] != "bee"}


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=6),
    ood=st.floats(0.3, 0.7),
    id_test=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_sizes_a_ratio_is_complete_and_disjoint(tmp_path_factory, sizes, ood, id_test, seed):
    tmp = tmp_path_factory.mktemp("ratio")
    for i, size in enumerate(sizes):
        (tmp / "source" / f"c{i}").mkdir(parents=True)
        for j in range(size):
            (tmp / "source" / f"c{i}" / f"{j}.jpg").write_bytes(b"no decoding here")
    split_images(tmp / "source", tmp / "data", ood=ood, id_test=id_test, seed=seed)
    keys = keys_of(tmp / "data")
    assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == sum(sizes)
    trained = {key.split("/")[0] for key in keys["train"]}
    held_out = {key.split("/")[0] for key in keys.get("id_test", set())}
    assert not trained & {key.split("/")[0] for key in keys["ood_test"]}
    assert held_out == {name for name in trained if id_test > 0 and sizes[int(name[1:])] > 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ood": 0.01}, "makes 0 of 6 classes OOD"),
        ({"ood": 0.99}, "makes 6 of 6 classes OOD"),
        ({"ood": 1.0}, "the OOD share is 1.0"),
        ({"id_test": 1.0}, "the held-out share is 1.0"),
        ({"id_test": -0.1}, "the held-out share is -0.1"),
        ({"seed": -1}, "the seed is -1"),
    ],
)
def test_shares_that_leave_a_side_empty_are_refused(source, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        split_images(source, tmp_path / "data", **given)
    assert not (tmp_path / "data").exists()


def test_a_source_that_is_no_class_folders_is_refused(source, tmp_path):
    (source / "empty").mkdir()
    with pytest.raises(UserError, match=r"hold no image: 1 \(empty\)"):
        split_images(source, tmp_path / "data")
    with pytest.raises(UserError, match="has no class folders"):
        split_images(source / "empty", tmp_path / "data")
    with pytest.raises(UserError, match="is not a folder"):
        split_images(source / "none", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_images_outside_class_folders_are_surplus(source, write_jpeg, tmp_path):
    write_jpeg(source / "loose.jpg")
    write_jpeg(source / "ant" / "deeper" / "a.jpg")
    assert split_images(source, tmp_path / "data").surplus == ("ant/deeper/a.jpg", "loose.jpg")


def test_a_list_of_classes_makes_just_those_ood(source, tmp_path):
    (tmp_path / "ood.txt").write_text("# unseen\n\nbee\n  fox \n")
    summary = split_images(source, tmp_path / "data", ood_classes=tmp_path / "ood.txt")
    assert summary.images == {"train": 12, "id_test": 8, "ood_test": 10}
    assert {key.split("/")[0] for key in keys_of(tmp_path / "data")["ood_test"]} == {"bee", "fox"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("bee\nfoxx\n", "names 'foxx', which is no class folder .*did you mean 'fox'"),
        ("# none\n", "names 0 of 6 classes"),
        ("ant\nbee\ncat\ndog\neel\nfox\n", "names 6 of 6 classes"),
    ],
)
def test_a_list_of_classes_that_cannot_be_is_refused(source, tmp_path, lines, message):
    (tmp_path / "ood.txt").write_text(lines)
    with pytest.raises(UserError, match=message):
        split_images(source, tmp_path / "data", ood_classes=tmp_path / "ood.txt")
    assert not (tmp_path / "data").exists()


def test_texts_beside_the_classes_are_taken_along(source, tmp_path):
    names = ("ant", "bee", "cat", "dog", "eel", "fox")
    (source / "label2text.txt").write_text("".join(f"{n} {i} big_{n}\n" for i, n in enumerate(names)))
    (source / "chatgpt.txt").write_text("It is an animal.\n" * 6)
    split_images(source, tmp_path / "data")
    for name in ("label2text.txt", "chatgpt.txt"):
        assert (tmp_path / "data" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("copy", [False, True])
def test_run_again_a_split_stays_untouched(source, tmp_path, copy):
    first = split_images(source, tmp_path / "data", copy=copy)
    (tmp_path / "data" / "label2text.txt").write_text("the user's own names")
    before = every_file(tmp_path / "data")
    second = split_images(source, tmp_path / "data", copy=copy)
    assert every_file(tmp_path / "data") == before
    assert (first.placed, second.placed) == (30, 0)
    assert second.images == first.images


@pytest.mark.parametrize("copy", [False, True])
def test_a_killed_split_goes_on_where_it_stopped(source, tmp_path, copy):
    class Killed(Silent):
        left = 10

        def advance(self, images: int) -> None:
            self.left -= images
            if not self.left:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split_images(source, tmp_path / "data", copy=copy, progress=Killed())
    assert not (tmp_path / "data" / "split.json").exists()
    leftover = tmp_path / "data" / "train" / ".0.jpg.abc.tmp"
    leftover.write_bytes(b"half an image")
    with pytest.raises(CacheMismatch, match=r"seed \(0 -> 1\)"):
        split_images(source, tmp_path / "data", copy=copy, seed=1)
    assert split_images(source, tmp_path / "data", copy=copy).placed == 20
    assert not leftover.exists()
    assert not (tmp_path / "data" / split_files.UNFINISHED).exists()
    assert sum(map(len, keys_of(tmp_path / "data").values())) == 30


def test_a_half_copy_of_old_is_copied_anew(source, tmp_path):
    split_images(source, tmp_path / "data", copy=True)
    image = next((tmp_path / "data" / "train").rglob("*.jpg"))
    whole = image.read_bytes()
    image.write_bytes(whole[:100])
    assert split_images(source, tmp_path / "data", copy=True).placed == 1
    assert image.read_bytes() == whole


@pytest.mark.parametrize("changed", [{"seed": 1}, {"ood": 0.4}, {"id_test": 0.2}, {"copy": True}])
def test_other_settings_on_the_same_folder_are_refused(source, tmp_path, changed):
    split_images(source, tmp_path / "data")
    before = every_file(tmp_path / "data")
    with pytest.raises(CacheMismatch, match=f"changed: {next(iter(changed))} "):
        split_images(source, tmp_path / "data", **changed)
    assert every_file(tmp_path / "data") == before


def test_a_source_with_other_images_on_the_same_folder_is_refused(source, write_jpeg, tmp_path):
    split_images(source, tmp_path / "more")
    write_jpeg(source / "ant" / "new.jpg")
    with pytest.raises(CacheMismatch, match="plan"):
        split_images(source, tmp_path / "more")


def test_a_folder_of_something_else_is_refused(source, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a split"):
        split_images(source, tmp_path / "data")
    (tmp_path / "data" / "split.json").write_text("{broken")
    with pytest.raises(UserError, match="is not empty and is not a split"):
        split_images(source, tmp_path / "data")
    with pytest.raises(UserError, match="is a file"):
        split_images(source, tmp_path / "data" / "thesis.txt")


def test_a_stranger_among_the_images_is_named(source, write_jpeg, tmp_path):
    split_images(source, tmp_path / "data")
    folder = next((tmp_path / "data" / "val").iterdir())
    write_jpeg(folder / "stranger.jpg")
    with pytest.raises(UserError, match=r"does not hold what was planned: 1 \(.*stranger.jpg\)"):
        split_images(source, tmp_path / "data")


@pytest.mark.parametrize("out", ["source", "source/data", ".", "link/data"])
def test_a_data_folder_and_its_source_may_not_lie_within_each_other(source, tmp_path, out):
    (tmp_path / "link").symlink_to(source)
    before = every_file(tmp_path)
    with pytest.raises(UserError, match="lie within each other"):
        split_images(source, tmp_path / out)
    assert every_file(tmp_path) == before


def test_where_links_cannot_be_made_copies_are_offered(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(UserError, match=r"could not be made a link .*--copy"):
        split_images(source, tmp_path / "data")
    assert not (tmp_path / "data" / "split.json").exists()
