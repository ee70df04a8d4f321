"""Programs that stand before the real ones where the commands of README and docs are run.

They change these words and no others:

- a teacher that would be downloaded (--model, --teacher-model, --pretrained) is a small one on the disk: another
  one for --teacher NAME, a network of timm from a file for timm:NAME;
- a student is very small and 32 pixels wide; where weights would be downloaded, or the file is not there, it
  starts from a file that is there;
- a training has two epochs, a run of a sweep one;
- ``serve`` goes on in the background once it answers, and what is typed after it is typed in another terminal;
- ``torchrun`` starts two processes.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import click

STUDENT = "timm:test_resnet"
EPOCHS = "2"


# By what a set-up block calls it, where it lies in the world; what begins with a / is of the repository.
THINGS = {
    "photos": "photos",
    "pool": "pool",
    "lists": "list.csv",
    "cache": "cache",
    "run": "run",
    "model": "model",
    "episodes": "episodes",
    "recipe": "/distill/demo/demo.toml",
}
ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Be the program that is called."""
    program, *words = sys.argv[1:]
    world = Path(os.environ["DOC_WORLD"])
    if program == "have":
        copy(world, words[0], Path(words[1]))
    elif program == "torchrun":
        asked = re.sub(r"--nproc-per-node[= ]\S+", "--nproc-per-node=2", " ".join(words)).split(" ")
        sys.argv = ["torchrun", *asked]
        runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)
    else:
        words = changed(words, world)
        if words[:1] == ["serve"] and "--help" not in words:
            in_the_background([sys.executable, "-m", "cli", *words])
        else:
            sys.argv = ["distill", *words]
            from cli import main

            main(prog_name="distill")


def copy(world: Path, thing: str, place: Path) -> None:
    """Put a thing of the world at a place of the page's own."""
    where = THINGS[thing]
    source = ROOT / where[1:] if where.startswith("/") else world / where
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place)
        if thing == "run" and (own := Path("artifacts/photos")).is_dir():  # the page's own cache is its cache
            summary = place / "summary.json"
            summary.write_text(summary.read_text().replace(str(world / "cache"), str(own.resolve())))
    else:
        shutil.copy(source, place)


def changed(words: Sequence[str], world: Path) -> list[str]:
    """A command's words with those changed that the module's docstring lists."""
    name, options = command_of(words)
    words = [part for word in words for part in _halves(word)]
    if {"--help", "-h", "--plan", "--resume"} & {*words}:
        return words
    if "--pretrained" in options:
        words = _teacher(name, words, world)
    if {"--arch", "--start"} <= options:
        words = _student(words, world)
    if name == "sweep":
        own = "students" not in words and not any("student.arch" in word for word in words)
        small = ("train.epochs=1", "student.image_size=32", *([f"student.arch={STUDENT}"] if own else ()))
        words += [part for one in small for part in ("--set", one)]
    if "--epochs" in options and not {"--head-only", "--epochs"} & {*words} and "--shots" not in words:
        words += ["--epochs", EPOCHS]
    elif "--epochs" in words:
        words[words.index("--epochs") + 1] = EPOCHS
    return words


def command_of(words: Sequence[str]) -> tuple[str, set[str]]:
    """A command's name and its options."""
    import cli

    found: click.Command | None = cli.main
    context, name = click.Context(cli.main), []
    for word in words:
        if not isinstance(found, click.Group):
            break
        found = found.get_command(context, word)
        name.append(word)
    options = {option for param in found.params for option in param.opts} if found else set()
    return " ".join(name), options


def _halves(word: str) -> list[str]:
    found = re.match(r"(--(?:model|pretrained|teacher-model|arch|start|epochs|teacher))=(.*)", word)
    return [found[1], found[2]] if found else [word]


def _teacher(name: str, words: list[str], world: Path) -> list[str]:
    """Put a teacher on the disk in place of one on the web."""
    option = "--teacher-model" if "--teacher-model" in words else "--model"
    given = _value(words, option)
    if given and (".py:" in given or Path(given.removeprefix("local-dir:")).is_dir()):
        return words
    asks = name in ("cache-features", "robotics cache-features") or (
        name == "adapt" and "--cache" not in words
    )
    if not (given or asks or "--pretrained" in words):
        return words
    words = _without(_without(words, option), "--pretrained")
    if given and given.startswith("timm:"):
        return [*words, option, STUDENT, "--pretrained", str(world / "student.safetensors")]
    second = "--teacher" in words and name == "cache-features"
    return [*words, option, f"local-dir:{world / ('second' if second else 'teacher')}"]


def _student(words: list[str], world: Path) -> list[str]:
    """Put a small student in place of the one that is named, from a file where it would be downloaded."""
    arch, start, recipe = _value(words, "--arch"), _value(words, "--start"), _value(words, "--recipe")
    if arch and ".py:" in arch:
        return words
    scratch = start == "scratch" or not _is_pretrained(recipe)
    scratch = scratch or _of_episodes(words) or "--closed-set" in words
    words = _without(_without(words, "--arch"), "--start")
    words += ["--arch", STUDENT]
    if not scratch:
        words += ["--start", str(world / "student.safetensors")]
    elif start:
        words += ["--start", start if start == "scratch" else str(world / "student.safetensors")]
    if words[0] == "train":
        words = [*_without(words, "--image-size"), "--image-size", "32"]
    return words


def _is_pretrained(recipe: str | None) -> bool:
    if recipe and Path(recipe).is_file():
        return 'start = "pretrained"' in Path(recipe).read_text()
    return recipe in (None, "head-first", "pool")


def _of_episodes(words: list[str]) -> bool:
    file = Path(words[1]) / "manifest.json" if len(words) > 1 else Path()
    return file.is_file() and '"several_labels": true' in file.read_text()


def _value(words: list[str], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words else None


def _without(words: list[str], option: str) -> list[str]:
    if option not in words:
        return words
    at = words.index(option)
    return [*words[:at], *words[at + 2 :]]


def in_the_background(command: list[str]) -> None:
    """Start a server, and return when it answers; the page's end ends it."""
    # Not to the page's own streams, which would then never end.
    log = subprocess.DEVNULL
    process = subprocess.Popen(command, start_new_session=True, stdin=log, stdout=log, stderr=log)
    with open(os.environ["DOC_SERVERS"], "a") as servers:
        servers.write(f"{process.pid}\n")
    port = _value(command, "--port") or "8000"
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(process.returncode)
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"nothing answers at port {port}")


if __name__ == "__main__":
    main()
