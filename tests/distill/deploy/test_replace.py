"""A model's files are replaced all at once, wherever that is killed."""

from __future__ import annotations

import json
import sys

import pytest

from distill.deploy.replace import put_in_place, settle

FILES = {
    "old": ("model.onnx", "texts/labels.npz", "nearest_images.npz"),
    "new": ("model.onnx", "texts/labels.npz", "a/b/c"),
}
EVENTS = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


class Killed(BaseException):
    """The process is no more."""


class Kill:
    """Kills when so many names were changed on the disk; an audit hook, which cannot be taken back."""

    def __init__(self) -> None:
        self.left = -1
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: object) -> None:
        if self.left >= 0 and event in EVENTS:
            self.left -= 1
            if self.left < 0:
                raise Killed


@pytest.fixture(scope="module")
def kill():
    return Kill()


def write(folder, version):
    for name in FILES[version]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(version)
    (folder / "model.json").write_text(json.dumps([version, *FILES[version]]))


def version_of(model):
    """Which version a reader finds; all files that it names are of it."""
    version, *names = json.loads((model / "model.json").read_text())
    assert {(model / name).read_text() for name in names} == {version}
    return version


def whole(model):
    """What lies in a folder but work."""
    paths = (path.relative_to(model) for path in model.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path) for path in paths if path.parts[0] != "work"}


def test_a_kill_anywhere_leaves_one_model_and_the_next_time_it_is_done(tmp_path, kill):
    seen, at, ended = [], 0, False
    while not ended:
        model = tmp_path / str(at)
        write(model, "old")
        write(model / "work" / "next", "new")
        kill.left = at
        try:
            put_in_place(model / "work" / "next", model, beside="work")
            ended = True
        except Killed:
            seen.append(version_of(model))
        kill.left = -1
        settle(model, beside="work")
        assert version_of(model) == (seen[-1] if not ended else "new")
        assert whole(model) == {"model.json", *FILES[version_of(model)]}
        assert not any(path.is_symlink() for path in model.rglob("*"))
        at += 1
    assert seen == sorted(seen, reverse=True)  # old, then new
    assert {*seen} == {"old", "new"}


def test_a_first_model_is_one_when_all_its_files_are_there(tmp_path, kill):
    for at in range(4):
        model = tmp_path / str(at)
        write(model / "work" / "next", "new")
        kill.left = at
        with pytest.raises(Killed):
            put_in_place(model / "work" / "next", model, beside="work")
        kill.left = -1
        assert not (model / "model.json").exists() or version_of(model) == "new"
        write(model / "work" / "next", "new")
        put_in_place(model / "work" / "next", model, beside="work")
        assert version_of(model) == "new"
        assert whole(model) == {"model.json", *FILES["new"]}


def test_what_lies_beside_stays(tmp_path):
    model = tmp_path / "model"
    write(model, "old")
    (model / "work").mkdir()
    (model / "work" / "mine").write_text("mine")
    write(tmp_path / "next", "new")
    put_in_place(tmp_path / "next", model, beside="work")
    assert (version_of(model), (model / "work" / "mine").read_text()) == ("new", "mine")
    assert not (tmp_path / "next").exists()
