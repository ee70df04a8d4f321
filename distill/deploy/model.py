"""A shipped model: images -> unit embeddings -> labels, with onnxruntime and numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.errors import UserError, nearest_names, reason_of
from cache.sources.decoders import squash, squash_picture
from distill.deploy.class_sets import VOCABULARY, ClassSet, names_in, pick
from distill.deploy.info import EXPORT_AGAIN, GRAPH, ModelInfo, bank_file
from distill.deploy.onnx_door import check_one_file, import_onnxruntime
from distill.deploy.vocabulary import ROWS, WORDS, Vocabulary
from distill.judge.rejection import MCM, Reject, Scorer, least_odds

NONE = "none of these"
# Of how many class sets it is remembered which words are far from them.
REMEMBERED = 64
Embed = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Prepared images -> unit embeddings."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """One of the labels of an image.

    ``score`` is its probability among the class set, ``similarity`` its cosine; ``class_name`` the class
    folder, where it has one.
    """

    label: str
    class_name: str
    score: float
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The labels of one image, best first, or why it could not be read.

    ``none_of_these``: even the best is too far away.
    """

    image: str = ""
    labels: tuple[Label, ...] = ()
    none_of_these: bool = False
    error: str = ""

    def __repr__(self) -> str:
        labels = ", ".join(f"{one.label!r} {one.score:.3f}" for one in self.labels)
        none = f"{NONE}; " if self.none_of_these else ""
        return f"Prediction({self.image!r}: {self.error or none + labels})"

    @property
    def answer(self) -> str:
        """The one label, or that it is none."""
        return NONE if self.none_of_these else self.labels[0].label

    def to_json(self) -> dict[str, Any]:
        """Return a line of results."""
        if self.error:
            return {"image": self.image, "error": self.error}
        return {
            "image": self.image,
            "answer": self.answer,
            "labels": [asdict(label) for label in self.labels],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Shipped:
    """An exported folder, open for use: of photos, or of episodes. Threads may share it.

    ``embed`` takes a stack of prepared images to unit embeddings [B, D], of episodes [B, L, D].
    """

    of_episodes: ClassVar[bool] = False
    folder: Path
    info: ModelInfo
    precision: str
    embed: Embed
    banks: dict[str, ClassSet]

    @classmethod
    def open(cls, folder: Path, *, precision: str | None = None, threads: int = 0) -> Self:
        """Open a folder that ``distill export`` wrote; ``threads`` 0 is onnxruntime's choice.

        UserError if it is no such folder, has not that precision, or a file is damaged; if its graph takes or
        gives something else than its model.json says; if onnxruntime is missing; if it is a model of episodes
        where one of photos is opened.
        """
        while True:
            info = ModelInfo.load(folder)
            try:
                model = cls._opened(folder, info, precision=precision, threads=threads)
            except UserError:
                if ModelInfo.load(folder) == info:
                    raise
            else:
                if ModelInfo.load(folder) == info:  # else another model was put in its place meanwhile
                    return model

    @classmethod
    def _opened(cls, folder: Path, info: ModelInfo, *, precision: str | None, threads: int) -> Self:
        if (info.objects is not None) != cls.of_episodes:
            takes, not_these = ("episodes", "photos") if info.objects is not None else ("photos", "episodes")
            raise UserError(
                f"{folder} is a model of {takes}, not of {not_these}",
                fix=f"give {takes} to 'distill predict {folder}', or choose another model.",
            )
        chosen, path = info.onnx_file(folder, precision)
        embed = open_graph(path, threads=threads)
        model = cls(folder=folder, info=info, precision=chosen, embed=embed, banks=load_banks(folder, info))
        model._try(path)
        return model

    def _try(self, path: Path) -> None:
        try:
            shape = self.embed(self.info.preprocessing.blank()[None]).shape
        except Exception as error:  # onnxruntime's own family, which are not one
            shape, reason = (), reason_of(error)
        else:
            reason = f"it gives {list(shape)}, not [1, {self.info.embed_dim}]"
        if len(shape) != 2 + self.of_episodes or (shape[0], shape[-1]) != (1, self.info.embed_dim):
            raise UserError(
                f"{path} does not do what the model.json beside it says ({reason})", fix=EXPORT_AGAIN
            )

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The words that it can name without candidates; None where it was exported without.

        UserError if they are not what was exported.
        """
        if not {WORDS, ROWS} & self.info.files.keys():
            return None
        for name in (WORDS, ROWS):
            self.info.checked(self.folder, name)
        return Vocabulary.load(self.folder, embed_dim=self.info.embed_dim)

    def class_set(
        self,
        *,
        bank: str | None = None,
        names: Sequence[str] = (),
        banks: Mapping[str, ClassSet] | None = None,
    ) -> ClassSet:
        """Return the classes of a bank, the model's own unless another is named, or those of some names.

        ``names`` are read as :func:`distill.deploy.class_sets.names_in` says: labels of any bank, and what
        none has is a word of the vocabulary. ``banks`` are those to choose from, all unless given.

        UserError if there is no such bank or name; the message tells near ones.
        """
        banks = self.banks if banks is None else banks
        if bank is not None and bank not in banks:
            raise UserError(
                f"{self.folder.name} has no text bank {bank!r:.100}",
                fix=f"{nearest_names(bank, banks)}choose from {', '.join(banks)}.",
            )
        name = bank or self.info.bank
        if not name:
            raise UserError(
                f"{self.folder} gives embeddings alone: its teacher had no texts, so that it knows no names",
                fix="use 'distill embed'; or add class means (distill cache add-texts CACHE --bank means "
                "--from-images) and export the run again.",
            )
        if not names:
            return banks[name]
        chosen = {name: banks[name], **({} if bank else banks)}
        if self.vocabulary is not None and bank is None:
            chosen[VOCABULARY] = self.vocabulary.classes
        return pick(chosen, names_in(names, chosen))

    @cached_property
    def open_set(self) -> ClassSet:
        """The words of the vocabulary as classes; one that is a label of a text bank is of its class.

        UserError where there is no vocabulary.
        """
        if self.vocabulary is None:
            raise UserError(
                f"{self.folder} has no vocabulary to name images from",
                fix="export the run again with --vocabulary default, or choose names.",
            )
        words = self.vocabulary.classes
        classes = [""] * len(words)
        for bank in reversed(self.banks.values()):
            for label, of_class in zip(bank.labels, bank.classes, strict=True):
                place = words.find(label)
                if place is not None:
                    classes[place] = of_class
        return replace(words, classes=tuple(classes))


class Model(Shipped):
    """An exported folder of a student of photos."""

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Return what the graph takes of one RGB image: see :class:`distill.deploy.info.Preprocessing`."""
        steps = self.info.preprocessing
        return self._cut(squash_picture(image, steps.resize, decoder=steps.decoder))

    def prepare_file(self, content: bytes, name: str = "given") -> NDArray[Any]:
        """Return what the graph takes of the bytes of a photo's file, decoded as the run has decoded.

        UnreadableImage if it is none.
        """
        steps = self.info.preprocessing
        return self._cut(squash(content, steps.resize, steps.decoding, decoder=steps.decoder, name=name))

    def _cut(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        steps = self.info.preprocessing
        if steps.where == GRAPH:
            return pixels
        start = round((steps.resize - steps.crop) / 2)
        middle = pixels[start : start + steps.crop, start : start + steps.crop].astype(np.float32)
        mean, std = (np.array(values, dtype=np.float32) * 255 for values in (steps.mean, steps.std))
        return ((middle - mean) / std).transpose(2, 0, 1)

    def answer(
        self, embeddings: NDArray[np.float32], classes: ClassSet, *, top: int = 5, reject: bool = False
    ) -> list[Prediction]:
        """Return the best ``top`` classes of each image.

        UserError if ``reject`` is asked of a model without a threshold for this precision, or of such classes
        that nothing can be said: see :meth:`rejection`.
        """
        similarities = embeddings @ classes.embeddings.T
        logits = similarities / self.info.temperature
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        places = np.argsort(-similarities, axis=1, kind="stable")[:, :top]
        none = self.none_of(embeddings, classes) if reject else np.zeros(len(embeddings), dtype=bool)
        columns = zip(places, scores, similarities, none.tolist(), strict=True)
        return [
            Prediction(labels=labels_of(classes, at, of[at], cosines[at]), none_of_these=nothing)
            for at, of, cosines, nothing in columns
        ]

    def none_of(self, embeddings: NDArray[np.float32], classes: ClassSet) -> NDArray[np.bool_]:
        """Say of each image [B, D] whether it is none of some classes, whatever these are."""
        least = least_odds(self.rejection(classes).thresholds, len(classes))
        return self._scorer.odds(embeddings, classes.embeddings, self._far_from(classes)) < least

    def rejection(self, classes: ClassSet | None = None) -> Reject:
        """Return when an image is none of the classes.

        UserError where that was not set, or cannot be said of ``classes``: of one without a vocabulary, or of
        as many as it has words.
        """
        if self.precision not in self.info.reject:
            raise UserError(
                f"{self.folder} has no threshold to reject by: the run had no ID images to set it on",
                fix="export a run with images set aside (data.id_val=0.1), or with ID test images in --data.",
            )
        reject, names = self.info.reject[self.precision], 0 if classes is None else len(classes)
        if reject.score == MCM and names == 1:
            raise UserError(
                f"{self.folder} has no vocabulary, and of one name alone nothing says what is none of it",
                fix="ask for more names, or export the run again with --vocabulary default.",
            )
        words = len(self.vocabulary) if self.vocabulary is not None else 0
        if reject.score != MCM and names >= words:
            raise UserError(
                f"{names:,} names are asked for, and the vocabulary of {self.folder} has {words:,} words, of "
                "which some are to be none of them",
                fix="ask for fewer names, or export the run again with a larger --vocabulary.",
            )
        return reject

    @cached_property
    def _scorer(self) -> Scorer:
        reject = self.info.reject[self.precision]
        words = self.vocabulary.rows if reject.score != MCM and self.vocabulary is not None else None
        return Scorer(temperature=reject.temperature, words=words)

    @cached_property
    def _far(self) -> dict[tuple[tuple[str, ...], ...], NDArray[np.int64] | None]:
        return {}

    def _far_from(self, classes: ClassSet) -> NDArray[np.int64] | None:
        """Return the words that are far from some classes, remembered of the last ones: each is 0.2 MB."""
        key = (classes.labels, classes.texts)
        kept = self._far
        if key in kept:
            return kept[key]
        far = self._scorer.negatives(classes.embeddings)
        if len(kept) >= REMEMBERED:
            self.__dict__["_far"] = {}  # another thread may read the one before
        self._far[key] = far
        return far


def labels_of(classes: ClassSet, places: Any, scores: Any, similarities: Any) -> tuple[Label, ...]:
    """Return the labels of one image by their places in the class set."""
    return tuple(
        Label(
            label=classes.labels[i],
            class_name=classes.classes[i],
            score=float(score),
            similarity=float(similarity),
        )
        for i, score, similarity in zip(places, scores, similarities, strict=True)
    )


def load_banks(folder: Path, info: ModelInfo) -> dict[str, ClassSet]:
    """Return the text banks of a model folder by name, its own first."""
    names = [name for name in dict.fromkeys([info.bank, *info.banks]) if name]
    return {name: ClassSet.load(folder / bank_file(name), embed_dim=info.embed_dim) for name in names}


def open_graph(path: Path, *, threads: int = 0) -> Embed:
    """Return what runs an ONNX file on the CPU, with onnxruntime.

    UserError if onnxruntime is not installed, or cannot run the file; if it reads another file.
    """
    check_one_file(path)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # of what it optimises it warns at every start
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own family, which are not one
        raise UserError(
            f"onnxruntime cannot run {path} ({reason_of(error)})",
            fix="update onnxruntime, or export the run again.",
        ) from error

    def embed(images: NDArray[Any]) -> NDArray[np.float32]:
        (rows,) = session.run(None, {"image": np.ascontiguousarray(images)})
        return np.asarray(rows, dtype=np.float32)

    return embed
