"""A run knows what it was made from: what separates two data sets, and who refuses to mix them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import EMBED_DIM, ID_CLASSES, OOD_CLASSES, make_photos, write_image

import cli
from cache import EmbeddingCache
from cache.changed_images import contents_of
from cache.maintain.import_embeddings import ImportedTexts, import_embeddings
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.progress import Silent
from cache.sources.episodes import EpisodeFolder
from cache.sources.image_folder import ImageFolder
from cache.store.checksums import append_checksum
from distill.data.identity_reader import IdentityReader, note_gone, split_identity
from distill.data_identity import DataIdentity, SplitIdentity
from distill.deploy.export import ExportOptions, export_run
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.trained_run import evaluate_run, space_of_run
from distill.report.collect import collect
from distill.report.compare import compare_runs
from distill.report.groups import groups_of
from distill.report.page import report
from distill.report.tables import main_table, per_class_tables
from distill.report.tasks import parts_of
from distill.settings import with_settings
from distill.sweep.plan import load_sweep
from distill.sweep.run import FINISHED, Place, states
from distill.train.session import open_session
from distill.train.start import train as run

SWEEP = """
seeds = [0]
[base]
student.arch = "timm:test_resnet"
student.image_size = 32
train.epochs = 1
train.batch_size = 6
train.device = "cpu"
optim.lr = 0.01
data.workers = 0
"""
SPLIT = SplitIdentity(images=4, class_names=("a", "b"), keys="k", content="c")
IDENTITY = DataIdentity(
    learnt_from={"train": SPLIT},
    judged_on={"ood_test": replace(SPLIT, class_names=("x", "y"))},
    teachers={"main": "t"},
    texts={"main/labels": {"a": "1", "b": "2"}},
)


class Said(Silent):
    """A progress that keeps what it was told."""

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def cache_of(out, photos, *, texts=None, swapped=(), order=1, banks=("labels",), with_data=True):
    """An imported cache of ``photos``: the texts of two ``swapped`` classes, rows in another ``order``."""
    rng, folder = np.random.default_rng(0), ImageFolder.scan(photos)
    centres = {name: rng.normal(size=EMBED_DIM) for name in folder.class_names}
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.images]
    rows = np.stack([2 * centres[key.split("/")[1]] + rng.normal(size=EMBED_DIM) for key in keys])
    owner = {**{name: name for name in centres}, **dict(zip(swapped, reversed(swapped), strict=True))}
    found = np.stack([centres[owner[name]] for name in centres])
    import_embeddings(
        out,
        keys=keys[::order],
        embeddings=rows.astype("float32"),
        texts=[ImportedTexts(name=b, classes=list(centres), embeddings=found, texts=texts) for b in banks],
        folder=folder if with_data else None,
        dtype="float32",
    )
    return EmbeddingCache.open(out)


def config_of(root, *settings):
    """The config of the one run of the sweep in ``root``."""
    (root / "sweep.toml").write_text(SWEEP)
    return with_settings(load_sweep(str(root / "sweep.toml")).runs[0].config, settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with photos, the same with half of the OOD images, a cache, and a run on either, by seed."""
    root = tmp_path_factory.mktemp("identity")
    make_photos(root / "photos", test=4)
    shutil.copytree(root / "photos", root / "half")
    for i in (1, 3):
        for name in OOD_CLASSES:
            (root / "half" / "val" / name / f"val_{i}.jpg").unlink()
    cached = cache_of(root / "cache", root / "photos", banks=("labels", "others"))
    for name, data, seed in (("all", "photos", 0), ("half", "half", 1)):
        config = config_of(root, f"train.seed={seed}")
        run(config, cache_dir=cached.path, data_dir=root / data, out=root / "runs" / name)
    return root


@pytest.fixture
def own(made, tmp_path):
    """A copy of ``made`` to change; its run is of these photos, with their times, and this cache."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def reader(root, *, data="photos", cache="cache"):
    return IdentityReader(cache=EmbeddingCache.open(root / cache), folder=ImageFolder.scan(root / data))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": 2}, "train: 4 images here, 2 when it was trained"),
        ({"keys": "z", "content": "z"}, "train: other names of images"),
        ({"content": "z"}, "train: other images under the same names"),
        ({"labels": "z"}, "train: other labels of the same images"),
        ({"rows": "z"}, "train: other rows of the same images"),
        (
            {"class_names": ("a", "c"), "keys": "z"},
            "train: classes only here: b, classes only when it was trained: c",
        ),
        ({"class_names": ("b", "a")}, "train: classes in another order"),
    ],
)
def test_a_split_that_differs_is_one_line_that_says_in_what(changed, said):
    other = replace(IDENTITY, learnt_from={"train": replace(SPLIT, **changed)})
    assert IDENTITY.differences(other) == [said]
    assert IDENTITY.judged_differences(other) == []
    assert IDENTITY.digest() != other.digest()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"judged_on": {}}, "ood_test: 4 images here, none when it was trained"),
        ({"teachers": {"main": "z"}}, "teacher main: t here, z when it was trained"),
        ({"texts": {"main/labels": {"a": "1", "b": "9"}}}, "text bank main/labels: other texts of b"),
        (
            {"pixels": "JPEG of 36 px"},
            "training images: as they are in the files here, JPEG of 36 px when it was trained",
        ),
    ],
)
def test_whatever_else_differs_is_one_line(changed, said):
    assert IDENTITY.differences(replace(IDENTITY, **changed)) == [said]


def test_what_a_setting_chose_is_compared_where_both_have_it():
    more = {"captions": {"train": "x"}, "views": "4 crops", "teachers": {"main": "t", "second": "s"}}
    other = replace(
        IDENTITY, texts={"main/labels": {"a": "1", "c": "3"}, "main/described": {"a": "9"}}, **more
    )
    assert IDENTITY.differences(other) == []
    joined = IDENTITY.joined(other)
    assert joined.texts == {"main/labels": {"a": "1", "b": "2", "c": "3"}, "main/described": {"a": "9"}}
    assert joined.differences(replace(other, views="2 crops")) == [
        "views: 4 crops here, 2 crops when it was trained"
    ]
    assert joined.differences(replace(other, captions={"train": "y"})) == ["captions of train: other texts"]
    described = replace(other, texts={"main/described": {"a": "8"}})
    assert joined.differences(described) == ["text bank main/described: other texts of a"]


def test_an_identity_survives_json_and_anything_else_is_refused():
    value = json.loads(json.dumps(IDENTITY.to_json()))
    assert DataIdentity.from_json(value) == IDENTITY
    assert value["digest"] == IDENTITY.digest()
    splits = value["learnt_from"]
    for wrong in (
        None,
        [],
        {},
        {**value, "teachers": {"main": 1}},
        {**value, "texts": {"main/labels": ["a"]}},
        {**value, "learnt_from": {"train": {**splits["train"], "images": "4"}}},
        {**value, "learnt_from": {"train": {**splits["train"], "class_names": [1]}}},
    ):
        with pytest.raises(ValueError, match="the data of the run is not there"):
            DataIdentity.from_json(wrong)


def test_an_identity_depends_on_neither_place_nor_time_nor_order(made, tmp_path):
    shutil.copytree(made / "photos", tmp_path / "photos")  # with other times of the files
    for path in (tmp_path / "photos").rglob("*.jpg"):
        os.utime(path, ns=(1, 1))
    config = config_of(made)
    cached = cache_of(tmp_path / "cache", tmp_path / "photos")
    there = IdentityReader(cache=cached, folder=ImageFolder.scan(tmp_path / "photos")).of(config)
    here = reader(made).of(config)
    assert there == here
    assert str(made) not in json.dumps(here.to_json())
    split = ImageFolder.scan(made / "photos").split("train")
    contents = contents_of(split.images).sha256
    back = split_identity(split.images[::-1], contents[::-1], split.class_names)
    assert back == replace(here.learnt_from["train"], rows="")


def test_every_image_counts_once_and_training_images_only_with_a_row(made, tmp_path):
    shutil.copytree(made / "photos", tmp_path / "photos")
    for split in ("train", "val_on_train"):
        write_image(tmp_path / "photos" / split / "apple" / "new.jpg", (9, 9, 9), np.random.default_rng(3))
    found = IdentityReader(
        cache=EmbeddingCache.open(made / "cache"), folder=ImageFolder.scan(tmp_path / "photos")
    ).of(config_of(made))
    lines = found.differences(reader(made).of(config_of(made)))
    assert lines == ["id_test: 13 images here, 12 when it was trained"]


def test_a_file_of_the_size_and_time_of_its_row_is_not_read(own):
    rows, folder = EmbeddingCache.open(own / "cache").split("train"), ImageFolder.scan(own / "photos")
    images = folder.split("train").images
    before, path = contents_of(images, rows), images[0].path
    assert before.changed == ()
    status, size = path.stat(), path.stat().st_size
    path.write_bytes(b"0" * size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert contents_of(images, rows).changed == ()
    os.utime(path, ns=(0, 0))
    after = contents_of(images, rows)
    assert after.changed == (images[0].key,)
    assert (after.sha256 != before.sha256).any(axis=1).nonzero()[0].tolist() == [0]
    assert contents_of(images).changed == ()  # joined to nothing, nothing has changed


def test_a_touched_file_is_read_and_is_the_same(own):
    rows, images = (
        EmbeddingCache.open(own / "cache").split("train"),
        ImageFolder.scan(own / "photos").split("train").images,
    )
    before = contents_of(images, rows)
    for image in images:
        os.utime(image.path, ns=(5, 5))
    after = contents_of(images, rows)
    assert after.changed == ()
    np.testing.assert_array_equal(after.sha256, before.sha256)


@pytest.mark.parametrize(
    ("split", "key"),
    [
        ("train", "apple/train_0.jpg"),
        ("val_on_train", "cherry/val_on_train_1.jpg"),
        ("val", "plum/val_2.jpg"),
    ],
)
def test_an_image_overwritten_after_caching_stops_training(own, split, key):
    write_image(own / "photos" / split / key, (1, 2, 3), np.random.default_rng(9))
    ours = {"train": "train", "val_on_train": "id_test", "val": "ood_test"}[split]
    with pytest.raises(CacheMismatch, match=rf"1 images of {ours} in .*photos .*\({key}\).*Fix: .*again"):
        open_session(config_of(own), cache_dir=own / "cache", data_dir=own / "photos")


def test_images_renumbered_after_caching_stop_training_by_the_first_three(own):
    folder = own / "photos" / "train" / "banana"
    files = sorted(folder.iterdir())
    for path in files:
        path.rename(path.with_suffix(".away"))
    for path, name in zip(files, [*files[1:], files[0]], strict=True):
        path.with_suffix(".away").rename(name)
    said = r"8 images of train .*\(banana/train_0.jpg, banana/train_1.jpg, banana/train_2.jpg and 5 more\)"
    with pytest.raises(CacheMismatch, match=said):
        open_session(config_of(own), cache_dir=own / "cache", data_dir=own / "photos")
    with pytest.raises(CacheMismatch, match="8 images of train"):
        space_of_run(own / "runs" / "all", data_dir=own / "photos", device="cpu")


def test_an_import_that_knows_no_images_is_told_by_its_rows(made, tmp_path):
    one = cache_of(tmp_path / "one", made / "photos", with_data=False)
    other = cache_of(tmp_path / "other", made / "photos", with_data=False, order=-1)
    assert one.fingerprint == other.fingerprint
    folder = ImageFolder.scan(made / "photos")
    mine, theirs = (IdentityReader(cache=c, folder=folder).of(config_of(made)) for c in (one, other))
    assert mine.differences(theirs) == [
        f"{split}: other rows of the same images" for split in ("train", "id_test", "ood_test")
    ]
    swapped = cache_of(tmp_path / "swapped", made / "photos", with_data=False, swapped=OOD_CLASSES)
    found = IdentityReader(cache=swapped, folder=folder).of(config_of(made))
    assert found.differences(mine) == ["text bank main/labels: other texts of lemon, plum"]


def test_depth_and_labels_are_part_of_an_episodes_content(episodes, tmp_path):
    shutil.copytree(episodes, tmp_path / "episodes")
    before = EpisodeFolder.scan(tmp_path / "episodes").split("ood_test")
    contents = contents_of(before.images)
    with h5py.File(tmp_path / "episodes" / "val.h5", "r+") as file:
        depth = file[before.images[0].key]["dict_str_hand_camera"]["dict_str_depth"]
        depth[...] = depth[...] + 1
    changed = (contents_of(before.images).sha256 != contents.sha256).any(axis=1)
    assert changed.nonzero()[0].tolist() == [0]
    one = split_identity(before.images, contents.sha256, before.class_names)
    first = replace(before.images[0], label=tuple(1 - value for value in before.images[0].label))
    other = split_identity([first, *before.images[1:]], contents.sha256, before.class_names)
    assert one.differences(other) == ["other labels of the same images"]


def test_a_run_carries_its_identity_in_every_file(made):
    folder = made / "runs" / "all"
    expected = reader(made).of(config_of(made))
    state = torch.load(folder / "last.pt", weights_only=True)
    summary = json.loads((folder / "summary.json").read_text())
    assert DataIdentity.from_json(state["data"]) == DataIdentity.from_json(summary["data"]) == expected
    assert summary["data"]["judged_on"]["ood_test"]["class_names"] == list(OOD_CLASSES)
    assert summary["data"]["learnt_from"]["train"]["class_names"] == list(ID_CLASSES)
    assert summary["data"]["judged_on"]["ood_test"]["images"] == 8


def test_training_names_the_images_that_are_gone(made):
    said = Said()
    note_gone(EmbeddingCache.open(made / "cache"), ImageFolder.scan(made / "half"), said)
    (line,) = said.notes
    assert line.startswith("4 of 8 images of ood_test that ")
    assert line.endswith("any more: lemon/val_1.jpg, lemon/val_3.jpg, plum/val_1.jpg and 1 more")


def test_training_names_test_images_that_cannot_be_read(made, tmp_path):
    shutil.copytree(made / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "val" / "plum" / "val_9.jpg").write_bytes(b"no picture")
    said = Said()
    run(
        config_of(made),
        cache_dir=made / "cache",
        data_dir=tmp_path / "photos",
        out=tmp_path / "run",
        progress=said,
    )
    assert (
        sum(
            "1 of 9 images of ood_test cannot be read and are left out: plum/val_9.jpg (" in n
            for n in said.notes
        )
        == 1
    )


def test_going_on_with_other_data_is_refused(made, tmp_path):
    shutil.copytree(made / "runs" / "all", tmp_path / "run")
    given = {"cache_dir": made / "cache", "out": tmp_path / "run", "resume_run": True}
    with pytest.raises(
        CacheMismatch, match=r"last.pt was made from other data \(ood_test: 4 images here, 8 when"
    ):
        run(config_of(made), data_dir=made / "half", **given)
    assert run(config_of(made), data_dir=made / "photos", **given)["status"] == "finished"


def test_a_run_does_not_go_on_with_other_names_of_its_classes(made, tmp_path):
    # In the same order: no label and no row is another, but a baseline's outputs are called otherwise.
    shutil.copytree(made / "photos", tmp_path / "photos")
    for split in ("train", "val_on_train"):
        (tmp_path / "photos" / split / "apple").rename(tmp_path / "photos" / split / "aa_apple")
    renamed = cache_of(tmp_path / "renamed", tmp_path / "photos")
    assert renamed.fingerprint == EmbeddingCache.open(made / "cache").fingerprint
    said = r"train: classes only here: aa_apple, classes only when it was trained: apple; id_test: classes"
    with pytest.raises(CacheMismatch, match=said):
        run(
            config_of(made),
            cache_dir=renamed.path,
            data_dir=tmp_path / "photos",
            out=shutil.copytree(made / "runs" / "all", tmp_path / "run"),
            resume_run=True,
        )


def test_evaluate_refuses_other_texts_unless_another_bank_was_chosen(made, tmp_path):
    swapped = cache_of(tmp_path / "swapped", made / "photos", swapped=OOD_CLASSES, banks=("labels", "others"))
    given = {"cache_dir": swapped.path, "device": "cpu", "splits": ("ood_test",)}
    for text in (None, "labels"):
        with pytest.raises(
            CacheMismatch,
            match=r"\(text bank main/labels: other texts of lemon, plum\).*another bank with --text",
        ):
            evaluate_run(made / "runs" / "all", text=text, **given)
    assert evaluate_run(made / "runs" / "all", text="others", **given)["ood_test"].other_data == ""


def test_evaluate_says_when_a_split_is_not_what_the_run_was_judged_on(made):
    folder = str(made / "runs" / "all")
    words = ["evaluate", folder, "--data", str(made / "half"), "--device", "cpu", "--json"]
    done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 0, done.output
    found, said = json.loads(done.stdout), "4 images here, 8 when it was trained"
    told = {split: found[split]["other_data"] for split in ("id_test", "ood_test")}
    assert told == {"id_test": "", "ood_test": said}
    assert done.stderr == f"note: ood_test is not what the run was trained or judged with: {said}\n"


def test_a_model_carries_the_identity_of_its_run_and_says_when_it_was_measured_on_other_images(
    made, tmp_path
):
    said = "4 images here, 8 when it was trained"
    run_of = made / "runs" / "all"
    info = export_run(run_of, tmp_path / "model", ExportOptions(data_dir=made / "half", neighbours=0))
    summary = json.loads((run_of / "summary.json").read_text())
    assert (
        json.loads((tmp_path / "model" / "model.json").read_text())["source"]["identity"] == summary["data"]
    )
    splits = info.measured["float32"]["splits"]
    assert {name: found.get("other_data") for name, found in splits.items()} == {
        "id_test": None,
        "ood_test": said,
    }
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"**ood_test is not what the run was judged on**: {said}." in card
    assert "id_test is not what" not in card


def test_a_sweep_takes_no_run_of_other_data_as_its_own(made, tmp_path):
    config_of(made)
    sweep = load_sweep(str(made / "sweep.toml"))
    out = tmp_path / "out"
    folder = shutil.copytree(made / "runs" / "all", out / sweep.runs[0].name)
    place = Place(cache=made / "cache", data=made / "photos", out=out)
    assert states(sweep, place) == {sweep.runs[0].name: FINISHED}
    said = r"was made from other data \(ood_test: 4 images here, 8 when it was trained\).*another --out"
    with pytest.raises(CacheMismatch, match=said):
        states(sweep, replace(place, data=made / "half"))
    (folder / "summary.json").unlink()  # interrupted: its checkpoint says it
    with pytest.raises(CacheMismatch, match=said):
        states(sweep, replace(place, data=made / "half"))
    assert sorted(path.name for path in out.iterdir()) == [sweep.runs[0].name]


def test_few_shot_joins_no_numbers_of_other_data_or_other_weights(made, tmp_path):
    source = shutil.copytree(made / "runs" / "all", tmp_path / "run")
    options = FewShotOptions(shots=(1,), settings=("train.epochs=1",), device="cpu")
    with pytest.raises(
        CacheMismatch, match=r"run was made from other data \(ood_test: 4 images here, 8 when"
    ):
        few_shot(source, tmp_path / "few", options, data_dir=made / "half")
    found = few_shot(source, tmp_path / "few", options)
    state = torch.load(source / "last.pt", weights_only=True)
    assert DataIdentity.from_json(found["data"]) == DataIdentity.from_json(state["data"])
    assert found["draws"][0]["data"] == DataIdentity.from_json(state["data"]).digest()
    again = few_shot(source, tmp_path / "few", options)
    assert again["draws"] == found["draws"]
    name, weight = next((n, w) for n, w in state["student"].items() if w.is_floating_point())
    state["student"][name] = weight + 1
    torch.save(state, source / "last.pt")
    append_checksum(source / "last.pt")
    before = (tmp_path / "few" / "fewshot.json").read_bytes()
    with pytest.raises(CacheMismatch, match=r"few/shots-1 .* other weights now.*another --out"):
        few_shot(source, tmp_path / "few", options)
    assert (tmp_path / "few" / "fewshot.json").read_bytes() == before


def test_a_report_has_a_row_for_every_data_set_and_says_what_separates_them(made, tmp_path):
    found = collect(made / "runs")
    (part,) = parts_of(found.finished)
    groups = part.groups
    assert part.settings == ("data",)
    assert [(group.label, len(group.runs)) for group in groups] == [("data=A", 1), ("data=B", 1)]
    assert found.other_data[False] == ("data B is not data A: ood_test: 4 images in B, 8 in A",)
    rows = main_table(part).rows
    assert [row.head for row in rows] == ["data=A", "data=B", "teacher, data=A", "teacher, data=B"]
    ood = next(table for table in per_class_tables(part) if table.title == "OOD")
    assert [row.cells[0].text for row in ood.rows] == ["4 or 2", "4 or 2"]
    report(made / "runs", tmp_path / "report.html")
    for ending in ("html", "md"):
        assert "ood_test: 4 images in B, 8 in A" in (tmp_path / f"report.{ending}").read_text()
    assert "| 2 |" not in (tmp_path / "report.md").read_text()


def test_runs_that_could_not_read_the_same_images_are_no_seeds_of_one_setting(made, tmp_path):
    for name, unread in (("one", {}), ("two", {"plum/val_0.jpg": "cut short"})):
        folder = shutil.copytree(made / "runs" / "all", tmp_path / name)
        summary = json.loads((folder / "summary.json").read_text())
        summary["unreadable_images"]["ood_test"] = unread
        (folder / "summary.json").write_text(json.dumps(summary))
    assert groups_of(collect(tmp_path).finished)[0] == ("data",)
    said = "data B is not data A: ood_test: 1 images could not be read in B, 0 in A"
    assert collect(tmp_path).other_data == {False: (said,), True: ()}


def test_a_summary_with_an_identity_that_is_none_is_named_and_left_out(made, tmp_path):
    folder = shutil.copytree(made / "runs" / "all", tmp_path / "runs" / "one")
    shutil.copytree(made / "runs" / "half", tmp_path / "runs" / "two")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "data": {"teachers": 3}}))
    found = collect(tmp_path / "runs")
    assert [run.name for run in found.finished] == ["two"]
    assert "the data of the run is not there" in found.unreadable[0][1]


def test_compare_says_first_that_other_images_were_judged(made):
    found = compare_runs(made / "runs" / "all", made / "runs" / "half")
    assert found.surroundings[:2] == (
        "the results are not comparable: they are of other test images",
        "data: ood_test: 4 images in the second, 8 in the first",
    )
    with pytest.raises(UserError, match=r"more than the seed \(data; ood_test: 4 images in half, 8 in all\)"):
        compare_runs(made / "runs", made / "runs" / "all")


def test_the_identity_of_a_config_does_not_read_the_files_again(own):
    identities = reader(own)
    first = identities.of(config_of(own))
    shutil.rmtree(own / "photos")
    assert identities.of(config_of(own, "text=others")).learnt_from == first.learnt_from
