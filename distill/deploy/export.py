"""A trained run -> a folder that stands alone: what ``distill export`` calls."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError, WrongOption, nearest_names
from cache.runtime.locks import only_writer_of_file
from cache.runtime.progress import Progress, Silent
from cache.runtime.system_errors import write_error
from cache.sources.episodes import EpisodeFolder
from cache.store.spec import in_words
from distill.data.augment import IMAGENET_MEAN, IMAGENET_STD, resize_size
from distill.data.frames import mean_and_deviation
from distill.deploy.card import write_card, write_example
from distill.deploy.check import (
    Choices,
    check_float32,
    embedded,
    judged_splits,
    places_of,
    unlike,
    with_measured,
)
from distill.deploy.check_episodes import episodes_compared, judged_episodes
from distill.deploy.check_photos import check_photos, photos_compared, raw_photos
from distill.deploy.class_sets import ClassSet
from distill.deploy.info import GRAPH, OUTSIDE, PRECISIONS, ModelInfo, ObjectScores, Preprocessing, bank_file
from distill.deploy.models import FORMATS, Written, calibration_batches, embed_with, write_models
from distill.deploy.neighbours import NEIGHBOURS, neighbours_of
from distill.deploy.onnx_files import UnitEmbedding, UnitLocations, import_parts
from distill.deploy.run_texts import class_sets_of, negatives_of
from distill.judge.trained_run import TrainedRun, open_trained
from distill.robotics.student import EpisodeStudent
from distill.settings import to_toml, with_part
from distill.student.heads import Head


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What ``distill export`` can be told.

    ``check_images`` is how many images of each test split every file is compared on; ``neighbours`` how many
    training images (small pictures and the teacher's embeddings) go along, to be shown beside answers.
    """

    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("float32",)
    preprocessing: str = OUTSIDE
    checkpoint: str = "last"
    teacher: str | None = None
    license: str = "unknown"
    check_images: int = 2000
    neighbours: int = 200
    data_dir: Path | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        for option, given, choices in (
            ("--formats", self.formats, FORMATS),
            ("--precisions", self.precisions, PRECISIONS),
        ):
            wrong = next((name for name in given if name not in choices), None if given else "")
            if wrong is not None:
                raise WrongOption(
                    f"{option} names {wrong!r}",
                    fix=f"{nearest_names(wrong, choices)}choose from {', '.join(choices)}.",
                )


def export_run(
    run: Path, out: Path, options: ExportOptions | None = None, *, progress: Progress | None = None
) -> ModelInfo:
    """Write ``out``: graphs, texts, card and all; whole and checked, or not at all.

    Raises
    ------
    UserError
        If the run cannot be opened or has no embeddings, ``out`` is not empty, a part is not installed, or a
        float32 file differs from the student by more than 1e-4 in an embedding.
    """
    options, progress = options or ExportOptions(), progress or Silent()
    import_parts()
    trained = open_trained(
        run,
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        checkpoint=options.checkpoint,
        device="cpu",
    )
    head = _head(run, trained, options.teacher)
    with only_writer_of_file(out.resolve()), _new_folder(out) as folder:
        info = _filled(folder, out.resolve().name, run, trained, head, options, progress)
        write_card(folder, info)
        if info.objects is None:
            write_example(folder)
        info.save(folder)
    return info


def _head(run: Path, trained: TrainedRun, name: str | None) -> Head:
    if not trained.heads:
        raise UserError(
            f"{run} is a closed-set baseline: it has no embeddings to compare with texts",
            fix="export a run that learnt from a teacher.",
        )
    names = [head.name for head in trained.heads]
    if name is not None and name not in names:
        raise UserError(
            f"{run} did not learn from a teacher {name!r}",
            fix=f"{nearest_names(name, names)}choose from {', '.join(names)}.",
        )
    head = trained.heads[names.index(name) if name else 0]
    if head.texts.per_image:
        raise UserError(
            f"{run} learnt prompts that change with the image (CoCoOp), which no text bank can hold",
            fix="export a run of --prompts coop or none.",
        )
    return head


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside ``out`` that takes its place if the block succeeds."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty", fix="choose another --out, or remove it.")
    out = out.resolve()
    for leftover in out.parent.glob(f".{out.name}.*.export"):  # of an export that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    folder = out.with_name(f".{out.name}.{uuid.uuid4().hex}.export")
    try:
        folder.mkdir(parents=True)
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except UserError:
        raise
    except Exception as error:
        refused = write_error(out, error)
        if refused is None:
            raise
        raise refused from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _filled(
    folder: Path,
    name: str,
    run: Path,
    trained: TrainedRun,
    head: Head,
    options: ExportOptions,
    progress: Progress,
) -> ModelInfo:
    """Write everything but the card and ``model.json``, and return what belongs into the latter."""
    banks, own = class_sets_of(trained, head)
    for bank, classes in banks.items():
        classes.save(folder / bank_file(bank))
    info = _described(name, run, trained, head, options, banks=tuple(banks), own=own)
    measure = _measured_episodes if info.objects is not None else _measured_photos
    info = measure(folder, trained, head, info, options, banks, progress)
    files = {
        str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return replace(info, files=files, unlike=unlike(info.measured))


def _measured_photos(
    folder: Path,
    trained: TrainedRun,
    head: Head,
    info: ModelInfo,
    options: ExportOptions,
    banks: dict[str, ClassSet],
    progress: Progress,
) -> ModelInfo:
    """Write the files of a student of photos; return ``info`` with what each was measured to do."""
    if options.neighbours:
        shown = neighbours_of(trained, head, banks[info.bank], most=options.neighbours)
        if shown is not None:
            shown.save(folder / NEIGHBOURS)
    embedding = UnitEmbedding(trained.student, slice(head.start, head.stop)).eval()
    judged = judged_splits(trained, embed_with(embedding), most=options.check_images)
    photos = raw_photos(judged) if options.preprocessing == GRAPH else []
    choices = Choices.of(banks[info.bank], info.id_classes, info.temperature)
    of_student = choices.judge(judged, {split: part.embeddings for split, part in judged.items()})
    student = {
        split: replace(result, other_data=trained.other_data(split)) for split, result in of_student.items()
    }
    _note_other_data({split: result.other_data for split, result in student.items()}, progress)
    for one in _written(folder, trained, embedding, info, options, progress):
        rows = {
            split: embedded(part.split, info.preprocessing.crop, one.embed, where=one.where)
            for split, part in judged.items()
        }
        info = with_measured(info, one.name, one.path, rows, judged, student, choices)
        if one.where == GRAPH:
            info = _with_photos(info, one, photos)
    return info


def _measured_episodes(
    folder: Path,
    trained: TrainedRun,
    head: Head,
    info: ModelInfo,
    options: ExportOptions,
    banks: dict[str, ClassSet],
    progress: Progress,
) -> ModelInfo:
    """Write the files of a student of episodes; return ``info`` with what each was measured to do."""
    del head
    if options.preprocessing == GRAPH:
        raise WrongOption(
            "--preprocessing graph is of photos: the cameras of an episode have sizes of their own",
            fix="leave it out; 'distill predict' prepares episodes.",
        )
    assert info.objects is not None
    embedding = UnitLocations(trained.student).eval()
    positive, negative = banks[info.bank], banks[info.objects.negatives[info.bank]]
    pairs = {
        split.name: np.stack(
            [bank.embeddings[places_of(bank, split.class_names)] for bank in (positive, negative)]
        )
        for split in trained.wanted(())
    }
    judged = judged_episodes(trained, embed_with(embedding), pairs, most=options.check_images)
    _note_other_data({one.split: trained.other_data(one.split) for one in judged}, progress)
    for written in _written(folder, trained, embedding, info, options, progress):
        splits = {one.split: episodes_compared(trained, one, info, written.embed) for one in judged}
        if written.name not in ("float16", "int8"):
            check_float32(written.path.name, splits)
        about = {"bytes": written.path.stat().st_size, "splits": splits, "classes": len(positive)}
        info = replace(info, measured={**info.measured, written.name: about})
    return info


def _written(
    folder: Path,
    trained: TrainedRun,
    embedding: UnitEmbedding | UnitLocations,
    info: ModelInfo,
    options: ExportOptions,
    progress: Progress,
) -> Iterator[Written]:
    for written in write_models(
        folder,
        embedding,
        info,
        formats=options.formats,
        precisions=options.precisions,
        calibration=lambda: calibration_batches(trained, info),
    ):
        progress.note(f"checking {written.path.name}")
        yield written


def _note_other_data(differences: Mapping[str, str], progress: Progress) -> None:
    for split, other_data in differences.items():
        if other_data:
            progress.note(f"{split} is not what the run was judged on: {other_data}")


def _with_photos(info: ModelInfo, written: Written, photos: Sequence[Image.Image]) -> ModelInfo:
    """Return what was measured with what a graph makes of raw photos; a float32 one must do it right."""
    compared = photos_compared(written.path, written.embed, photos, info.preprocessing)
    if written.name == "float32":
        check_photos(written.path.name, compared)
    measured = {**info.measured[written.name], "photos": compared}
    return replace(info, measured={**info.measured, written.name: measured})


def _described(
    name: str,
    run: Path,
    trained: TrainedRun,
    head: Head,
    options: ExportOptions,
    *,
    banks: tuple[str, ...],
    own: str,
) -> ModelInfo:
    config, splits = trained.config, trained.folder.splits
    labels = head.cache.manifest.banks.get("labels")
    seen = next((splits[name] for name in ("train", "id_test") if name in splits), None)
    return ModelInfo(
        name=name,
        arch=config.student.arch,
        embed_dim=head.stop - head.start,
        outputs=trained.heads[-1].stop,
        parameters=sum(part.numel() for part in trained.student.parameters()),
        preprocessing=_preprocessing(trained, options),
        temperature=config.loss.temperature,
        bank=own,
        banks=banks,
        templates=labels.templates if labels is not None else (),
        id_classes=seen.class_names if seen is not None else (),
        ood_classes=_new_classes(trained),
        objects=_objects(trained, banks),
        source=_source(run, trained, head, options),
        license=options.license,
    )


def _new_classes(trained: TrainedRun) -> tuple[str, ...]:
    """Return the classes of the OOD test, and of episodes, which show others too, the new ones alone."""
    splits = trained.folder.splits
    names = splits["ood_test"].class_names if "ood_test" in splits else ()
    if isinstance(trained.folder, EpisodeFolder):
        return tuple(name for name in names if name not in splits["train"].class_names)
    return names


def _preprocessing(trained: TrainedRun, options: ExportOptions) -> Preprocessing:
    size, folder = trained.config.student.image_size, trained.folder
    if isinstance(folder, EpisodeFolder):
        mean, std = mean_and_deviation(folder.keys.with_depth)
        return Preprocessing(where=OUTSIDE, resize=size, crop=size, mean=tuple(mean), std=tuple(std))
    return Preprocessing(
        where=options.preprocessing, resize=resize_size(size), crop=size, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )


def _objects(trained: TrainedRun, banks: Sequence[str]) -> ObjectScores | None:
    if not isinstance(trained.folder, EpisodeFolder):
        return None
    assert isinstance(trained.student, EpisodeStudent)
    return ObjectScores(
        keys=trained.folder.keys,
        local=trained.config.robotics.local,
        bias=float(torch.tanh(trained.student.score_bias.detach())),
        threshold=float(trained.config.robotics.threshold),
        negatives=negatives_of(banks, trained.config),
    )


def _source(run: Path, trained: TrainedRun, head: Head, options: ExportOptions) -> dict[str, Any]:
    """Return where a model comes from, in words: no path of this machine is among them."""
    config = trained.config
    config = with_part(config, "student", weights=Path(config.student.weights).name)
    config = with_part(config, "fewshot", start=Path(config.fewshot.start).name)
    return {
        "distill": version("distill"),
        "run": run.resolve().name,
        "checkpoint": options.checkpoint,
        "data": trained.folder.path.resolve().name,
        "fingerprint": head.cache.fingerprint,
        "identity": trained.identity.to_json(),
        "teacher": in_words(head.cache.teacher),
        "teacher_name": head.name,
        "config": to_toml(config),
    }
