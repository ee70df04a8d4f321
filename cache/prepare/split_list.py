"""A planned split -> a list that ``cache-features`` takes: ``path,label,split,key``, a line an image.

Nothing is copied and nothing linked: a path leads from the list's folder to the image where it lies.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import CacheMismatch, UserError, WrongOption, unwritable
from cache.sources.class_texts import DESCRIPTIONS, LABELS, class_names_of, read_descriptions
from cache.sources.splits import POOL

HEADER = ("path", "label", "split", "key")
ENDING = ".csv"
SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """Which image goes where, before anything is written.

    ``images`` is ``{split: {key: the image's path below root}}``, a key's first part its class but in
    the pool; ``texts`` is the folder whose label2text.txt and chatgpt.txt are taken along. ``left_out`` are
    lines on what is in no split.
    """

    root: Path
    images: Mapping[str, Mapping[str, str]]
    texts: Path
    left_out: tuple[str, ...] = ()

    def classes(self, split: str) -> set[str]:
        """Return the classes of one split; of the pool none."""
        return set() if split == POOL else {key.partition("/")[0] for key in self.images[split]}

    @property
    def all_classes(self) -> list[str]:
        """Every class of every split, sorted, once."""
        return sorted(set().union(*(self.classes(split) for split in self.images)))


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """What a split holds; ``left_out`` are lines on what is in none."""

    out: Path
    images: dict[str, int]
    classes: dict[str, int]
    left_out: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the summary as lines of text."""
        counts = [
            f"{split}: {count:,} images" + ("" if split == POOL else f" of {self.classes[split]:,} classes")
            for split, count in self.images.items()
        ]
        return [
            *counts,
            *(f"left out: {line}" for line in self.left_out),
            f"next: distill cache-features {self.out}",
        ]


def first_few(names: Sequence[str]) -> str:
    """Return the number of names and the first of them."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names):,} ({', '.join(names[:SHOWN])}{more})"


def write_split(plan: SplitPlan, out: Path) -> SplitSummary:
    """Write the list of a plan; one that is there already and says the same stays as it is.

    Raises
    ------
    UserError
        Before anything is written, if the plan leaves a side empty or mixes them, or ``out`` is something
        else.
    """
    if out.suffix.lower() != ENDING and not out.exists():
        raise WrongOption(
            f"--out {out} is not called as a list",
            fix=f"give it the ending {ENDING}: {out.with_suffix(ENDING)}.",
        )
    _check_plan(plan, out.parent)
    text = "".join(_lines(plan, out.parent))
    raw = text.encode("utf-8", "surrogateescape")
    if out.exists() and (out.is_dir() or out.read_bytes() != raw):
        raise CacheMismatch(
            f"{out} is there, and is not this split",
            fix="give --out another name, or take the old one away.",
        )
    try:
        if not out.exists():
            with replacing(out) as temporary:
                temporary.write_bytes(raw)
        _take_texts(plan.texts, out.parent)
    except OSError as error:
        raise unwritable(out, error) from error
    return SplitSummary(
        out=out,
        images={split: len(images) for split, images in plan.images.items()},
        classes={split: len(plan.classes(split)) for split in plan.images},
        left_out=plan.left_out,
    )


def _check_plan(plan: SplitPlan, folder: Path) -> None:
    for split in ("train", "ood_test"):
        if not plan.images[split]:
            raise UserError(f"no image is left for {split}", fix="check the source and the settings.")
    both = sorted(plan.classes("train") & plan.classes("ood_test"))
    if both:
        raise UserError(
            f"classes are in train and in ood_test: {first_few(both)}",
            fix="leave each class on one side: ood_test holds classes that are never trained on.",
        )
    untrained = sorted(plan.classes("id_test") - plan.classes("train"))
    if untrained:
        raise UserError(
            f"classes are in id_test but not in train: {first_few(untrained)}",
            fix="id_test holds other images of the classes in train.",
        )
    # What lies beside the list is never written over, and is what the next command finds.
    labels, descriptions = (_one_of(folder / name, plan.texts / name) for name in (LABELS, DESCRIPTIONS))
    names = class_names_of(labels, plan.all_classes)
    if descriptions:
        read_descriptions(descriptions, names, required=plan.all_classes)


def _one_of(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _lines(plan: SplitPlan, folder: Path) -> Iterator[str]:
    root, below = plan.root.resolve(), folder.resolve()
    # From a list beside or above the images they are found by how they lie to each other, wherever both are.
    prefix = os.path.relpath(root, below) if root.is_relative_to(below) else str(root)
    prefix = "" if prefix == "." else f"{prefix}/"
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    for split, images in plan.images.items():
        writer.writerows(
            (prefix + path, "" if split == POOL else key.partition("/")[0], split, key)
            for key, path in images.items()
        )
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _take_texts(texts: Path, folder: Path) -> None:
    """Take the texts along, but never over a file that is there: the user may have improved the names."""
    for name in (LABELS, DESCRIPTIONS):
        if (texts / name).is_file() and not (folder / name).exists():
            with replacing(folder / name) as temporary:
                shutil.copyfile(texts / name, temporary)
