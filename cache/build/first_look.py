"""What can be wrong with the data and the folders of a stage-1 run, looked at before a library is loaded.

Torch and a teacher take seconds to import: nobody waits for them to hear of a folder that is not there.
"""

from __future__ import annotations

from pathlib import Path

from cache.runtime.errors import UserError, WrongOption
from cache.runtime.torchrun import world_size
from cache.sources.class_texts import LABELS, class_names_of
from cache.sources.data import Given, check_used, open_data
from cache.sources.open_set import check_apart, check_trained
from cache.sources.samples import DataFolder
from cache.sources.source_options import SourceOptions
from cache.store.manifest import check_is_cache_or_empty
from cache.store.spec import LOCAL_DIR
from cache.teacher.kinds import open_clip_name
from cache.teacher.model_files import config_of

# Options that say how what another asks for is kept.
DETAILS = {
    "support_shots": "support_views",
    "views_scale": "views",
    "view_policy": "views",
    "store": "views",
    "pixels_format": "pixels",
}


def first_look(
    given: list[Given],
    out: Path,
    sources: SourceOptions,
    *,
    model: str,
    shared_classes: bool = False,
    label2text: Path | None = None,
    support_views: int = 0,
) -> DataFolder | None:
    """Return the splits of what is ``given``, which can be learnt from; None where torchrun started several.

    Of these one opens them for all, later.

    Raises
    ------
    UserError
        If there is nothing to learn from, a class is on both sides, ``out`` is a folder of something else, or
        there is no such teacher.
    """
    check_used(given, sources)
    if world_size() > 1:
        return None
    folder = open_data(given, sources)
    check_splits(folder, shared_classes=shared_classes, label2text=label2text, support_views=support_views)
    check_is_cache_or_empty(out)
    check_model(model)
    return folder


def check_support_views(number: int) -> None:
    """Refuse a number of views that would do nothing; WrongOption."""
    if number == 1:
        raise WrongOption("--support-views 1 is the plain row, which is kept anyway", fix="give 2 or more.")


def check_model(model: str) -> None:
    """Make sure that there may be a teacher of that name; UserError for no folder, and no name at all."""
    if model.startswith(LOCAL_DIR):
        config_of(model)
    elif ":" not in model:  # own code is looked at when it is run
        open_clip_name(model)


def check_splits(
    folder: DataFolder, *, shared_classes: bool, label2text: Path | None, support_views: int
) -> None:
    """Make sure that there is something to learn from, and that each class is on its own side."""
    if not folder.splits.keys() & {"train", "pool"}:
        raise UserError(
            f"{folder.path} has {' and '.join(folder.splits)} alone, and nothing to learn from",
            fix="add images of train or pool.",
        )
    check_trained(folder.path, folder.classes)
    if not shared_classes:
        labels = given_or_default(label2text, folder.path / LABELS)
        check_apart(folder, fix="add --shared-classes.", texts=class_names_of(labels, folder.class_names))
    if support_views > 1 and "ood_test" not in folder.splits:
        raise UserError(
            f"--support-views are for few-shot retrieval of OOD classes, and {folder.path} has none",
            fix="leave it out, or add images of classes that are not in train.",
        )


def given_or_default(given: Path | None, default: Path) -> Path | None:
    """Return a file that is given, or else one that is there; UserError where what is given is not."""
    if given is not None and not given.is_file():
        raise UserError(f"{given} does not exist", fix="check the path.")
    return given or (default if default.is_file() else None)
