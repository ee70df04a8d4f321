"""A release: built from what is committed, and installed where nothing else of it is."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from distill.demo.scenes import draw_dataset

PACKAGES = ("cache/", "distill/", "cli.py")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# What an environment of the product would have; of another is what it imports distill from.
LIBRARIES = sysconfig.get_paths()["purelib"]


def committed() -> list[str]:
    """The files of the project, without what lies beside them here."""
    if not (ROOT / ".git").exists():
        pytest.skip("what is no checkout does not say which files are the project's")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def build(source: Path, out: Path, what: str) -> Path:
    """Let setuptools build a wheel or an sdist, with no network."""
    out.mkdir(exist_ok=True)
    code = f"import setuptools.build_meta as b; print(b.build_{what}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the committed files, in which nothing was built."""
    folder = tmp_path_factory.mktemp("source") / "distill"
    for name in committed():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    return build(source, source.parent / "sdist", "sdist")


@pytest.fixture(scope="module")
def wheel(source: Path, sdist: Path) -> Path:
    """The wheel that is built from the sdist."""
    with tarfile.open(sdist) as tar:
        tar.extractall(source.parent / "unpacked", filter="data")
    (unpacked,) = (source.parent / "unpacked").iterdir()
    return build(unpacked, source.parent / "wheel", "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A virtual environment with the wheel, and the libraries of this one, without our own checkout."""
    env = wheel.parent.parent / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    packages = Path(
        subprocess.run(
            [env / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(env)]
    # Not of the tests' own path: to pip a checkout that lies there is installed already.
    command = [*pip, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True, cwd=wheel.parent, env=without_python(os.environ))
    # Of a folder on the path no .pth is read, and so no checkout that is installed there is found.
    (packages / "libraries.pth").write_text(f"{LIBRARIES}\n")
    return env


def without_python(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("PYTHON")}


def run(env: Path, *words: object, cwd: Path) -> str:
    """Run a program of the environment in another folder; return what it prints."""
    clean = without_python(os.environ)
    command = [str(env / "bin" / str(words[0])), *map(str, words[1:])]
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


@pytest.mark.long
def test_an_sdist_holds_all_that_is_committed_of_use_and_its_licences(sdist):
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames() if "/" in name}
    ours = {n for n in committed() if not n.startswith((".github/", ".ci/")) and n != ".gitignore"}
    assert ours - names == set()
    assert {"LICENSE", "distill/deploy/words/LICENSE", "tests/conftest.py", "CHANGELOG.md"} <= names
    generated = {n for n in names - ours if (n.rpartition("/")[2] not in ("PKG-INFO", "setup.cfg"))}
    assert {n for n in generated if "." in n and ".egg-info" not in n} == set()


@pytest.mark.long
def test_a_wheel_holds_the_packages_with_their_data_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    ours = {name for name in committed() if name.startswith(PACKAGES)}
    assert {name for name in names if ".dist-info/" not in name} == ours
    licences = {name.partition(".dist-info/licenses/")[2] for name in names} - {""}
    assert licences == {"LICENSE", "distill/deploy/words/LICENSE"}
    assert {"cache/py.typed", "distill/py.typed", "distill/demo/teacher/open_clip_config.json"} <= names


@pytest.mark.long
def test_an_installation_works_from_any_folder(installed, tmp_path):
    draw_dataset(tmp_path / "drawn", train_per_class=2, id_test_per_class=1, ood_test_per_class=1)
    (tmp_path / "words.txt").write_text("plain red circle\ndotted blue star\n")
    assert run(installed, "distill", "--version", cwd=tmp_path) == f"distill, version {VERSION}\n"
    assert "head-first" in run(installed, "distill", "recipes", cwd=tmp_path)
    assert "[student]" in run(installed, "distill", "recipes", "smoke", cwd=tmp_path)
    code = "import cache, cli, distill; print(distill.__version__, cache.__file__, cli.__file__, distill.__file__)"
    version, *files = run(installed, "python", "-c", code, cwd=tmp_path).split()
    assert version == VERSION
    assert [file for file in files if not file.startswith(str(installed))] == []
    package = Path(files[2]).parent
    teacher = f"local-dir:{package / 'demo' / 'teacher'}"
    for command in (
        f"cache-features drawn --out cache --model {teacher} --device cpu --keep-text-tower",
        "train cache --out run --recipe smoke --set student.arch=timm:test_resnet --epochs 1 --device cpu",
        "report run --out report.html",
        "export run --out model --vocabulary words.txt",
        "predict model drawn/val --format jsonl --out said.jsonl",
    ):
        run(installed, "distill", *command.split(), cwd=tmp_path)
    assert (tmp_path / "said.jsonl").read_text().count("answer") == 50
    assert (package / "deploy" / "words" / "nouns.txt").is_file()


SNIPPET = """
from pathlib import Path
import numpy as np
import distill

cache: distill.EmbeddingCache = distill.cache_features(Path("photos"), "cache", pretrained="openai", views=8)
student = distill.train_student(cache, "run", settings={"train.epochs": 3, "student.arch": "resnet18"})
reveal_type(student.accuracy)
reveal_type(distill.evaluate(student, split="ood_test"))
model = distill.load_model(distill.export(student, "model", formats="onnx", license="mit").folder)
reveal_type(model.predict("photo.jpg"))
reveal_type(model.predict([np.zeros((8, 8, 3), dtype=np.uint8), Path("photo.jpg")]))
reveal_type(model.embed(["photo.jpg"]))
distill.cache_features("photos", "cache", vews=8)
model.predict("photo.jpg", top="five")
"""
SAID = {
    8: 'Revealed type is "dict[str, float]"',
    9: "distill.api.judging.Evaluation",
    11: 'Revealed type is "distill.deploy.model.Prediction"',
    12: "list[distill.deploy.model.Prediction]",
    13: "numpy.ndarray",
    14: "Unexpected keyword argument",
    15: "No overload variant",
}


@pytest.mark.long
def test_a_users_program_is_checked_by_the_types_that_come_along(installed, tmp_path):
    (tmp_path / "program.py").write_text(SNIPPET)
    command = ["--python-executable", str(installed / "bin" / "python"), "--cache-dir", "mypy", "program.py"]
    clean = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *command], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    said: dict[int, str] = {}
    for one in re.finditer(r"program\.py:(\d+): .*", done.stdout):
        said.setdefault(int(one[1]), one[0])
    assert {line: words in said.get(line, "") for line, words in SAID.items()} == dict.fromkeys(SAID, True), (
        done.stdout
    )
    assert {line for line in said if line not in SAID} == set()


def test_the_version_is_told_of_everywhere():
    changes = (ROOT / "CHANGELOG.md").read_text()
    (first, date), *_ = re.findall(r"^## (\S+) - (\S+)$", changes, re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert [first, cited["version"]] == [VERSION, VERSION]
    assert str(cited["date-released"]) == date
    assert datetime.date.fromisoformat(date)


def test_a_citation_is_complete():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # without which there is none
    (paper,) = cited["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [one["family-names"] for one in paper["authors"]] == ["Li", "Fang", "Liu", "Ling", "Tu", "Su"]


@pytest.mark.parametrize("form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=str)
def test_a_form_of_an_issue_is_one(form):
    """As GitHub has it: what a form must have, and what each of its elements must."""
    told: dict[str, Any] = yaml.safe_load(form.read_text())
    if form.name == "config.yml":
        assert {*told} <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= told.keys()
    ids = [element["id"] for element in told["body"] if element["type"] != "markdown"]
    assert len(ids) == len({*ids})
    for element in told["body"]:
        assert element["type"] in ("textarea", "input", "dropdown", "checkboxes", "markdown")
        assert element["type"] == "markdown" or element["attributes"]["label"]
        assert element["type"] != "dropdown" or element["attributes"]["options"]


def test_an_image_is_built_of_files_that_are_there_and_runs_as_no_root():
    lines = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    allowed = {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in steps} <= allowed
    assert [words for name, words in steps if name == "USER"] == ["distill"]
    assert [words for name, words in steps if name == "ENTRYPOINT"] == ['["distill"]']
    assert "://" not in "".join(words for _, words in steps)
    admitted = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert [name for name in admitted if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], "cache", "distill", "cli.py", "LICENSE"} <= {*admitted}
