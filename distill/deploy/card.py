"""The model card: README.md in Hugging Face's format, and the example script beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import printable
from distill.deploy.card_data import front_matter
from distill.deploy.card_pictures import RELIABILITY
from distill.deploy.info import ONNX, PROGRAM, WEIGHTS, ModelInfo
from distill.deploy.nearest_images import NEAREST_IMAGES
from distill.deploy.snippets import TFLITE_FILE, Snippets
from distill.deploy.vocabulary import LICENSE, ROWS, WORDS
from distill.headline import POOL_VAL, one_class_notes
from distill.judge.rejection import ACCEPTED, FAR

EXAMPLE = "classify.py"
MOST_NAMES = 60
ABOUT_FILES = {
    ONNX["float32"]: "ONNX, float32",
    ONNX["float16"]: "ONNX, float16 inside, float32 in and out",
    ONNX["int8"]: "ONNX, 8-bit weights and activations, calibrated on training images",
    PROGRAM: "torch.export program, float32",
    WEIGHTS: "the student's weights, float32",
    RELIABILITY: "how often answers of some probability are right, drawn",
    WORDS: "the words that `predict --open` chooses from",
    ROWS: "their rows by the teacher, 8 bits on principal axes",
    LICENSE: "of the words, which are WordNet's",
    "config.json": "what timm knows of `model.safetensors`",
    "open_clip_config.json": "what open_clip knows of the file below",
    "open_clip_model.safetensors": "the student and the teacher's text tower, as open_clip's CLIP",
    TFLITE_FILE: "LiteRT (TensorFlow Lite), float32",
    NEAREST_IMAGES: "some training images, small, with the teacher's embeddings; `distill serve` shows them",
}


def write_example(folder: Path) -> None:
    """Put the example script into a model's folder."""
    source = Path(__file__).parent / "templates" / EXAMPLE
    with replacing(folder / EXAMPLE) as temporary:
        shutil.copyfile(source, temporary)


def write_card(folder: Path, info: ModelInfo) -> None:
    """Write README.md."""
    # Markdown has no escaping of its own in jinja2: names go through ``plain`` and ``code``.
    environment = Environment(
        loader=PackageLoader("distill.deploy"), trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {
        "code": _code,
        "plain": _plain,
        "numbers": lambda values: f"({', '.join(f'{value:g}' for value in values)})",
        "digits": lambda value, digits: f"{value:.{digits}f}" if isinstance(value, int | float) else "",
        "count_of": _count_of,
    }
    card = environment.get_template("card.md").render(
        info=info,
        example=EXAMPLE,
        nearest_images=NEAREST_IMAGES,
        has_nearest_images=(folder / NEAREST_IMAGES).is_file(),
        about_files=ABOUT_FILES,
        most_names=MOST_NAMES,
        accepted=ACCEPTED,
        far=FAR,
        picture=RELIABILITY if RELIABILITY in info.files else "",
        notes=notes_on(info),
        snippets=Snippets.of(info),
        told=lambda name: any(name in n for m in info.measured.values() for n in m["splits"].values()),
        other_data={
            split: numbers["other_data"]
            for measured in info.measured.values()
            for split, numbers in measured["splits"].items()
            if "other_data" in numbers
        },
    )
    with replacing(folder / "README.md") as temporary:
        text = f"---\n{front_matter(info).strip()}\n---\n\n{card.strip()}\n"
        temporary.write_text(text, encoding="utf-8")


def notes_on(info: ModelInfo) -> list[str]:
    """Return a line for what the measured numbers cannot say: of one class, or of no test images."""
    measured = next(iter(info.measured.values()), None)
    if measured is None:
        return []
    splits: dict[str, dict[str, Any]] = measured["splits"]
    alone = {
        split: measured["classes"] > 1 for split, numbers in splits.items() if numbers.get("classes") == 1
    }
    notes = one_class_notes(alone)
    if "id_val" in splits:
        notes.append("id_val are images of the training set aside: the run had no test images")
    if "pool_val" in splits:
        notes.append(POOL_VAL)
    if "train" in splits:
        notes.append(
            "these are the training images: the run had no test images and set none aside, so that nothing "
            "says how good it is on others"
        )
    return notes


def _count_of(count: int, of: int) -> str:
    return f"{count:,}{f' of {of:,}' if of > count else ''}"


def _code(text: str) -> str:
    """Return a name as code, whatever is in it."""
    return f"`{printable(str(text)).replace('`', chr(39))}`"


def _plain(text: str) -> str:
    """Return a name so that neither Markdown nor HTML is made of it."""
    shown = printable(str(text)).replace("\\", "\\\\")
    for mark in "`*_[]<>|#":
        shown = shown.replace(mark, {"<": "&lt;", ">": "&gt;"}.get(mark, f"\\{mark}"))
    return shown
