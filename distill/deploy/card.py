"""The model card: README.md in Hugging Face's format, and the example script beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import printable
from distill.deploy.check import ACCEPTED
from distill.deploy.info import GRAPH, ONNX, ModelInfo, Reject
from distill.deploy.neighbours import NEIGHBOURS

EXAMPLE = "classify.py"
_MANY = 60


def write_example(folder: Path) -> None:
    """Put the example script into a model's folder."""
    source = Path(__file__).parent / "templates" / EXAMPLE
    with replacing(folder / EXAMPLE) as temporary:
        shutil.copyfile(source, temporary)


def write_card(folder: Path, info: ModelInfo) -> None:
    """Write README.md."""
    parts = [
        "---",
        *_front_matter(info),
        "---",
        "",
        f"# {_plain(info.name)}",
        "",
        *_about(info),
        *_use(folder, info),
        *_measured(info),
        *_classes(info),
        *_made(info),
        *_limits(folder, info),
    ]
    with replacing(folder / "README.md") as temporary:
        temporary.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _front_matter(info: ModelInfo) -> Iterator[str]:
    # JSON strings are YAML strings, whatever a name or licence holds.
    library = "onnx" if info.precisions else "pytorch"
    yield f"license: {json.dumps(info.license)}"
    yield f"library_name: {library}"
    yield "pipeline_tag: zero-shot-image-classification"
    yield "tags:"
    for tag in ("distill", "clip", "distillation", "open-vocabulary", library):
        yield f"- {tag}"
    yield "metrics:"
    yield "- accuracy"
    found = next(iter(info.measured.values()), None)
    if found is None:
        return
    yield "model-index:"
    yield f"- name: {json.dumps(info.name)}"
    yield "  results:"
    for split, numbers in found["splits"].items():
        yield "  - task:"
        yield "      type: zero-shot-image-classification"
        yield "    dataset:"
        yield f"      name: {json.dumps(_data_name(info))}"
        yield "      type: imagefolder"
        yield f"      split: {split}"
        yield "    metrics:"
        for name, called in (
            ("all_accuracy", f"all {found['classes']} classes"),
            ("accuracy", f"the split's own {numbers['classes']} classes"),
        ):
            yield "    - type: accuracy"
            yield f"      name: macro accuracy among {called}, percent"
            yield f"      value: {numbers[name]:.2f}"


def _data_name(info: ModelInfo) -> str:
    return str(info.source.get("data") or "the run's data")


def _about(info: ModelInfo) -> Iterator[str]:
    teacher = info.source["teacher"]
    yield (
        f"A small open-vocabulary image classifier: {_code(info.arch)}, {info.parameters / 1e6:.1f} "
        f"million parameters, distilled from {_teacher(teacher)}. An image becomes a unit embedding of "
        f"{info.embed_dim} numbers, which is compared with the teacher's embeddings of any class texts: "
        "classes can be changed when it is used, without training."
    )
    yield ""


def _teacher(teacher: dict[str, Any]) -> str:
    pretrained = f", {_plain(teacher['pretrained'])}" if teacher.get("pretrained") else ""
    return f"{_code(teacher['model'])}{pretrained}"


def _use(folder: Path, info: ModelInfo) -> Iterator[str]:
    steps = info.preprocessing
    yield from ("## Use", "")
    if info.precisions:
        yield from ("    pip install onnxruntime numpy pillow", f"    python {EXAMPLE} photo.jpg", "")
        yield (
            f"`{EXAMPLE}` is the whole of it. With the package: `distill predict`, `distill serve` and "
            "`distill texts` on this folder."
        )
        yield ""
    if steps.where == GRAPH:
        yield (
            "The graph takes `image` uint8 [B, H, W, 3], RGB of any size, and does the preprocessing "
            f"itself: squash to {steps.resize} x {steps.resize} (bilinear, antialiased), the middle "
            f"{steps.crop} x {steps.crop}, ImageNet's mean and deviation."
        )
    else:
        yield (
            f"The model takes `image` float32 [B, 3, {steps.crop}, {steps.crop}]: RGB squashed to "
            f"{steps.resize} x {steps.resize} (bilinear), the middle {steps.crop} x {steps.crop}, scaled "
            f"to 0..1, less {_numbers(steps.mean)}, divided by {_numbers(steps.std)}."
        )
    yield (
        f"It returns `embedding` [B, {info.embed_dim}], rows of length 1; the cosine with a text's row, "
        f"divided by {info.temperature:g}, is its logit."
    )
    yield ""
    yield from ("| file | what it is |", "|---|---|")
    for name in sorted(info.files):
        what = _FILES.get(
            name, "class texts: labels, classes, texts, unit embeddings" if name.startswith("texts/") else ""
        )
        yield f"| {_code(name)} | {what} |"
    yield "| `model.json` | all of this for programs |"
    yield ""


_FILES = {
    ONNX["float32"]: "ONNX, float32",
    ONNX["float16"]: "ONNX, float16 inside, float32 in and out",
    ONNX["int8"]: "ONNX, 8-bit weights and activations, calibrated on training images",
    "model.pt2": "torch.export program, float32",
    "model.safetensors": "the student's weights, float32",
    NEIGHBOURS: "some training images, small, with the teacher's embeddings; `distill serve` shows them",
}


def _measured(info: ModelInfo) -> Iterator[str]:
    yield from ("## Measured", "")
    count = next((found["classes"] for found in info.measured.values()), 0)
    yield (
        f"Macro accuracy in percent among all {count} classes of the text bank {_code(info.bank)}, which is "
        "what an image is given unless other labels are asked for; beside it among each split's own classes "
        "alone. On the CPU; beside the student that each file was made from, on the same images."
    )
    yield ""
    heads = ["file", "MB", "split", "images", f"all {count} classes", "student's", "own classes", "student's"]
    heads += ["top 5 of all", "ECE of all", "cosine to the student, mean (least)", "largest difference"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name, found in info.measured.items():
        for split, n in found["splits"].items():
            yield (
                f"| {name} | {found['bytes'] / 1e6:.1f} | {split} | {_images(n)} | {n['all_accuracy']:.1f} | "
                f"{n['student_all_accuracy']:.1f} | {n['accuracy']:.1f} ({n['classes']}) | "
                f"{n['student_accuracy']:.1f} | {_if_there(n.get('all_top5_accuracy'), 1)} | "
                f"{_if_there(n.get('all_ece'), 3)} | {n['cosine_mean']:.4f} ({n['cosine_least']:.4f}) | "
                f"{n['largest_difference']:.1e} |"
            )
    yield ""
    splits = {split: n for found in info.measured.values() for split, n in found["splits"].items()}
    for split, n in splits.items():
        if "other_data" in n:
            yield from (f"**{split} is not what the run was judged on**: {_plain(n['other_data'])}.", "")
    for name in info.unlike:
        yield from (f"**Warning: {info.warning(name)}.**", "")
    for name, found in info.measured.items():
        if "photos" in found:
            by = ", ".join(f"{least:.4f} in {one}" for one, least in found["photos"]["least_cosine"].items())
            yield (
                f"- {name}: the preprocessing in the graph, on {found['photos']['images']} raw photos of "
                f"{found['photos']['sizes']} sizes, against Pillow's: least cosine {by}."
            )
    for name, found in info.measured.items():
        yield from _both_kinds(name, found, info.reject.get(name))
    yield ""


def _images(numbers: dict[str, Any]) -> str:
    sample = f" of {numbers['of']:,}" if numbers["of"] > numbers["images"] else ""
    return f"{numbers['images']:,}{sample}"


def _if_there(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _both_kinds(name: str, found: dict[str, Any], reject: Reject | None) -> Iterator[str]:
    """Say what ID and OOD images have together, and how well "none of these" does."""
    if "all_harmonic_mean" in found:
        yield f"- {name}: harmonic mean of ID and OOD among all classes {found['all_harmonic_mean']:.1f}%."
    if reject is None:
        return
    aside = (
        "training images set aside"
        if reject.set_on == "id_val"
        else "**the very test images**, because the run set no id_val aside (`data.id_val`)"
    )
    yield (
        f'- {name}: "none of these" (`--reject`) is said below a cosine of {reject.cosine:.3f}, which '
        f"{ACCEPTED:.0%} of the {reject.set_on} images reach among the ID classes: {aside}."
    )
    for split, numbers in found["splits"].items():
        yield (
            f"- {name}: of {split} {100 - numbers['rejected']:.1f}% are kept and {numbers['rejected']:.1f}% "
            "rejected with the ID classes as the only labels; with all classes "
            f"{numbers['all_rejected']:.1f}% are rejected."
        )
    if reject.auroc is not None:
        weak = "; **near chance or worse: do not rely on `--reject`**" if reject.near_chance else ""
        yield (
            f"- {name}: AUROC of ID against OOD images by their best cosine with an ID class "
            f"{reject.auroc:.3f} (95% interval {reject.low:.3f} to {reject.high:.3f}){weak}."
        )


def _classes(info: ModelInfo) -> Iterator[str]:
    yield from ("## Classes", "")
    for title, names in (
        ("Trained on (ID)", info.id_classes),
        ("Never trained on, judged on (OOD)", info.ood_classes),
    ):
        if names:
            more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
            yield f"- {title}, {len(names)}: {', '.join(map(_plain, names[:_MANY]))}{more}"
    yield f"- Text banks: {', '.join(f'{_code(name)}' for name in info.banks)}"
    yield ""


def _made(info: ModelInfo) -> Iterator[str]:
    source = info.source
    run = _code(source["run"])
    yield from ("## How it was made", "")
    yield f"By distill {source['distill']}, from the run {run} (checkpoint {source['checkpoint']})"
    yield f"and a cache of the teacher with fingerprint `{source['fingerprint']}`. The run's settings:"
    yield ""
    yield from ("```toml", source["config"].rstrip().replace("```", "'''"), "```", "")


def _limits(folder: Path, info: ModelInfo) -> Iterator[str]:
    yield from ("## Limits", "")
    yield (
        "It knows of the world what its training images and the teacher's texts show. On classes it never "
        "saw it is worse than on those it did, above all where both kinds compete; the table says how much "
        "on this data. Scores are no calibrated probabilities (ECE), and change with the class set."
    )
    if (folder / NEIGHBOURS).is_file():
        yield (
            f"`{NEIGHBOURS}` holds small copies of training images: remove that file where these may not "
            "be passed on (or export with `--neighbours 0`)."
        )
    yield (
        f"Licence: {_plain(info.license)}. The licences of the teacher's weights and of the images may say "
        "more."
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _code(text: str) -> str:
    """Return a name as code, whatever is in it."""
    return f"`{printable(str(text)).replace('`', chr(39))}`"


def _plain(text: str) -> str:
    """Return a name so that neither Markdown nor HTML is made of it."""
    shown = printable(str(text)).replace("\\", "\\\\")
    for mark in "`*_[]<>|#":
        shown = shown.replace(mark, {"<": "&lt;", ">": "&gt;"}.get(mark, f"\\{mark}"))
    return shown
