"""A planned split -> the data folder ``DATA/{train,val_on_train,val}/CLASS/FILE`` and its record.

``split.json`` is written last, so a folder that has one is whole. While the images are being placed,
``split.unfinished.json`` says whose they are, so that the same command can go on after it was killed.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import digest, remove_temporaries, replacing, write_json
from cache.runtime.errors import CacheMismatch, UserError, unwritable
from cache.runtime.progress import Progress
from cache.sources.class_texts import DESCRIPTIONS, LABELS, class_names_of, read_descriptions
from cache.sources.data import open_data
from cache.sources.splits import FOLDERS

RECORD, UNFINISHED = "split.json", "split.unfinished.json"
SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """Which image goes where, before anything is written.

    ``images`` is ``{split: {CLASS/FILE: the image's path below root}}``; ``settings`` is what the user
    asked for, and ``texts`` the folder whose label2text.txt and chatgpt.txt are taken along.
    """

    root: Path
    images: dict[str, dict[str, str]]
    settings: dict[str, Any]
    texts: Path
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()

    def classes(self, split: str) -> set[str]:
        """Return the class folders of one split."""
        return {key.split("/")[0] for key in self.images[split]}

    @property
    def all_classes(self) -> list[str]:
        """Every class folder of every split, sorted, once."""
        return sorted(set().union(*(self.classes(split) for split in self.images)))


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """What a split holds, and how many of its images this call placed (the others were there)."""

    out: Path
    way: str
    images: dict[str, int]
    classes: dict[str, int]
    copied: bool
    placed: int
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the summary as lines of text; of missing and surplus images the first few are named."""
        how = "copied" if self.copied else "linked"
        lines = [
            f"{split}: {count:,} images of {self.classes[split]:,} classes"
            for split, count in self.images.items()
        ]
        lines.append(f"{how}: {self.placed:,} ({sum(self.images.values()) - self.placed:,} were there)")
        if self.missing:
            lines.append(f"missing, left out: {first_few(self.missing)}")
        if self.surplus:
            lines.append(f"surplus, not used: {first_few(self.surplus)}")
        return lines


def first_few(names: tuple[str, ...] | list[str]) -> str:
    """Return the number of names and the first of them."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names):,} ({', '.join(names[:SHOWN])}{more})"


def refuse_overlap(source: Path, root: Path, out: Path) -> None:
    """Refuse an ``out`` that would put images among those that are being split."""
    source, root, target = source.resolve(), root.resolve(), out.resolve()
    if target.is_relative_to(root) or source.is_relative_to(target):
        raise UserError(
            f"the new data folder {out} and the images in {root} lie within each other",
            fix="give --out another folder.",
        )


def write_split(plan: SplitPlan, out: Path, *, copy: bool, progress: Progress) -> SplitSummary:
    """Place the images of ``plan`` below ``out``, check them, and write the record.

    Raises
    ------
    UserError
        Before anything is written, if the plan breaks a rule of the layout or ``out`` holds something
        else. Afterwards, if the folder does not hold what was planned.
    """
    _check_plan(plan)
    settings = plan.settings | {"copy": copy, "plan": digest(plan.images)}
    _check_out(out, settings)
    if not (out / RECORD).exists():
        write_json(out / UNFINISHED, settings)
    remove_temporaries(out, below=True)
    placed = _place(plan, out, copy=copy, progress=progress)
    _write_texts(plan, out)
    _check_written(plan, out)
    summary = SplitSummary(
        out=out,
        way=plan.settings["way"],
        images={split: len(images) for split, images in plan.images.items()},
        classes={split: len(plan.classes(split)) for split in plan.images},
        copied=copy,
        placed=placed,
        missing=plan.missing,
        surplus=plan.surplus,
    )
    parts = ("images", "classes", "missing", "surplus")
    record = {"settings": settings, **{name: getattr(summary, name) for name in parts}}
    # Surplus images may come and go beside a split that stays the same; then the record follows.
    if _read_record(out / RECORD) != json.loads(json.dumps(record)):
        write_json(out / RECORD, record)
    (out / UNFINISHED).unlink(missing_ok=True)
    return summary


def _check_plan(plan: SplitPlan) -> None:
    for split in ("train", "ood_test"):
        if not plan.images[split]:
            raise UserError(
                f"no image is left for {split} ({FOLDERS[split]}/)", fix="check the source and the settings."
            )
    both = sorted(plan.classes("train") & plan.classes("ood_test"))
    if both:
        raise UserError(
            f"classes are in train/ and in val/: {first_few(both)}",
            fix="leave each class on one side: val/ holds classes that are never trained on.",
        )
    untrained = sorted(plan.classes("id_test") - plan.classes("train"))
    if untrained:
        raise UserError(
            f"classes are in val_on_train/ but not in train/: {first_few(untrained)}",
            fix="val_on_train/ holds other images of the classes in train/.",
        )
    for split, images in plan.images.items():
        by_stem: dict[str, str] = {}
        for key in images:
            other = by_stem.setdefault(key.rpartition(".")[0], key)
            if other != key:
                raise UserError(
                    f"two images of {split} have one name but for the ending: {other} and {key}",
                    fix="rename or remove one of them.",
                )
    labels, descriptions = plan.texts / LABELS, plan.texts / DESCRIPTIONS
    names = class_names_of(labels if labels.is_file() else None, plan.all_classes)
    if descriptions.is_file():
        read_descriptions(descriptions, names, required=plan.all_classes)


def _check_out(out: Path, settings: dict[str, Any]) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", fix="give --out a folder.")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if (out / RECORD).exists():
        before = (_read_record(out / RECORD) or {}).get("settings")
    else:
        before = _read_record(out / UNFINISHED)
    if not isinstance(before, dict):
        raise UserError(
            f"{out} is not empty and is not a split that distill made",
            fix="give --out a new or empty folder.",
        )
    changed = [
        f"{name} ({before.get(name, 'not set')} -> {settings.get(name, 'not set')})"
        for name in settings | before
        if before.get(name) != settings.get(name)
    ]
    if changed:
        raise CacheMismatch(
            f"{out} holds another split; changed: {', '.join(changed)}",
            fix="give --out a new folder, or remove the old one ('plan' is the names of the images).",
        )


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return a record, or None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _place(plan: SplitPlan, out: Path, *, copy: bool, progress: Progress) -> int:
    root = plan.root.resolve()
    wanted = [
        (root / path, out / FOLDERS[split] / key)
        for split, images in plan.images.items()
        for key, path in images.items()
    ]
    todo = [(image, target) for image, target in wanted if not _is_placed(image, target, copy=copy)]
    progress.start(len(todo))
    for image, target in todo:
        if copy:
            # A copy appears by a rename: a killed one leaves no half image under a whole one's name.
            with replacing(target) as temporary:
                shutil.copy2(image, temporary)
        else:
            _link(image, target)
        progress.advance(1)
    return len(todo)


def _is_placed(image: Path, target: Path, *, copy: bool) -> bool:
    if target.is_symlink():
        return not copy and os.readlink(target) == str(image)
    return copy and target.is_file() and target.stat().st_size == image.stat().st_size


def _link(image: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(image)
    except OSError as error:
        raise UserError(
            f"{target} could not be made a link ({error.strerror or error})",
            fix="check that you can write there; where the disk has no links, --copy makes copies.",
        ) from error


def _write_texts(plan: SplitPlan, out: Path) -> None:
    """Take the texts along, but never over a file that is there: the user may have improved the names."""
    try:
        for name in (LABELS, DESCRIPTIONS):
            if (plan.texts / name).is_file() and not (out / name).exists():
                with replacing(out / name) as temporary:
                    shutil.copyfile(plan.texts / name, temporary)
    except OSError as error:
        raise unwritable(out, error) from error
    if plan.settings["way"] != "lists" and not (out / LABELS).exists():
        lines = [
            f"{folder} {i} {folder.replace(' ', '_')}\n" for i, folder in enumerate(plan.all_classes, start=1)
        ]
        with replacing(out / LABELS) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def _check_written(plan: SplitPlan, out: Path) -> None:
    splits = open_data([out]).splits
    for split, images in plan.images.items():
        written = {image.key for image in splits[split].all()} if split in splits else set()
        odd = sorted(written ^ set(images))
        if odd:
            raise UserError(
                f"{out / FOLDERS[split]} does not hold what was planned: {first_few(odd)}",
                fix="remove what does not belong there, or the whole folder, and run again.",
            )
