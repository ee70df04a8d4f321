"""Judge a trained run's checkpoint on any split: what ``distill evaluate RUN`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache import EmbeddingCache
from cache.devices import choose_device
from cache.errors import CacheMismatch, UserError, nearest_names
from cache.images import ImageFolder, ImageRecord
from distill.augment import resize_size
from distill.checkpoint import read_checkpoint
from distill.config import from_toml, with_settings
from distill.data import join_training_rows
from distill.evaluate import SplitResult, evaluate, student_outputs
from distill.pixels import Pixels
from distill.session import classifier_for, output_size
from distill.students import build_student

CHECKPOINTS = ("last", "best")


def evaluate_run(
    run: Path,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    splits: Sequence[str] = (),
    checkpoint: str = "last",
    text: str | None = None,
    device: str = "auto",
) -> dict[str, SplitResult]:
    """Judge a run's student.

    Parameters
    ----------
    data_dir, cache_dir
        Where images and class texts are; left out, where the run found them.
    splits
        Names of splits (either name, or ``id_val``); none means every test split of the data.
    checkpoint
        ``last`` or ``best`` (there is one only where ``data.id_val`` was on).
    text
        Another text bank than the run's own.

    Raises
    ------
    UserError
        If the run, its data or its cache is missing, or the cache is of another teacher.
    """
    where = choose_device(device)
    state = read_checkpoint(_checkpoint_file(run, checkpoint), device=where)
    config = from_toml(state["config"], where=str(run))
    if text:
        config = with_settings(config, [f'text="{text}"'])
    cache = EmbeddingCache.open(cache_dir or Path(state["cache_dir"]))
    if cache.fingerprint != state["fingerprint"]:
        raise CacheMismatch(
            f"{run} was trained with the cache {state['fingerprint']}, {cache.path} is {cache.fingerprint}",
            fix="give the run's own cache with --cache.",
        )
    folder = ImageFolder.scan(data_dir or Path(state["data_dir"]), require=())
    if config.train.baseline and list(folder.class_names) != state["all_classes"]:
        raise CacheMismatch(
            f"the classes of {folder.path} are not those that {run} was trained to tell apart",
            fix="give the run's own data folder with --data.",
        )
    student = build_student(
        config.student.arch,
        embed_dim=output_size(config, cache, folder.class_names),
        image_size=config.student.image_size,
    ).to(where)
    student.load_state_dict(state["student"])
    results = {}
    for name, images, class_names in _wanted(folder, cache, splits, config.data.id_val):
        pixels = Pixels(
            images,
            resize_size(config.student.image_size),
            memory=0,
            workers=config.data.workers,
            strict=False,
        )
        outputs = student_outputs(
            student,
            pixels,
            image_size=config.student.image_size,
            batch_size=config.train.eval_batch_size,
            device=where,
        )
        classifier = classifier_for(config, cache, folder.class_names, class_names)
        results[name] = evaluate(
            outputs, classifier, split=name, class_names=class_names, unreadable=pixels.unreadable
        )
    return results


def _checkpoint_file(run: Path, checkpoint: str) -> Path:
    if checkpoint not in CHECKPOINTS:
        raise UserError(
            f"no checkpoint is called {checkpoint!r}",
            fix=f"{nearest_names(checkpoint, CHECKPOINTS)}choose from {', '.join(CHECKPOINTS)}.",
        )
    return run / f"{checkpoint}.pt"


def _wanted(
    folder: ImageFolder, cache: EmbeddingCache, splits: Sequence[str], id_val: float
) -> list[tuple[str, tuple[ImageRecord, ...], tuple[str, ...]]]:
    names = list(splits) or [name for name in folder.splits if name != "train"]
    wanted: list[Any] = []
    for name in names:
        if name == "id_val":
            images = join_training_rows(cache, folder, id_val=id_val).id_val
            if not images:
                raise UserError("the run set no id_val aside", fix="train with --set data.id_val=0.1.")
            wanted.append(("id_val", images, folder.split("train").class_names))
        else:
            split = folder.split(name)
            wanted.append((split.name, split.images, split.class_names))
    return wanted
