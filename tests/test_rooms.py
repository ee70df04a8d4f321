"""The house: every import runs one way, nothing goes in a circle, every heavy library has one door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

# From the ground up: a file imports files of its own room and of rooms before it.
ROOMS = [
    "cache.runtime",
    "cache.sources",
    "cache.prepare",
    "cache.store",
    "cache.reader",
    "cache",
    "cache.changed_images",
    "cache.teacher",
    "cache.build",
    "cache.maintain",
    *(
        f"distill.{name}"
        for name in (
            "config_fields",
            "config_checks",
            "config_data",
            "config",
            "settings",
            "spread",
            "headline",
            "data_identity",
        )
    ),
    *(
        f"distill.{name}"
        for name in ("losses", "objective", "metrics", "tip_adapter", "precision", "checkpoint")
    ),
    *(f"distill.{name}" for name in ("record", "data", "student", "robotics", "judge", "train", "fewshot")),
    *(f"distill.{name}" for name in ("sweep", "report", "deploy", "adapt", "demo", "recipes", "doctor")),
    "distill.api",
    "distill",
    "distill.commands",
    "cli",
]
# It imports the package as it was before row groups, of which a benchmark makes a checkout.
OF_A_CHECKOUT = ROOT / "scripts" / "benchmarks" / "cache_before.py"
# Rooms that stand beside others, and do without them.
NEVER = {
    "cache.prepare": {"cache.store", "cache.reader", "cache", "cache.teacher"},
    "cache.store": {"cache.prepare"},
    "cache.reader": {"cache.prepare", "cache.teacher"},
    "cache.build": {"cache.prepare"},
    "cache.maintain": {"cache.prepare"},
}
DOORS = {
    "open_clip": {
        f"cache/teacher/{name}.py"
        for name in (
            "open_clip_teacher",
            "templates",
            "open_clip_texts",
            "tokenizers",
            "weight_files",
            "weights",
        )
    },
    "faiss": {"cache/store/neighbours.py"},
    "fsspec": {"cache/sources/remote_files.py"},
    "aiohttp": {"cache/sources/remote_files.py"},
    "click": {"cli.py", "distill/commands/", "scripts/reference/commands.py"},
    "torchvision": {"cache/runtime/torchvision_compat.py"},
    "openai": {"cache/prepare/describe.py"},
    "transformers": {"cache/prepare/captioner.py", "cache/runtime/hub_models.py"},
    "jinja2": {"distill/report/page.py", "distill/deploy/card.py", "distill/deploy/docs_page.py"},
    "ray": {"cache/runtime/ray_pool.py"},
    "wandb": {"distill/record/wandb_board.py"},
    "mlflow": {"distill/record/mlflow_board.py"},
    "mpmath": {"distill/report/statistics.py"},
    "pyarrow": {
        "cache/sources/arrow_files.py",
        "distill/deploy/row_files.py",  # which writes parquet
        "scripts/benchmarks/sources.py",  # which writes parquet to be read
    },
    "huggingface_hub": {
        *("distill/deploy/card_data.py", "distill/deploy/push.py", "distill/student/first_weights.py"),
        *(f"cache/{name}.py" for name in ("runtime/downloads", "teacher/fetched", "teacher/model_files")),
    },
    "onnx": {"distill/deploy/onnx_files.py"},
    "onnxscript": {"distill/deploy/onnx_files.py"},
    "onnxruntime": {
        "distill/deploy/onnx_door.py",
        "distill/deploy/int8_file.py",
        "distill/deploy/onnx_files.py",
        "distill/deploy/templates/classify.py",
    },
    "ai_edge_litert": {"distill/deploy/tflite_file.py"},
    "litert_torch": {"distill/deploy/tflite_file.py"},
    "fastapi": {"distill/deploy/app.py"},
    "uvicorn": {"distill/deploy/serve.py", "distill/deploy/connections.py"},
}


def files() -> dict[str, Path]:
    """Every module of the program by its name."""
    paths = [*ROOT.glob("cache/**/*.py"), *ROOT.glob("distill/**/*.py"), *ROOT.glob("cli.py")]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


@cache
def names_in(path: Path) -> tuple[list[tuple[str, str]], set[str]]:
    """Every (module, name) that a file imports and every name that it makes, wherever in it."""
    imported: list[tuple[str, str]] = []
    made: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported += ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
    return imported, made


def imports_of(path: Path) -> list[tuple[str, str]]:
    return names_in(path)[0]


def made_in(path: Path) -> set[str]:
    return names_in(path)[1]


@pytest.fixture(scope="module")
def edges() -> dict[str, set[str]]:
    """Which of our modules each of them imports."""
    ours = files()
    full = {
        name: {
            f"{module}.{what}" if f"{module}.{what}" in ours else module for module, what in imports_of(path)
        }
        for name, path in ours.items()
    }
    return {name: {other for other in others if other in ours} - {name} for name, others in full.items()}


def room_of(module: str) -> str:
    return next(room for room in sorted(ROOMS, key=len, reverse=True) if f"{module}.".startswith(f"{room}."))


def test_imports_run_one_way(edges):
    wrong = [
        f"{name} imports {other}"
        for name, others in edges.items()
        for other in others
        for room, from_room in [(room_of(name), room_of(other))]
        if ROOMS.index(from_room) > ROOMS.index(room) or from_room in NEVER.get(room, ())
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle(edges):
    left = {name: set(others) for name, others in edges.items()}
    while apart := {n for n, others in left.items() if not others or n not in set().union(*left.values())}:
        left = {name: others - apart for name, others in left.items() if name not in apart}
    assert left == {}


def test_a_training_process_never_loads_the_teacher(edges):
    trains = (
        "distill.data",
        "distill.student",
        "distill.robotics",
        "distill.judge",
        "distill.train",
        "distill.fewshot",
        "distill.sweep",
    )
    images = (
        *("cache.teacher.load", "cache.teacher.teacher", "cache.teacher.open_clip_teacher"),
        *("cache.teacher.weight", "cache.build"),
    )
    wrong = [
        f"{name} imports {other}"
        for name, others in edges.items()
        for other in others
        if name.startswith(trains) and other.startswith(images)
    ]
    assert wrong == []


def test_what_is_listed_and_what_lies_on_the_disk_is_read_without_torch():
    rooms = ("cache.sources", "cache.store", "cache.reader")
    modules = [name for name in files() if name.startswith(rooms)]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, len(modules) > 20) == ("False\n", True), done.stderr


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_has_one_door(library):
    through = {
        str(path.relative_to(ROOT))
        for path in [*files().values(), *ROOT.glob("scripts/**/*.py")]
        if any(module.partition(".")[0] == library for module, _ in imports_of(path))
    }
    doors = DOORS[library]
    assert through
    assert {name for name in through if not name.startswith(tuple(doors))} == set()


@pytest.mark.parametrize("room", [name for name, path in files().items() if path.name == "__init__.py"])
def test_a_room_names_its_files(room):
    door = files()[room]
    named = set(re.findall(r"[a-z0-9_]+", ast.get_docstring(ast.parse(door.read_text()))))
    assert [path.name for path in door.parent.glob("*.py") if path.stem not in {*named, "__init__"}] == []


def test_names_are_imported_from_where_they_are_made():
    ours = {name: path for name, path in files().items() if path.name != "__init__.py"}
    made = {name: made_in(path) for name, path in ours.items()}
    wrong = [
        f"{path.relative_to(ROOT)} takes {what} from {module}"
        for path in [*files().values(), *ROOT.glob("tests/**/*.py"), *ROOT.glob("scripts/**/*.py")]
        if path != OF_A_CHECKOUT
        for module, what in imports_of(path)
        if what and module in ours and what not in made[module]
    ]
    assert wrong == []


def test_what_docstrings_refer_to_is_there():
    ours, wrong = files(), []
    made = {name: made_in(path) for name, path in ours.items()}
    made["distill"] |= {what for _, what in imports_of(ours["distill"])}  # the names that it offers
    for module, path in ours.items():
        here = {*made[module], *(what for _, what in imports_of(path))}
        for role, target in re.findall(r":(\w+):`~?([\w.]+)`", path.read_text()):
            home = next(
                (m for m in sorted(ours, key=len, reverse=True) if f"{target}.".startswith(f"{m}.")), ""
            )
            inside = target.removeprefix(home).strip(".").split(".")
            if role == "mod":
                is_there = target in ours
            else:
                is_there = not target.startswith(("cache.", "distill.")) or inside[-1] in made[home]
                is_there &= bool(home) or inside[0] in here
            wrong += [] if is_there else [f"{path.relative_to(ROOT)}: {target}"]
    assert wrong == []
