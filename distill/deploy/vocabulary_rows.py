"""The vocabulary of a model that is exported: which words, and their rows by the student's teacher."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cache.build.add_texts import given_teacher
from cache.build.text_banks import TextEncoder
from cache.reader import EmbeddingCache
from cache.runtime.atomic_files import digest, read_text, replacing
from cache.runtime.devices import choose_device
from cache.runtime.errors import UserError, WrongOption
from cache.runtime.progress import Progress
from cache.sources.episodes import EpisodeFolder
from cache.sources.splits import POOL
from cache.store.npz_files import read_npz
from cache.store.read_errors import READ_ERRORS
from cache.teacher.sanity import check_texts
from cache.teacher.text_tower import TextTower
from distill.deploy.class_heads import name_templates
from distill.deploy.class_sets import ClassSet, folded, unit
from distill.deploy.vocabulary import LICENSE, Vocabulary
from distill.judge.trained_run import TrainedRun
from distill.student.heads import Head

SHIPPED = "default"
SHIPPED_WORDS = Path(__file__).parent / "words" / "nouns.txt"
SHIPPED_LICENSE = SHIPPED_WORDS.parent / "LICENSE"
# Their rows take 0.4 GB of 512 numbers each where the model is used.
MOST_WORDS = 200_000
LONGEST_WORD = 200
TEXTS_AT_ONCE = 256
LONG = 120.0  # seconds
# Of a split, whose second moment weighs what is kept of the words.
MOST_IMAGES = 4096


@dataclass(frozen=True, kw_only=True)
class VocabularySource:
    """Which words a model's vocabulary has, and what embeds them.

    ``words`` is a file, one word a line, or ``default``: those that come with the package. Their rows are
    those of the teacher that is named, else of a text bank of the run's cache that has them all, else of the
    text tower that the cache keeps. ``kept``: a file in which rows of a text tower are kept for the next
    export of the same words.
    """

    words: Path
    teacher_model: str | None = None
    pretrained: str | None = None
    device: str = "auto"
    kept: Path | None = None

    def __post_init__(self) -> None:
        if self.pretrained is not None and self.teacher_model is None:
            raise WrongOption("--pretrained is of --teacher-model", fix="give that too, or leave it out.")

    @property
    def is_shipped(self) -> bool:
        """Whether the words are those that come with the package."""
        return str(self.words) == SHIPPED


def with_vocabulary(
    folder: Path,
    source: VocabularySource | None,
    trained: TrainedRun,
    head: Head,
    banks: dict[str, ClassSet],
    own: str,
    progress: Progress,
) -> tuple[dict[str, ClassSet], int]:
    """Write a model's vocabulary, if it is to have one; return its text banks, and how many words.

    A bank that the words are of, and the student is not of, is the vocabulary, and no text bank any more. A
    text tower embeds the labels of the bank ``own`` too that are not among the words; not of OOD classes.

    UserError if the words cannot be read, or nothing here embeds them; if the run is of episodes.
    """
    if source is None:
        return banks, 0
    if isinstance(trained.folder, EpisodeFolder):
        raise WrongOption(
            "--vocabulary is of photos: an object of an episode has a positive and a negative text",
            fix="leave it out.",
        )
    words = read_words(SHIPPED_WORDS if source.is_shipped else source.words, progress=progress)
    whole = "" if source.teacher_model else next((b for b in banks if _has_all(banks[b], words)), "")
    if whole:
        places = [banks[whole].find(word) for word in words]
        rows = banks[whole].embeddings[np.array(places)]
        progress.note(f"the vocabulary's {len(words):,} words have the rows of the text bank {whole!r}")
    else:
        there = {folded(word) for word in words}
        labels = dict.fromkeys(_labels(trained, banks[own]))
        words += tuple(label for label in labels if folded(label) not in there)
        rows = _embedded(words, source, head, progress=progress)
    Vocabulary(words=words, rows=rows).save(folder, images=_images(head))
    if source.is_shipped:
        shutil.copyfile(SHIPPED_LICENSE, folder / LICENSE)
    if whole and whole != own and not {*banks[own].classes} <= {*banks[whole].classes}:
        banks = {name: classes for name, classes in banks.items() if name != whole}
    return banks, len(words)


def _images(head: Head) -> NDArray[np.float32]:
    """Return unit rows [M, D] of some of the images that a student learnt from, in its space."""
    some: list[NDArray[np.float32]] = []
    for name in ("train", POOL):
        if name in head.cache.manifest.splits:
            rows = head.cache.split(name).embeddings
            at = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_IMAGES)).astype(np.int64))
            some.append(rows[at].astype(np.float32))
    if not some:
        return np.empty((0, head.cache.embed_dim), dtype=np.float32)
    return unit(head.in_its_space(torch.from_numpy(np.concatenate(some))).cpu().numpy())


def _labels(trained: TrainedRun, bank: ClassSet) -> Iterator[str]:
    """Yield the labels of a bank but for classes that the run is to be new to."""
    splits = {name: {*split.classes} for name, split in trained.folder.splits.items()}
    new = splits.get("ood_test", set()) - splits.get("train", set())
    yield from (label for label, of in zip(bank.labels, bank.classes, strict=True) if of not in new)


def read_words(path: Path, *, progress: Progress) -> tuple[str, ...]:
    """Return the words of a file, one a line; one that is there already, but for case, is told of and left.

    UserError if it cannot be read, has none, or what cannot be words.
    """
    lines = [" ".join(line.split()) for line in read_text(path).split("\n")]
    words: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_WORD:
            raise UserError(
                f"{path}, line {number} has {len(line):,} characters", fix="write one word, or name, a line."
            )
        if line:
            words.setdefault(folded(line), line)
    if not words:
        raise UserError(f"{path} has no word", fix="write one word a line.")
    if len(words) > MOST_WORDS:
        raise UserError(
            f"{path} has {len(words):,} words, a vocabulary has {MOST_WORDS:,} at most", fix="give fewer."
        )
    if twice := sum(map(bool, lines)) - len(words):
        progress.note(f"{path}: {twice:,} words are there already, and left out")
    return tuple(words.values())


def _has_all(bank: ClassSet, words: Sequence[str]) -> bool:
    return all(bank.find(word) is not None for word in words)


def _embedded(
    words: Sequence[str], source: VocabularySource, head: Head, *, progress: Progress
) -> NDArray[np.float32]:
    """Return unit rows [N, D] of words in the student's space, by a text tower."""
    templates = name_templates(head.cache, "labels")
    key = digest([list(words), list(templates), head.cache.fingerprint, source.teacher_model])
    rows = _kept(source.kept, key)
    if rows is None:
        encoder = encoder_of(head.cache, source)
        rows = _rows_of(encoder, words, templates, progress=progress)
        if source.kept is not None:
            with replacing(source.kept) as temporary, open(temporary, "wb") as file:
                np.savez(file, rows=rows, key=np.array([key]))
    return unit(head.texts_in_its_space(torch.from_numpy(rows.astype(np.float32))).cpu().numpy())


def _kept(path: Path | None, key: str) -> NDArray[np.float16] | None:
    """Return the rows that a file keeps, if they are of these words; else None: they are made again."""
    if path is None or not path.is_file():
        return None
    try:
        arrays = read_npz(path)
        return arrays["rows"] if arrays["key"].tolist() == [key] else None
    except READ_ERRORS:
        return None


def encoder_of(cache: EmbeddingCache, source: VocabularySource) -> TextEncoder:
    """Return what embeds words: the teacher that is named, else the cache's text tower; UserError without."""
    device = choose_device(source.device)
    if source.teacher_model is not None:
        return given_teacher(cache, source.teacher_model, source.pretrained, device)
    if not cache.text_tower:
        raise UserError(
            f"nothing here embeds the words of --vocabulary: the cache {cache.path} keeps no text tower, and "
            "no text bank of it has them all",
            fix="give --teacher-model; or run cache-features again with --keep-text-tower; or add a text "
            "bank of the words to the cache.",
        )
    return TextTower.load(cache.path, files=cache.text_tower, device=device)


def _rows_of(
    encoder: TextEncoder, words: Sequence[str], templates: Sequence[str], *, progress: Progress
) -> NDArray[np.float16]:
    """Return the mean [N, D] of every word's unit rows in some templates, in float16."""
    # In order of length, so that little of a batch is padding.
    order = sorted(range(len(words)), key=lambda i: (len(words[i]), words[i]))
    rows: NDArray[np.float16] | None = None
    cut = 0
    progress.start(len(words) * len(templates), "embedding the vocabulary", "texts")
    began = time.monotonic()
    for start in range(0, len(order), TEXTS_AT_ONCE):
        if start == TEXTS_AT_ONCE and (left := (time.monotonic() - began) * len(order) / start) > LONG:
            progress.note(f"the vocabulary takes about {left / 60:.0f} minutes, and begins anew once stopped")
        places = order[start : start + TEXTS_AT_ONCE]
        means: torch.Tensor | float = 0.0
        for template in templates:
            texts = [template.replace("{}", words[i]) for i in places]
            embedded, too_long = encoder.embed_texts(texts)
            check_texts(embedded, texts)
            means, cut = means + F.normalize(embedded, dim=1) / len(templates), cut + too_long
            progress.advance(len(texts))
        assert isinstance(means, torch.Tensor)
        if rows is None:
            rows = np.empty((len(words), means.shape[1]), dtype=np.float16)
        rows[places] = means.numpy()
    if cut:
        progress.note(f"{cut:,} texts of the vocabulary are longer than the teacher reads, and were cut")
    assert rows is not None
    return rows
