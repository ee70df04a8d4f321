"""Splits that a rule makes of one labelled source, by hash: ``id_test=0.2,ood_test=0.3 of classes``."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace

from cache.runtime.errors import UserError, WrongOption, some_of
from cache.sources.accounts import Account
from cache.sources.key_hashes import hash_of_key
from cache.sources.samples import Chunk, Listed, Sample, Source

EXAMPLE = "id_test=0.2,ood_test=0.3 of classes"
_SHARE = re.compile(r"(id_test|ood_test)\s*=\s*(0?\.\d+|0|[1-9]\d?%)(\s+of\s+classes)?")
# Hashes that a class or key is chosen by: of another kind than those that cut chunks and order rows.
_CHOSEN_BY = "split "


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """Which share of the images of a class is its ID test, and which share of the classes is the OOD test."""

    id_test: float = 0.0
    ood_test: float = 0.0

    @classmethod
    def parse(cls, text: str) -> SplitRule:
        """Read ``id_test=0.2,ood_test=0.3 of classes``; either alone will do.

        Raises
        ------
        UserError
            If it is not of that form, or a share is not below 1.
        """
        shares: dict[str, float] = {}
        for one in text.split(","):
            match = _SHARE.fullmatch(one.strip())
            if not match or match[1] in shares or (bool(match[3]) != (match[1] == "ood_test")):
                raise WrongOption(
                    f"--split {text!r:.80} is not of the form '{EXAMPLE}'",
                    fix="give a share of each class's images for id_test, and of the classes for ood_test.",
                )
            share = match[2]
            shares[match[1]] = float(share[:-1]) / 100 if share.endswith("%") else float(share)
        return cls(**shares)

    def __str__(self) -> str:
        shares = [f"id_test={self.id_test:g}"] if self.id_test else []
        return ",".join(shares + ([f"ood_test={self.ood_test:g} of classes"] if self.ood_test else []))

    def splits(self) -> tuple[str, ...]:
        """Return the splits that it makes."""
        named = {"id_test": self.id_test, "ood_test": self.ood_test}
        return ("train", *(name for name, share in named.items() if share))

    def ood_classes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the classes of the OOD test, in the order of ``classes``: those of hashes below the share.

        Each by itself, so that a new class moves no other; of a few classes the share is met by chance alone,
        but one at least is on each side where there are two.
        """
        if not self.ood_test or len(classes) < 2:
            return ()
        rising = sorted(classes, key=_chosen)
        below = sum(_chosen(name) < self.ood_test * 2.0**64 for name in rising)
        chosen = {*rising[: min(max(below, 1), len(rising) - 1)]}
        return tuple(name for name in classes if name in chosen)

    def note(self, classes: Sequence[str]) -> str:
        """Return a line on what it makes of images of some classes."""
        tested = self.ood_classes(classes)
        parts = [f"{len(classes) - len(tested):,} of {len(classes):,} classes are trained"]
        if self.id_test:
            parts.append(f"{self.id_test:.0%} of their images are the ID test")
        if tested:
            parts.append(f"{len(tested):,} classes are the OOD test ({some_of(tested)})")
        return f"--split {self}: {', '.join(parts)}"

    def is_test(self, key: str) -> bool:
        """Say whether an image of a trained class is in its ID test."""
        return _chosen(key) < self.id_test * 2.0**64


def _chosen(name: str) -> int:
    return hash_of_key(_CHOSEN_BY + name)


@dataclass(frozen=True, kw_only=True)
class SelectedSource:
    """The samples of a source that are of one split by a rule; keys and chunks are those of the source."""

    source: Source
    split: str
    classes: tuple[str, ...]
    rule: SplitRule

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have several classes, or none."""
        return self.source.multi_label

    def __len__(self) -> int:
        return sum(1 for chunk in self.chunks() for _ in self.list(chunk.id))

    def chunks(self) -> Sequence[Chunk]:
        """Return the chunks of the source, each known by the rule and the classes too."""
        return [
            replace(chunk, identity=f"{chunk.identity} {self.rule} {hash_of_key(repr(self.classes)):016x}")
            for chunk in self.source.chunks()
        ]

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield what is of the split in a chunk."""
        classes = frozenset(self.classes)
        return (one for one in self.source.list(chunk) if self._has(one, classes))

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[Sample]:
        """Yield the samples of the split in a chunk, of ``keys`` alone where there are any."""
        classes = frozenset(self.classes)
        return (one for one in self.source.read(chunk, keys) if self._has(one, classes))

    def account(self) -> Account:
        """Return what is left out of the source: said once, of train."""
        return self.source.account() if self.split == "train" else Account()

    def samples(self, keys: Sequence[str]) -> Iterator[Sample]:
        """Yield samples in the order of keys; KeyError for one that is not of the split."""
        classes = frozenset(self.classes)
        for sample in self.source.samples(keys):
            if not self._has(sample, classes):
                raise KeyError(sample.key)
            yield sample

    def all(self) -> tuple[Sample, ...]:
        """Return every sample of the split, sorted by key."""
        classes = frozenset(self.classes)
        return tuple(sample for sample in self.source.all() if self._has(sample, classes))

    def _has(self, one: Listed | Sample, classes: frozenset[str]) -> bool:
        if not classes.issuperset(one.labels):
            return False
        return self.split == "ood_test" or (self.split == "id_test") == self.rule.is_test(one.key)


def selected(source: Source, rule: SplitRule) -> dict[str, Source]:
    """Return the splits that a rule makes of a labelled source, by name.

    Raises
    ------
    UserError
        If a split would have no class, or of several classes a sample it cannot be said which are trained.
    """
    if source.multi_label and rule.ood_test:
        raise UserError(
            "--split ... of classes cuts classes apart, and here an image may have several",
            fix="give the ID test alone, or name the splits in the list.",
        )
    tested = rule.ood_classes(source.classes)
    trained = tuple(name for name in source.classes if name not in {*tested})
    if not trained or (rule.ood_test and not tested):
        raise UserError(
            f"--split {rule} leaves {len(trained)} classes to train and {len(tested)} to test, of "
            f"{len(source.classes)}",
            fix="choose another share.",
        )
    classes = {"ood_test": tested}
    return {
        name: SelectedSource(source=source, split=name, classes=classes.get(name, trained), rule=rule)
        for name in rule.splits()
    }
