"""The stream of images that a student trains on, and the splits it is judged on; students may share it.

A cache says whether its rows are of photos, one label each, or of episodes, which have several. What is read
of either is opened here; what is made of it afterwards is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.runtime.devices import choose_device
from cache.runtime.errors import UserError
from cache.sources.decoders import chosen
from cache.sources.decoding import UnreadableImage
from cache.sources.samples import DataFolder, Sample, Source
from cache.sources.splits import TESTS
from cache.store.manifest import FEATURES
from cache.store.text_banks import image_hashes
from distill.config import RunConfig
from distill.config_checks import check_for_episodes, check_for_photos
from distill.data.augment import TrainAugment
from distill.data.crop_views import TrainingViews, open_views
from distill.data.folders import Data, folder_to_train
from distill.data.frames import FrameAugment
from distill.data.identity_reader import IdentityReader
from distill.data.pixel_sources import PixelMaker, device_for_images
from distill.data.pixels import Pixels
from distill.data.pool import takes_pool
from distill.data.replayed_views import Replayed, replayed_views, takes_views
from distill.data.support import QUERY, ROWS_OF, join_support, support_of
from distill.data.teacher_texts import images_of_texts, losses_of
from distill.data.training_data import TeacherRows, TrainingData, teacher_rows
from distill.data.training_rows import TrainingRows, join_images

Augment = TrainAugment | FrameAugment
"""What a student sees: ``decode`` reads what a call makes it train on, ``eval_decode`` what it is judged on.

``plain`` is how it is judged.
"""


def refuse_several_labels(cache: EmbeddingCache, what: str) -> None:
    """Raise a UserError where a cache has photos of several labels, which ``what`` does not take."""
    if cache.holds_episodes and cache.manifest.command == FEATURES:
        raise UserError(
            f"{cache.path} has photos of several labels, and {what} takes photos of one each",
            fix="give each image one label, or leave the labels out: then they are pool.",
        )


def augment_of(config: RunConfig, cache: EmbeddingCache) -> Augment:
    """Return what the images of a cache go through; UserError where the config does not fit the cache."""
    size, data = config.student.image_size, config.data
    refuse_several_labels(cache, "training")
    if cache.holds_episodes:
        check_for_episodes(config)
        return FrameAugment(
            image_size=size,
            policy=data.policy,
            per_image=data.per_image,
            with_depth=cache.episode_keys.with_depth,
        )
    check_for_photos(config)
    scale = (data.scale_min, 1.0)
    return TrainAugment(
        image_size=size,
        policy=data.policy,
        per_image=data.per_image,
        scale=scale,
        decoder=chosen(data.decoder),
        eval_size=config.student.eval_size,
        eval_crop=config.student.eval_crop,
    )


@dataclass(frozen=True, kw_only=True)
class EvalSplit:
    """A split to judge the student on: its images and its classes."""

    name: str
    pixels: Pixels
    class_names: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """The keys of the images that can be read, so far as they have been."""
        return [image.key for image in self.pixels.samples if image.key not in self.pixels.unreadable]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The images of a run, joined to the rows of every teacher; decoded when they are first asked for.

    ``joined`` has the rows of every teacher of the config, by its name; ``support`` are the keys of the
    few-shot images; ``identities`` say what a run of the stream is made from.
    """

    config: RunConfig
    cache: EmbeddingCache
    folder: DataFolder
    device: torch.device
    augment: Augment
    support: list[str]
    joined: dict[str, TrainingRows]
    identities: IdentityReader

    @classmethod
    def of(cls, config: RunConfig, cache: EmbeddingCache, data_dir: Data) -> Stream:
        """Join the images of a data folder to the rows of a cache.

        UserError if the cache, the data and the config do not fit each other, or an image is not what its
        rows were made from.
        """
        augment = augment_of(config, cache)
        folder = folder_to_train(config, cache, data_dir)
        identities = IdentityReader(cache=cache, folder=folder)
        support = support_of(cache, folder, config.fewshot)
        images = join_images(identities, config)
        joined = {}
        for name in config.teachers:
            own = cache.teacher_cache(name)
            joined[name] = images.of(own)
            if support:
                joined[name] = join_support(joined[name], own, folder.split("ood_test"), support)
        identities.refuse_changed_images(config)
        return cls(
            config=config,
            cache=cache,
            folder=folder,
            device=choose_device(config.train.device),
            augment=augment,
            support=support,
            joined=joined,
            identities=identities,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that are learnt."""
        return self.images.rows.class_names

    def data_of(self, config: RunConfig, teachers: Sequence[str]) -> TrainingData:
        """Return the training data of a student of this stream that learns from some teachers."""
        return TrainingData(
            joined=self.images,
            pixels=self.pixels,
            teachers=tuple(self._rows_of(config, name) for name in teachers),
            pool_share=config.data.pool_share,
            balanced=config.data.balanced,
        )

    def _rows_of(self, config: RunConfig, teacher: str) -> TeacherRows:
        cache, joined = self.cache.teacher_cache(teacher), self.joined[teacher]
        return teacher_rows(
            cache,
            joined,
            losses_of(config, cache),
            text=config.text,
            learnt_text=config.prompts.learner != "none",
            views=self._views.get(teacher),
        )

    @cached_property
    def replayed(self) -> Replayed:
        """The views of the cache that are replayed."""
        splits = dict.fromkeys(rows.name for rows, _ in self.images.parts if rows.name != "ood_test")
        return replayed_views(self.cache, self.config, [*splits])

    @cached_property
    def _views(self) -> dict[str, TrainingViews]:
        return open_views(self.cache, self.joined, self.replayed.settings)

    @property
    def images(self) -> TrainingRows:
        """The images, joined to the rows of the first teacher."""
        return next(iter(self.joined.values()))

    @property
    def pixels(self) -> Pixels:
        """The training images."""
        return self._decoded[0]

    @property
    def splits(self) -> dict[str, EvalSplit]:
        """The splits that are not trained on, by name."""
        return self._decoded[1]

    @cached_property
    def _decoded(self) -> tuple[Pixels, dict[str, EvalSplit]]:
        images, data = self.images, self.config.data
        judged = splits_to_judge(
            self.folder,
            self.support,
            id_val=images.id_val,
            class_val=images.class_val,
            aside=images.classes_aside,
            pool_val=(images.pool_val, self.class_names),
            made_of=images_of_texts(self.cache, self.config.text, self.config.teachers),
        )
        decode, eval_decode = self.augment.decode, self.augment.eval_decode
        needed = Counter({decode: len(images.images)})
        needed[eval_decode] += sum(len(samples) for _, samples, _ in judged)
        where = device_for_images(data.device_images, self.device, needed)
        make = PixelMaker(config=data, cache=self.cache, decode=eval_decode, device=where)
        pixels = make(images.taken, strict=True, decode=decode)
        splits = {
            name: EvalSplit(name=name, pixels=make([(ROWS_OF.get(name, name), samples)]), class_names=names)
            for name, samples, names in judged
        }
        if eval_decode != decode:
            for split in splits.values():
                try_first(split.pixels)
        return pixels, splits


def try_first(pixels: Pixels) -> None:
    """Read an image: UserError now, not after an epoch, where a cache keeps another size and no files."""
    if pixels.stored is None and len(pixels.samples):
        with suppress(UnreadableImage):  # which is counted where all are judged
            pixels.decode(pixels.samples[0])


def decoder_of(augment: Augment) -> str:
    """Return what decodes a run's photos; '' of episodes, which are of no files of pictures."""
    return augment.decoder if isinstance(augment, TrainAugment) else ""


def stream_settings(config: RunConfig, *, pool: bool = False, views: bool = False) -> dict[str, Any]:
    """Return everything that decides a run's stream of batches; students that agree in it can share one.

    ``pool`` says whether there are images without a label, which a run takes or does not by its losses,
    ``views`` whether there are views, which not every run takes.
    """
    data = {
        f"data.{name}": value
        for name, value in asdict(config.data).items()
        if name not in ("seed", "choose_by")
    }
    if pool:
        data["images without a label"] = takes_pool(config)
    if views:
        data["views of the cache"] = takes_views(config)
    fewshot = {f"fewshot.{name}": value for name, value in asdict(config.fewshot).items() if name != "start"}
    return {
        **data,
        **fewshot,
        "teachers": config.teachers,
        **{
            f"student.{name}": getattr(config.student, name)
            for name in ("image_size", "eval_size", "eval_crop")
        },
        "train.batch_size": config.train.batch_size,
        "train.device": config.train.device,
        "data.seed": config.stream_seed,
    }


def splits_to_judge(
    folder: DataFolder,
    support: Sequence[str] = (),
    *,
    id_val: Sequence[Sample] = (),
    class_val: Sequence[Sample] = (),
    aside: Sequence[str] = (),
    pool_val: tuple[Sequence[Sample], tuple[str, ...]] = ((), ()),
    made_of: NDArray[np.uint64] | None = None,
) -> list[tuple[str, tuple[Sample, ...], tuple[str, ...]]]:
    """Return (name, images, class names) of every split, of the images to judge on; what is set aside first.

    With a support, the OOD images less the support are ``ood_query``. The classes set ``aside`` are judged as
    ``class_val``, and are no ID classes. ``pool_val`` are images of a pool, of the teacher's classes. Test
    images that texts were ``made_of`` are left out: see :attr:`cache.store.text_banks.TextBank.made_of`.
    """
    judged, taken = [], set(support)
    if id_val and (samples := to_judge(folder.split("train"), id_val)):
        judged.append(("id_val", samples, _but(folder.split("train").classes, aside)))
    if class_val:
        judged.append(("class_val", tuple(class_val), tuple(aside)))
    if pool_val[0]:
        judged.append(("pool_val", tuple(pool_val[0]), pool_val[1]))
    for name in (name for name in TESTS if name in folder.splits):
        split, samples = folder.splits[name], to_judge(folder.splits[name])
        if made_of is not None and len(made_of):
            hashes = image_hashes(name, [image.key for image in samples], np.arange(len(samples)))
            samples = tuple(samples[i] for i in np.flatnonzero(~np.isin(hashes, made_of)).tolist())
        if name == "ood_test" and taken:
            left = tuple(image for image in samples if image.key not in taken)
            judged.append((QUERY, left, split.classes))
        elif name == "id_test" and aside:
            learnt = _but(split.classes, aside)
            judged.append((name, tuple(one for one in samples if one.labels[0] in learnt), learnt))
        else:
            judged.append((name, samples, split.classes))
    return [one for one in judged if one[1] or not aside]


def _but(names: tuple[str, ...], aside: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in set(aside)) if aside else names


def to_judge(split: Source, samples: Sequence[Sample] | None = None) -> tuple[Sample, ...]:
    """Return those of a split's samples, or of some of them, that can be judged: photos with a label."""
    samples = tuple(split.all() if samples is None else samples)
    if split.multi_label or all(sample.labels for sample in samples):
        return samples
    return tuple(sample for sample in samples if sample.labels)
