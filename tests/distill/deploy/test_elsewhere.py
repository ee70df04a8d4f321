"""A student judged zero-shot on images that no cache has rows of."""

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.once import made_once
from helpers.teachers import save_clip

from cache.build.add_texts import add_texts
from cache.build.from_folder import FeatureOptions, cache_features
from cache.build.text_options import TextOptions
from cli import main

SMALL = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--epochs", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, drawn_photos, teacher_dir):
    """A folder with a run of two teachers, the first of which keeps its text tower; its own images are gone."""

    def make(root: Path) -> None:
        root.mkdir()
        photos = shutil.copytree(drawn_photos, root / "photos")
        clip = save_clip(root / "clip", seed=3, text={"layers": 1})
        usual = {"device": "cpu", "workers": 0}
        first = FeatureOptions(model=f"local-dir:{teacher_dir}", keep_text_tower=True, **usual)
        cache_features(photos, root / "cache", first)
        cache_features(
            photos, root / "cache", FeatureOptions(model=f"local-dir:{clip}", teacher="eva", **usual)
        )
        words = ["train", str(root / "cache"), "--out", str(root / "run"), *SMALL, "--batch-size", "4"]
        trained = CliRunner().invoke(main, [*words, "--teachers", "main,eva", "--set", "data.workers=0"])
        assert trained.exit_code == 0, trained.output
        photos.rename(root / "own")

    return made_once(tmp_path_factory, "elsewhere", lambda folder: make(folder / "made")) / "made"


@pytest.fixture
def other(made, tmp_path):
    """Class folders: two that the run's bank has no text of, and one that it was trained on."""
    for old, new in (("val/lemon", "pear"), ("val/plum", "quince"), ("val_on_train/apple", "apple")):
        shutil.copytree(made / "own" / old, tmp_path / "other" / new)
    return tmp_path / "other"


def judge(made, *words):
    return CliRunner().invoke(main, ["evaluate", str(made / "run"), "--device", "cpu", *map(str, words)])


def judged(made, *words):
    done = judge(made, *words, "--json")
    assert done.exit_code == 0, done.output + done.stderr
    return json.loads(done.stdout)


def as_list(other, path):
    names = sorted(folder.name for folder in other.iterdir())
    lines = [f"{file},{names.index(file.parent.name)}" for file in sorted(other.rglob("*.jpg"))]
    path.write_text("\n".join(["path,label", *lines]) + "\n")
    return path


def as_tar(other, path):
    names = sorted(folder.name for folder in other.iterdir())
    with tarfile.open(path, "w") as tar:
        for file in sorted(other.rglob("*.jpg")):
            number = str(names.index(file.parent.name)).encode()
            for ending, content in (("jpg", file.read_bytes()), ("cls", number)):
                info = tarfile.TarInfo(f"{file.parent.name}_{file.stem}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_classes_of_the_bank_give_the_numbers_of_the_runs_own_test(made):
    elsewhere = judged(made, "--on", f"ood_test={made / 'own' / 'val'}")
    own = judged(made, "--data", made / "own")
    for name, of_run in (("on", "ood_test"), ("on@eva", "ood_test@eva")):
        assert elsewhere[name]["per_class"] == own[of_run]["per_class"]
        assert elsewhere[name]["accuracy"] == own[of_run]["accuracy"]
        assert elsewhere[name]["text"] == "the text bank 'labels'"


def test_other_classes_are_told_by_the_kept_text_tower_and_known_ones_are_named(made, other):
    done = judge(made, "--on", other, "--template", "a sketch of {}", "--json")
    one = json.loads(done.stdout)["on"]
    assert (one["text"], one["images"]) == ("their names in 'a sketch of {}'", 9)
    assert (one["trained_classes"], one["new_classes"]) == (["apple"], ["pear", "quince"])
    assert one["trained_accuracy"] == one["per_class"]["apple"]
    assert one["accuracy"] == pytest.approx(one["top1_accuracy"])  # of as many images each
    # The other teacher's tower is not kept.
    assert "on@eva" not in json.loads(done.stdout)
    assert "the head of the teacher 'eva' is not judged" in done.stderr


@pytest.mark.parametrize("space", ["as it is", "centred"])
def test_names_through_the_tower_tell_classes_as_the_runs_own_bank_does(made, tmp_path, space):
    out = tmp_path / "run"
    words = [
        "train",
        str(made / "cache"),
        "--data",
        str(made / "own"),
        "--out",
        str(out),
        *SMALL,
        "--batch-size",
        "4",
    ]
    words += ["--set", "data.workers=0", "--set", f"loss.center={str(space == 'centred').lower()}"]
    assert CliRunner().invoke(main, words).exit_code == 0
    by_bank, by_names = (
        json.loads(
            CliRunner()
            .invoke(
                main,
                [
                    "evaluate",
                    str(out),
                    "--device",
                    "cpu",
                    "--on",
                    f"ood_test={made / 'own' / 'val'}",
                    "--json",
                    *more,
                ],
            )
            .stdout
        )["on"]
        for more in ([], ["--template", "a photo of {}"])
    )
    assert (by_bank["text"], by_names["text"]) == ("the text bank 'labels'", "their names in 'a photo of {}'")
    assert by_names["loss"] == pytest.approx(by_bank["loss"], rel=1e-4)


def test_a_named_teacher_tells_classes_to_its_own_head_alone(made, other):
    found = judged(made, "--on", other, "--teacher-model", f"local-dir:{made / 'clip'}")
    assert {*found} == {"on@eva", "left_out"}


def test_a_list_and_tars_with_numbers_take_their_names_from_a_file(made, other, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("apple\npear\nquince\n")
    folder = judged(made, "--on", other)["on"]
    for source in (as_list(other, tmp_path / "list.csv"), as_tar(other, tmp_path / "some.tar")):
        one = judged(made, "--on", source, "--names", names)["on"]
        assert (one["per_class"], one["loss"]) == (folder["per_class"], pytest.approx(folder["loss"]))


def test_all_names_compete_and_a_label_that_is_none_of_them_is_refused(made, other, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("apple\npear\nquince\nfig\n")
    one = judged(made, "--on", other, "--names", names)["on"]
    assert (one["chance"], one["images_per_class"]["fig"], len(one["per_class"])) == (25, 0, 3)
    names.write_text("apple\npear\n")
    refused = judge(made, "--on", other, "--names", names)
    assert (refused.exit_code, "1 of 3 classes of" in refused.stderr) == (1, True)


def test_a_bank_that_is_asked_for_tells_the_classes_or_nothing(made, other, tmp_path):
    (tmp_path / "texts.txt").write_text("apple\ta red fruit\npear\ta green fruit\nquince\ta sour one\n")
    cache = shutil.copytree(made / "cache", tmp_path / "cache")
    texts = TextOptions(bank="own", text_file=tmp_path / "texts.txt", device="cpu")
    add_texts(cache, texts)
    refused = judge(made, "--on", other, "--text", "labels")
    assert (refused.exit_code, "no text for pear, quince" in refused.stderr) == (1, True)
    of_one = judged(made, "--on", other, "--cache", cache, "--text", "own")  # the other teacher has no such
    assert [name for name in of_one if "@" in name] == []
    add_texts(cache, replace(texts, teacher="eva", model=f"local-dir:{made / 'clip'}"))
    found = judged(made, "--on", other, "--cache", cache, "--text", "own")
    assert [name for name in found if "@" in name] == ["on@eva", "on@mean"]
    assert {one["text"] for name, one in found.items() if name != "left_out"} == {"the text bank 'own'"}


def test_what_is_left_out_is_counted(made, other, tmp_path):
    (other / "pear" / "cut.jpg").write_bytes(next(other.rglob("*.jpg")).read_bytes()[:200])
    listed = as_list(other, tmp_path / "list.csv")
    listed.write_text(listed.read_text().replace(",2\n", ",\n") + f"{other}/gone.jpg,0\n")
    (tmp_path / "names.txt").write_text("apple\npear\n")
    found = judged(made, "--on", listed, "--names", tmp_path / "names.txt")
    assert found["on"]["images"] == 6
    assert len(found["on"]["unreadable"]) == 1
    assert {reason: one["count"] for reason, one in found["left_out"].items()} == {
        "without a label": 3,
        "that are not there": 1,
    }


def test_a_source_or_options_that_cannot_be_are_refused_in_one_line(made, other):
    pool = judge(made, "--on", f"pool={other}")
    assert (pool.exit_code, "has no labels" in pool.stderr) == (1, True)
    for words, problem in (
        (["--template", "a {}"], "--template is of --on"),
        (["--on", other, "--template", "no place"], "has no single {}"),
        (["--on", other, "--text", "labels", "--template", "a {}"], "--text takes a bank's own texts"),
        (["--on", other, "--pretrained", "openai"], "--pretrained is of --teacher-model"),
        (["--on", other, "--space"], "leave out --space"),
    ):
        refused = judge(made, *words)
        assert (refused.exit_code, problem in refused.stderr) == (2, True), refused.output


def test_one_class_is_said_to_tell_nothing(made, other):
    done = judge(made, "--on", shutil.copytree(other / "pear", other.parent / "single" / "pear").parent)
    assert (done.exit_code, "tells nothing" in done.stdout) == (0, True)
