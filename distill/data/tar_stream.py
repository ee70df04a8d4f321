"""A run's stream from a cache of tars: no data folder, and nothing in memory that grows with the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Generator, Tensor

from cache import EmbeddingCache
from cache.runtime.atomic_files import digest
from cache.runtime.devices import choose_device
from cache.runtime.distributed import current_ranks, lost_ranks
from cache.runtime.errors import UserError
from cache.runtime.transfer import to_device
from cache.sources.samples import DataFolder, Sample
from cache.store.journal import RowGroup
from cache.store.journal_lines import CAPTIONS, IMAGES, SAMPLES
from cache.store.tar_folder import CachedTars
from cache.store.webdataset import read_embeddings
from distill.config import RunConfig
from distill.config_fields import require
from distill.data.batch import Batch, Crops, Targets, own_share
from distill.data.folders import folder_to_train
from distill.data.id_val import SetAside
from distill.data.identity_reader import IdentityReader
from distill.data.pixel_sources import PixelMaker, decoding_workers, device_for_images
from distill.data.pool import Pool, classes_of_texts, learnt_splits, takes_pool, unlabelled_rows
from distill.data.replayed_views import Replayed, has_views, takes_views
from distill.data.stream import Augment, EvalSplit, augment_of, splits_to_judge
from distill.data.tar_epoch import TarEpoch
from distill.data.tar_identities import identities_of
from distill.data.tar_pool import pool_of_tars
from distill.data.tar_rows import StreamedRows, TarReader, TrainingTar
from distill.data.teacher_texts import images_of_texts
from distill.data.training_data import check_captions_differ

WITH_FOLDER = "give the folder of its images with --data."
# Of so many batches the keys of the first images are remembered: a GPU may be so far ahead.
REMEMBERED = 64


@dataclass(kw_only=True)
class StreamedData:
    """What a training batch is made of where the rows are streamed: see :mod:`distill.data.training_data`.

    ``teachers`` have the names of each one's columns, of images and captions; ``captions`` says whether the
    loss takes those; ``tars`` names the tars and their rows; ``keys`` are of the first images of the last
    steps, whoever of several students asked for them.
    """

    reader: TarReader
    teachers: tuple[tuple[str, str], ...]
    captions: bool
    tars: str
    keys: dict[int, tuple[str, ...]]
    pool: Pool | None = None
    unused: int = 0
    left_out: int = 0

    @property
    def count(self) -> int:
        """How many images are trained on, but for those of the pool."""
        pool = self.pool.images if self.pool is not None else 0
        return sum(tar.count for tar in self.reader.tars) - pool

    def pool_of(self, batch_size: int) -> Pool | None:
        """Return the pool as a summary tells it; None where there is none."""
        del batch_size
        return self.pool

    def epoch(self, epoch: int, *, batch_size: int, repeats: int, seed: int) -> TarEpoch:
        """Return the steps of an epoch; UserError where there is none."""
        steps = TarEpoch(
            counts=tuple(tar.count for tar in self.reader.tars),
            batch_size=batch_size,
            repeats=repeats,
            seed=seed,
            epoch=epoch,
            world=current_ranks().world,
        )
        require(
            len(steps) > 0,
            f"of {sum(steps.counts)} training images there is no batch of at least {steps.least}",
            "add training images.",
        )
        return steps

    def crops(self, chosen: StreamedRows, generator: Generator) -> Crops | None:
        """Return None: a stream replays no views."""
        del chosen, generator
        return None

    def images(self, batches: TarEpoch) -> Iterator[tuple[StreamedRows, Tensor]]:
        """Yield what this process reads of every step: rows, and its share of the images, decoded."""
        read = self.reader.read(batches, current_ranks().rank)
        for step, (rows, images) in enumerate(read, start=batches.first):
            self.keys[step] = rows.keys
            self.keys.pop(step - REMEMBERED, None)
            yield rows, images

    def keys_of(self, batches: TarEpoch, step: int) -> list[str]:
        """Return the keys of some images of a step that was taken lately."""
        del batches
        return list(self.keys.get(step, ()))

    def columns(self, chosen: StreamedRows, device: torch.device) -> dict[str, Tensor]:
        """Return labels and columns of a whole batch, of every process's share, on the device."""
        own = {"label": chosen.label_b, **chosen.columns}
        return {name: to_device(_gathered(rows, len(chosen)), device) for name, rows in own.items()}

    def batch(
        self,
        chosen: StreamedRows,
        images: Tensor,
        crops: Crops | None = None,
        columns: dict[str, Tensor] | None = None,
    ) -> Batch:
        """Return the batch of these images, with the teachers' targets for them."""
        assert crops is None
        own = columns or self.columns(chosen, images.device)
        targets = (
            Targets(
                teacher_BD=own[images_column],
                caption_BD=own[captions_column] if self.captions else None,
            )
            for images_column, captions_column in self.teachers
        )
        return Batch(image_BXRR=images, label_B=own["label"], targets=tuple(targets))

    def place(self, steps: TarEpoch, step: int) -> dict[str, Any]:
        """Return where an epoch stands: by how many processes it is read, and which tars are done."""
        names = [tar.group.name for tar in self.reader.tars]
        done = [names[int(steps.order[turn])] for turn in steps.done(step)] if step else []
        return {"ranks": steps.world, "tars": self.tars, "done": done}


def _gathered(rows: Tensor, total: int) -> Tensor:
    """Return every process's share of rows one after the other, [b, ...] -> [total, ...]."""
    if current_ranks().world == 1:
        return rows
    whole = rows.new_zeros(total, *rows.shape[1:])
    whole[own_share(total).rows] = rows
    with lost_ranks():
        dist.all_reduce(whole)
    return whole


@dataclass(frozen=True, kw_only=True)
class TarStream:
    """The images of a run as the tars of a cache have them; see :mod:`distill.data.stream`.

    ``aside`` are the images of train to choose on, ``identities`` say what a run of the stream is made from.
    The tars of the ``pool`` are mixed with train's, so that a batch has of both by their numbers;
    ``unlabelled`` are how many images each split has without a label.
    """

    config: RunConfig
    cache: EmbeddingCache
    folder: DataFolder
    device: torch.device
    augment: Augment
    identities: IdentityReader
    aside: SetAside
    unlabelled: dict[str, int]
    pool: Pool | None
    keys: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: RunConfig, cache: EmbeddingCache) -> TarStream:
        """Open the tars of a cache; UserError where the config asks for what a stream has not."""
        folder = folder_to_train(config, cache, None)
        refuse_random_access(config, cache)
        unlabelled = unlabelled_rows(cache)
        return cls(
            config=config,
            cache=cache,
            folder=folder,
            device=choose_device(config.train.device),
            augment=augment_of(config, cache),
            identities=identities_of(cache, folder),
            aside=set_aside(cache, config.data.id_val),
            unlabelled=unlabelled,
            pool=pool_of_tars(cache, config, unlabelled),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that are learnt."""
        names = self.cache.class_names("train") if "train" in self.cache.split_names else ()
        return names or classes_of_texts(self.cache.teacher_cache(self.config.teachers[0]), self.config.text)

    @property
    def replayed(self) -> Replayed:
        """The views of the cache that are replayed: none."""
        missed = takes_views(self.config) and has_views(self.cache)
        return Replayed(why_not=f"its tars are streamed; {WITH_FOLDER}" if missed else "")

    def data_of(self, config: RunConfig, teachers: Sequence[str]) -> StreamedData:
        """Return the training data of a student that learns from some teachers.

        Captions are read where all rows have them, whether this student learns from them or not: another
        that takes the same stream may.
        """
        learnt = learnt_splits(config, self.cache, [*self.folder.splits])
        groups = [group for name in learnt for group in self.cache.journal.groups(name)]
        of_teachers = {name: self.cache.teacher_cache(name) for name in config.teachers}
        columns_of = {
            name: (own.column_name(IMAGES), own.column_name(CAPTIONS)) for name, own in of_teachers.items()
        }
        captions = [column for _, column in columns_of.values()]
        captioned = all(name in group.columns for group in groups for name in captions)
        if config.loss.cap and not captioned:
            raise UserError(
                f"loss.cap is on, but the cache {self.cache.path} has no captions of the training images",
                fix="run cache-features again with --captions, or set loss.cap=0.",
            )
        for name in captions if config.loss.cap and "train" in learnt else ():
            check_captions_differ(self.cache, read_embeddings(self.cache.split("train").groups, name))
        images = [column for column, _ in columns_of.values()]
        columns = (*images, *(captions if captioned else ()))
        return StreamedData(
            reader=TarReader(
                tars=tuple(self._tar(group, columns) for group in groups),
                class_names=self.class_names,
                columns=columns,
                decode=self.augment.decode,
                decoding=self.cache.spec.decoding,
                window=config.data.shuffle_buffer,
                workers=decoding_workers(config.data),
            ),
            teachers=tuple(columns_of[name] for name in teachers),
            captions=bool(config.loss.cap),
            keys=self.keys,
            pool=self.pool,
            unused=0 if takes_pool(self.config) else sum(self.unlabelled.values()),
            tars=digest([[group.name, group.keys.sha256, sorted(group.removed)] for group in groups]),
        )

    def _tar(self, group: RowGroup, columns: Sequence[str]) -> TrainingTar:
        groups = self.cache.split(group.split).groups
        for name in (SAMPLES, *(column for column in columns if column in group.lines)):
            groups.line(group, name)  # which compares the file with its checksum, where that is asked for
        return TrainingTar(
            cache=self.cache.path,
            group=group,
            aside=self.aside if group.split == "train" else SetAside(share=0),
            labelled="train" in self.unlabelled and not takes_pool(self.config),
        )

    @cached_property
    def splits(self) -> dict[str, EvalSplit]:
        """The splits that are not trained on, by name; their pictures are found in the tars."""
        data, decode = self.config.data, self.augment.eval_decode
        judged = splits_to_judge(
            self.folder,
            id_val=id_val_of(self.cache, self.folder, self.aside),
            made_of=images_of_texts(self.cache, self.config.text, self.config.teachers),
        )
        count = sum(len(samples) for _, samples, _ in judged)
        where = device_for_images(data.device_images, self.device, {decode: count})
        make = PixelMaker(config=data, cache=self.cache, decode=decode, device=where)
        return {
            name: EvalSplit(name=name, pixels=make([(name, samples)]), class_names=names)
            for name, samples, names in judged
        }


def refuse_random_access(config: RunConfig, cache: EmbeddingCache) -> None:
    """Refuse what takes images by their number, which a stream has not; UserError names it."""
    asked = {
        "a cache of episodes": cache.holds_episodes,
        "data.replay_views": config.data.replay_views == "on",
        "few-shot finetuning": bool(config.fewshot.shots),
        "data.device_images=on": config.data.device_images == "on",
        "data.class_val": config.data.class_val,
        "data.pool_val": config.data.pool_val,
        "data.balanced": config.data.balanced,
        f"data.pool_share={config.data.pool_share:g}": config.data.pool_share > 0,
    }
    for what, wanted in asked.items():
        require(
            not wanted,
            f"{what} needs images in any order, and {cache.path} is a WebDataset, which is streamed",
            WITH_FOLDER,
        )


def set_aside(cache: EmbeddingCache, share: float) -> SetAside:
    """Return which training images of a cache are set aside to choose on."""
    if "train" not in cache.split_names:
        return SetAside(share=0)
    rows = cache.split("train")
    opened = [rows.groups.keys_of(group) for group in rows.groups.groups] if share else []

    def groups() -> Iterator[tuple[Any, Any]]:
        for keys, group in zip(opened, rows.groups.groups, strict=True):
            seen, labels = group.live_rows, keys.labels(rows.class_names, several=False)
            yield keys.hashes[seen], labels[seen]

    return SetAside.drawn(share, len(rows.class_names), groups)


def id_val_of(cache: EmbeddingCache, folder: DataFolder, aside: SetAside) -> tuple[Sample, ...]:
    """Return the training images that are set aside, sorted by key."""
    if not aside.share:
        return ()
    source = folder.split("train")
    if not isinstance(source, CachedTars):
        return ()
    groups = cache.split("train").groups
    samples: list[Sample] = []
    for group in groups.groups:
        chosen = np.flatnonzero(aside.of(np.asarray(groups.keys_of(group).hashes)))
        samples += source.rows_of(group.name, chosen.tolist())
    return tuple(sorted(samples, key=lambda sample: sample.key))
