"""``distill.load_model``: an exported model, with onnxruntime and without torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from cache.runtime import machine_limits as limits
from cache.runtime.errors import UserError
from cache.sources.decoders import in_its_place
from distill.api.given import Bounds, Place, check_bounds, existing_folder, listed
from distill.api.images import OneImage, as_list, is_one, named, prepared, refuse_unread
from distill.api.words import told_in_python
from distill.deploy.class_sets import unit
from distill.deploy.info import ModelInfo
from distill.deploy.model import Model, Prediction
from distill.deploy.predict import predicted
from distill.deploy.prepared import prepared_batches

BOUNDS: Bounds = {"top": (1, None), "batch_size": (1, limits.BATCH), "threads": (0, limits.THREADS)}


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageModel:
    """An exported model of photos, open for use; threads may share it. Made by :func:`distill.load_model`.

    ``opened`` is what the commands ``predict`` and ``serve`` use.
    """

    opened: Model

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.opened.folder

    @property
    def info(self) -> ModelInfo:
        """What its ``model.json`` says: architecture, measured accuracy, where it comes from."""
        return self.opened.info

    @property
    def labels(self) -> tuple[str, ...]:
        """The names that it chooses from unless told; none of a model that gives embeddings alone."""
        return self.opened.class_set().labels if self.info.bank else ()

    @property
    def embed_dim(self) -> int:
        """D, the length of an embedding."""
        return self.info.embed_dim

    def __repr__(self) -> str:
        what = f"{self.info.arch}, {self.opened.precision}, {len(self.labels):,} labels"
        return f"ImageModel({str(self.folder)!r}: {what}, embeddings of {self.embed_dim})"

    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is a path, though a sequence too
        self,
        images: OneImage,
        *,
        top: int = ...,
        names: str | Sequence[str] = ...,
        bank: str | None = ...,
        open: bool = ...,
        reject: bool = ...,
        batch_size: int = ...,
        errors: Literal["raise", "keep"] = ...,
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        images: Iterable[OneImage],
        *,
        top: int = ...,
        names: str | Sequence[str] = ...,
        bank: str | None = ...,
        open: bool = ...,
        reject: bool = ...,
        batch_size: int = ...,
        errors: Literal["raise", "keep"] = ...,
    ) -> list[Prediction]: ...
    @told_in_python()
    def predict(
        self,
        images: Any,
        *,
        top: int = 5,
        names: str | Sequence[str] = (),
        bank: str | None = None,
        open: bool = False,
        reject: bool = False,
        batch_size: int = 32,
        errors: Literal["raise", "keep"] = "raise",
    ) -> Prediction | list[Prediction]:
        """Return the best labels of one image, or of each of several.

        Parameters
        ----------
        images
            One or several: a path or an address, a PIL image, or a numpy array or torch tensor of uint8,
            [H, W, 3], [3, H, W] or [H, W]; a stack [N, H, W, 3] is several.
        top
            How many labels, best first.
        names
            Choose from these instead: labels of any text bank, or words of the model's vocabulary.
        bank
            The text bank whose classes are chosen from; None: the run's own.
        open
            Choose from all words of the model's vocabulary.
        reject
            Say ``none_of_these`` of images of something else; 95% of ID images pass.
        batch_size
            Images at once.
        errors
            ``raise`` stops at an image that cannot be read; ``keep`` says in its ``error`` why, and goes on.

        Returns
        -------
        Prediction, or a list of them
            ``.answer`` is the label, ``.labels`` the best of them with ``score`` (probability, 0 to 1) and
            ``similarity`` (cosine).

        Raises
        ------
        UserError
            If there is no such name or bank, nothing to reject by, or an image cannot be read.
        """
        if open and (names or bank or reject):
            raise UserError("open=True chooses from all words", fix="leave names, bank and reject out.")
        check_bounds({"top": top, "batch_size": batch_size}, BOUNDS)
        classes = self.opened.open_set if open else self.opened.class_set(bank=bank, names=listed(names))
        given = named(as_list(images))
        answers: list[Prediction] = []
        for one in predicted(
            ((name, (name, image)) for name, image in given),
            lambda item: prepared(self.opened, *item),
            lambda stack: self.opened.answer(self.opened.embed(stack), classes, top=top, reject=reject),
            of=Prediction,
            total=len(given),
            batch_size=batch_size,
            progress=None,
        ):
            if one.error and errors == "raise":
                raise refuse_unread(one.image, one.error)
            answers.append(one)
        return answers[0] if is_one(images) else answers

    @told_in_python()
    def embed(self, images: OneImage | Iterable[OneImage], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Return the embedding of one image, float32 [D], or of several, [N, D]: rows of length 1.

        A row times that of a text by the same teacher is their cosine. ``images`` as :meth:`predict` takes
        them.

        Raises
        ------
        UserError
            If an image cannot be read.
        """
        check_bounds({"batch_size": batch_size}, BOUNDS)
        rows: list[NDArray[np.float32]] = []
        given = named(as_list(images))
        for batch in prepared_batches(
            given, lambda item: prepared(self.opened, *item), batch_size=batch_size
        ):
            for (name, _), array in batch:
                if isinstance(array, str):
                    raise refuse_unread(name, array)
            rows.append(unit(self.opened.embed(np.stack([array for _, array in batch]))))
        stacked = np.concatenate(rows) if rows else np.empty((0, self.embed_dim), dtype=np.float32)
        return stacked[0] if is_one(images) else stacked


@told_in_python()
def load_model(folder: Place, *, precision: str | None = None, threads: int = 0) -> ImageModel:
    """Open an exported model of photos. It needs onnxruntime, no torch, no teacher and no GPU.

    Parameters
    ----------
    folder
        What ``distill export``, ``distill adapt`` or their functions wrote.
    precision
        ``float32``, ``float16`` or ``int8``; None: the first that it has.
    threads
        Of onnxruntime; 0: all cores.

    Returns
    -------
    ImageModel
        ``.predict(images)`` gives labels, ``.embed(images)`` unit rows.

    Raises
    ------
    UserError
        If it is no such folder, a file is damaged or differs from its checksum, it is a model of episodes, or
        onnxruntime is not installed.

    Examples
    --------
    >>> model = distill.load_model("models/first")  # doctest: +SKIP
    >>> model.predict("photo.jpg").answer  # doctest: +SKIP
    'Blotched Blue-tongue'
    """
    check_bounds({"threads": threads}, BOUNDS)
    opened = Model.open(
        existing_folder(folder, what="an exported model"), precision=precision, threads=threads
    )
    for line in (opened.info.warning(opened.precision), in_its_place(opened.info.preprocessing.decoder)):
        if line:
            warnings.warn(line, stacklevel=2)
    return ImageModel(opened=opened)
