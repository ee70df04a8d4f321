"""A trained run -> a folder that stands alone: what ``distill export`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError, WrongOption, nearest_names
from cache.runtime.locks import only_writer_of_file
from cache.runtime.progress import Progress, Silent
from cache.sources.episodes import EpisodeFolder
from cache.store.spec import in_words
from distill.config import PRETRAINED, SCRATCH
from distill.data.frames import FrameAugment, mean_and_deviation
from distill.data.pool import pool_words
from distill.data.teacher_texts import default_bank
from distill.deploy.card import write_card, write_example
from distill.deploy.card_data import base_models
from distill.deploy.card_pictures import draw_reliability
from distill.deploy.check import judged_splits, unlike
from distill.deploy.check_embeddings import EmbeddingCheck
from distill.deploy.check_episodes import EpisodeCheck, judged_episodes
from distill.deploy.check_photos import PhotoCheck, photo_check
from distill.deploy.check_reject import unknown_pictures
from distill.deploy.class_sets import ClassSet
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import GRAPH, OUTSIDE, ModelInfo, ObjectScores, Preprocessing, bank_file
from distill.deploy.libraries import Libraries
from distill.deploy.models import embed_with, write_models
from distill.deploy.nearest_images import NEAREST_IMAGES, nearest_images_of
from distill.deploy.new_folder import new_folder
from distill.deploy.onnx_files import UnitEmbedding, import_parts
from distill.deploy.qat import QAT, check_for_qat, fitted_to_int8
from distill.deploy.run_texts import class_sets_of, negatives_of
from distill.deploy.vocabulary import Vocabulary
from distill.deploy.vocabulary_rows import with_vocabulary
from distill.judge.open_run import Opening, open_trained
from distill.judge.trained_run import TrainedRun
from distill.robotics.student import EpisodeStudent
from distill.settings import to_toml, toml_value, with_part
from distill.student.build import made_of
from distill.student.heads import Head
from distill.student.names import TIMM
from distill.student.stages import StagesStudent


def export_run(
    run: Path, out: Path, options: ExportOptions | None = None, *, progress: Progress | None = None
) -> ModelInfo:
    """Write ``out``: graphs, texts, card and all; whole and checked, or not at all.

    UserError if the run cannot be opened or has no embeddings, ``out`` is not empty, a part is not installed,
    or a float32 file differs from the student by more than 1e-4 in an embedding.
    """
    options, progress = options or ExportOptions(), progress or Silent()
    import_parts()
    opening: Opening = {
        "data_dir": options.data_dir,
        "cache_dir": options.cache_dir,
        "checkpoint": options.checkpoint,
        "code": options.code,
        "device": "cpu",
        "note": progress.note,
        "progress": progress,
    }
    trained = open_trained(run, **opening)
    head = _head(run, trained, options.teacher)
    if not head.has_texts and head.cache.bank_names:  # that were added since
        opening["text"] = default_bank(head.cache)
        trained = open_trained(run, **opening)
        head = _head(run, trained, options.teacher)
    if not head.has_texts:
        options.check_without_texts(run)
    if options.int8 == QAT:
        check_for_qat(trained)
    with only_writer_of_file(out.resolve()), new_folder(out) as folder:
        export = _Export(
            folder=folder, run=run, trained=trained, head=head, options=options, progress=progress
        )
        info = export.filled(out.resolve().name)
        write_card(folder, info)
        if info.objects is None and info.bank:
            write_example(folder)
        info.save(folder)
    return info


def _head(run: Path, trained: TrainedRun, name: str | None) -> Head:
    if not trained.heads:
        raise UserError(
            f"{run} is a closed-set student: it has no embeddings to compare with texts",
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


@dataclass(frozen=True, kw_only=True)
class _Export:
    """One export: what of which run goes into ``folder``, and who is told."""

    folder: Path
    run: Path
    trained: TrainedRun
    head: Head
    options: ExportOptions
    progress: Progress

    def filled(self, name: str) -> ModelInfo:
        """Write everything but the card and ``model.json``, and return what belongs into the latter."""
        banks, own = class_sets_of(self.trained, self.head)
        described = self._described(name, banks=tuple(banks), own=own)
        libraries = Libraries.of(self.embedding, described, self.options.formats, self.head.cache)
        options, source = self.options, self.options.vocabulary
        banks, words = with_vocabulary(
            self.folder, source, self.trained, self.head, banks, own, self.progress
        )
        for bank, classes in banks.items():
            classes.save(self.folder / bank_file(bank))
        info = replace(self._described(name, banks=tuple(banks), own=own), vocabulary=words)
        check: PhotoCheck | EpisodeCheck | EmbeddingCheck
        if not info.bank:
            embed = embed_with(self.embedding)
            check = EmbeddingCheck(judged=judged_splits(self.trained, embed, most=options.check_images))
        elif info.objects is None:
            info, check = self._check_of_photos(info, banks)
        else:
            info, check = self._check_of_episodes(info, banks)
        for one in check.judged.values():
            if one.other_data:
                self.progress.note(f"{one.split.name} is not what the run was judged on: {one.other_data}")
        written = write_models(
            self.folder,
            self.embedding,
            info,
            self.trained,
            options.formats,
            options.all_precisions,
            partial(self._of_int8, info) if self._int8_is_of_another else None,
        )
        if not isinstance(check, EpisodeCheck):
            written = chain(written, libraries.written(self.folder, info, self.head.cache, check))
        for file in written:
            self.progress.note(f"checking {file.path.name}")
            self.progress.start(None, f"checking {file.path.name}", "")
            info = check.measured(info, file)
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        files = {str(path.relative_to(self.folder)): sha256_of(path) for path in paths}
        return replace(info, files=files, unlike=unlike(info.measured))

    @property
    def _int8_is_of_another(self) -> bool:
        return self.options.int8 == QAT or isinstance(self.trained.student, StagesStudent)

    def _of_int8(self, info: ModelInfo) -> UnitEmbedding:
        """Return what the int8 file is made of.

        Its features are standardised as in training, not by the head: in 8 bits all of them share a step, and
        as they are they differ by orders of magnitude.
        """
        plain = UnitEmbedding(self.trained.student, self.head.start, self.head.stop).eval()
        if self.options.int8 != QAT:
            return plain
        return fitted_to_int8(plain, self.trained, info, self.progress)

    @cached_property
    def embedding(self) -> UnitEmbedding:
        """The student, as what is shipped."""
        student = self.trained.student
        student = student.folded() if isinstance(student, StagesStudent) else student
        return UnitEmbedding(student, self.head.start, self.head.stop).eval()

    def _check_of_photos(self, info: ModelInfo, banks: dict[str, ClassSet]) -> tuple[ModelInfo, PhotoCheck]:
        trained, options = self.trained, self.options
        most, sources = options.check_images, options.unknowns
        unknowns = unknown_pictures(trained, sources, most=most, progress=self.progress)
        if options.nearest_images:
            shown = nearest_images_of(trained, self.head, banks[info.bank], most=options.nearest_images)
            if shown is not None:
                shown.save(self.folder / NEAREST_IMAGES)
        words = Vocabulary.load(self.folder)
        info, check = photo_check(
            judged_splits(trained, embed_with(self.embedding), most=most),
            banks[info.bank],
            info,
            words=words.rows if words is not None else None,
            unknowns=unknowns,
        )
        if info.calibration is not None:
            draw_reliability(self.folder, info.calibration)
        return info, check

    def _check_of_episodes(
        self, info: ModelInfo, banks: dict[str, ClassSet]
    ) -> tuple[ModelInfo, EpisodeCheck]:
        if self.options.unknowns:
            raise WrongOption("--unknowns is of photos", fix="leave it out.")
        if self.options.preprocessing == GRAPH:
            raise WrongOption(
                "--preprocessing graph is of photos: the cameras of an episode have sizes of their own",
                fix="leave it out; 'distill predict' prepares episodes.",
            )
        assert info.objects is not None
        pair = banks[info.bank], banks[info.objects.negatives[info.bank]]
        embed, most = embed_with(self.embedding), self.options.check_images
        judged = judged_episodes(self.trained, embed, pair, most=most)
        return info, EpisodeCheck(trained=self.trained, judged=judged, classes=len(pair[0]))

    def _described(self, name: str, *, banks: tuple[str, ...], own: str) -> ModelInfo:
        trained, head = self.trained, self.head
        config, splits = trained.config, trained.folder.splits
        has_labels = "labels" in head.cache.bank_names
        arch, kwargs = _as_built(trained)
        seen = next((splits[name] for name in ("train", "id_test") if name in splits), None)
        return ModelInfo(
            name=name,
            arch=arch,
            embed_dim=head.stop - head.start,
            outputs=trained.heads[-1].stop,
            parameters=sum(part.numel() for part in trained.student.parameters()),
            preprocessing=_preprocessing(trained, self.options.preprocessing),
            temperature=config.loss.temperature,
            bank=own,
            banks=banks,
            templates=head.cache.listed_bank("labels").templates if has_labels else (),
            text_mean=tuple(head.centre.text.tolist()) if head.centre is not None else (),
            id_classes=seen.classes if seen is not None else (),
            ood_classes=_new_classes(trained),
            objects=_objects(trained, banks),
            head=config.student.head,
            hidden=config.student.hidden if config.student.head == "mlp" else 0,
            source=self._source(),
            license=self.options.license,
            image_size=config.student.image_size,
            kwargs=kwargs,
            code=made_of(trained.student).code,
        )

    def _source(self) -> dict[str, Any]:
        """Return where a model comes from, in words: no path of this machine is among them."""
        trained, cache = self.trained, self.head.cache
        config = trained.config
        if config.student.start not in (SCRATCH, PRETRAINED):
            config = with_part(config, "student", start=Path(config.student.start).name)
        config = with_part(config, "fewshot", start=Path(config.fewshot.start).name)
        return {
            "distill": version("distill"),
            "run": self.run.resolve().name,
            "checkpoint": self.options.checkpoint,
            "data": self.options.data_name or trained.folder.path.resolve().name,
            "fingerprint": cache.fingerprint,
            "identity": trained.identity.to_json(),
            "pool": pool_words(trained.pool),
            "teacher": in_words(cache.teacher),
            "base_model": base_models(cache.teacher, trained.config.student),
            "teacher_name": self.head.name,
            "config": to_toml(config),
            **({"int8": QAT} if self.options.int8 == QAT else {}),
        }


def _new_classes(trained: TrainedRun) -> tuple[str, ...]:
    """Return the classes of the OOD test, and of episodes, which show others too, the new ones alone."""
    splits = trained.folder.splits
    names = splits["ood_test"].classes if "ood_test" in splits else ()
    if isinstance(trained.folder, EpisodeFolder):
        return tuple(name for name in names if name not in splits["train"].classes)
    return names


def _as_built(trained: TrainedRun) -> tuple[str, tuple[str, ...]]:
    """Return the name and the arguments by which a student is built: of the hub's what the hub said of it."""
    config, hub = trained.config.student, made_of(trained.student).hub
    if hub is None:
        return config.arch, config.kwargs
    own = {argument.partition("=")[0] for argument in config.kwargs}
    told = (f"{name}={toml_value(value)}" for name, value in hub.arguments.items() if name not in own)
    return f"{TIMM}:{hub.name}", (*told, *config.kwargs)


def _preprocessing(trained: TrainedRun, where: str) -> Preprocessing:
    augment = trained.model.augment
    if isinstance(augment, FrameAugment):
        size = augment.image_size
        mean, std = mean_and_deviation(augment.with_depth, augment.normalisation)
        return Preprocessing(where=OUTSIDE, resize=size, crop=size, mean=tuple(mean), std=tuple(std))
    return Preprocessing(
        where=where,
        resize=augment.eval_decode.side,
        crop=augment.judged_size,
        mean=augment.normalisation.mean,
        std=augment.normalisation.std,
        decoding=trained.cache.spec.decoding,
        decoder=trained.decoder,
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
