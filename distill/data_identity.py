"""What a run was made from and judged on, as one small value that every file of the run carries.

It holds digests, counts and names, never a path: the same data in another place is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

from cache.runtime.atomic_files import digest
from cache.runtime.errors import CacheMismatch, UserError, some_of
from cache.runtime.json_values import dataclass_of
from cache.sources.splits import POOL

DIGITS = 16
Sides = tuple[str, str]
"""What two identities that are compared are called, such as here and there."""
SIDES: Sides = ("here", "when it was trained")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitIdentity:
    """The images of one split: how many, their classes, and digests of their keys and of their content.

    ``labels`` is of labels that the keys do not tell, ``rows`` of the teacher's rows where they were made
    elsewhere, so that the content of the images does not tell them, ``left_out`` of images that are not
    judged, because class means were made of them; all are else empty.
    """

    images: int
    class_names: tuple[str, ...]
    keys: str
    content: str
    labels: str = ""
    rows: str = ""
    left_out: str = ""

    def differences(self, other: SplitIdentity, sides: Sides = SIDES) -> list[str]:
        """Return what separates two splits in a few words each; nothing where they are one."""
        lines = _classes_that_differ(self.class_names, other.class_names, sides)
        if self.images != other.images:
            lines.append(f"{self.images:,} images {sides[0]}, {other.images:,} {sides[1]}")
        # Each of these has the next in its wake.
        reasons = {
            "keys": "other names of images",
            "content": "other images under the same names",
            "labels": "other labels of the same images",
            "rows": "other rows of the same images",
            "left_out": "other images left out, which class means were made of",
        }
        differ = (words for name, words in reasons.items() if getattr(self, name) != getattr(other, name))
        return lines or list(differ)[:1]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataIdentity:
    """What a student learns from, what it is judged on, and what it is judged with.

    Parameters
    ----------
    learnt_from, judged_on
        Splits by name: all images of ``train`` and of the ``pool`` that have a row; all of every test split.
    teachers
        The fingerprint of every teacher, by its name.
    texts
        A digest of every class's texts, by ``TEACHER/BANK`` and class.
    captions
        A digest of the captions by split, where the student learns from them.
    views, pixels
        Which views of its images it learns from, and whether these were compressed once more; else empty.
    """

    learnt_from: dict[str, SplitIdentity] = field(default_factory=dict)
    judged_on: dict[str, SplitIdentity] = field(default_factory=dict)
    teachers: dict[str, str] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    views: str = ""
    pixels: str = ""

    def digest(self) -> str:
        """Return 16 hexadecimal digits that name all of it."""
        return digest(asdict(self))[:DIGITS]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, its digest first."""
        return {"digest": self.digest(), **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> DataIdentity:
        """Return what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            table = {name: part for name, part in value.items() if name != "digest"}
            identity: DataIdentity = dataclass_of(cls, table, name="data")
            if identity.digest() != value["digest"]:
                raise ValueError("its digest is another's")
        except (AttributeError, KeyError, ValueError) as error:
            raise ValueError(f"the data of the run is not there ({error})") from error
        return identity

    def differences(self, other: DataIdentity, sides: Sides = SIDES) -> list[str]:
        """Return one readable line for everything that separates two identities.

        What a setting chooses (a pool, teachers, banks, captions, views) is compared where both have it.
        """
        chosen = {POOL} - (self.learnt_from.keys() & other.learnt_from.keys())
        mine, theirs = (
            {name: one for name, one in learnt.items() if name not in chosen}
            for learnt in (self.learnt_from, other.learnt_from)
        )
        lines = [
            *_split_lines(mine, theirs, sides),
            *self.judged_differences(other, sides),
            *self.tool_differences(other, sides),
        ]
        unlike = (n for n, mine in self.captions.items() if _unlike(mine, other.captions.get(n)))
        lines += [f"captions of {name}: other texts" for name in unlike]
        if _unlike(self.views, other.views):
            lines.append(_line("views", self.views, other.views, sides))
        if self.pixels != other.pixels:
            here, there = (one.pixels or "as they are in the files" for one in (self, other))
            lines.append(_line("training images", here, there, sides))
        return lines

    def judged_differences(self, other: DataIdentity, sides: Sides = SIDES) -> list[str]:
        """Return the lines for the images that students are judged on."""
        return _split_lines(self.judged_on, other.judged_on, sides)

    def split_differences(self, name: str, now: SplitIdentity) -> list[str]:
        """Return in what a split is ``now`` not what it was; nothing where it is."""
        then = {**self.learnt_from, **self.judged_on}.get(name)
        return now.differences(then) if then else [f"{now.images:,} images {SIDES[0]}, none {SIDES[1]}"]

    def tool_differences(self, other: DataIdentity, sides: Sides = SIDES) -> list[str]:
        """Return the lines for what students are judged with: the teachers and the texts of the classes."""
        lines = [
            _line(f"teacher {name}", mine, other.teachers[name], sides)
            for name, mine in self.teachers.items()
            if _unlike(mine, other.teachers.get(name))
        ]
        for name, texts in self.texts.items():
            theirs = other.texts.get(name, {})
            if differ := [label for label, mine in texts.items() if _unlike(mine, theirs.get(label))]:
                lines.append(f"text bank {name}: other texts of {some_of(differ)}")
        return lines

    def joined(self, other: DataIdentity) -> DataIdentity:
        """Return this with what a setting chose of another, from which nothing separates it."""
        banks = {**other.texts, **self.texts}
        return replace(
            self,
            learnt_from={**other.learnt_from, **self.learnt_from},
            teachers={**other.teachers, **self.teachers},
            texts={name: {**other.texts.get(name, {}), **banks[name]} for name in banks},
            captions={**other.captions, **self.captions},
            views=self.views or other.views,
        )


def identity_in(state: Mapping[str, Any], where: object) -> DataIdentity:
    """Return the identity that a checkpoint or summary holds; ``where`` names it in the error.

    Raises
    ------
    UserError
        If it holds none.
    """
    try:
        return DataIdentity.from_json(state.get("data"))
    except ValueError as error:
        raise UserError(
            f"{where} does not say what data it was made from", fix="train the run again."
        ) from error


def refuse_other_data(lines: Sequence[str], *, where: object, fix: str) -> None:
    """Refuse to go on with data that something was not made from; ``lines`` say what differs, if anything.

    Raises
    ------
    CacheMismatch
        If something does.
    """
    if lines:
        raise CacheMismatch(f"{where} was made from other data ({'; '.join(lines)})", fix=fix)


def _line(what: str, mine: str, theirs: str, sides: Sides) -> str:
    return f"{what}: {mine} {sides[0]}, {theirs} {sides[1]}"


def _split_lines(
    mine: Mapping[str, SplitIdentity], theirs: Mapping[str, SplitIdentity], sides: Sides
) -> list[str]:
    lines = []
    for name in dict.fromkeys([*mine, *theirs]):
        one, other = mine.get(name), theirs.get(name)
        if one and other:
            if differ := one.differences(other, sides):
                lines.append(f"{name}: {', '.join(differ)}")
        elif images := one or other:
            has, lacks = sides if one else reversed(sides)
            lines.append(f"{name}: {images.images:,} images {has}, none {lacks}")
    return lines


def _classes_that_differ(mine: Sequence[str], theirs: Sequence[str], sides: Sides) -> list[str]:
    only = [set(mine) - set(theirs), set(theirs) - set(mine)]
    lines = [
        f"classes only {side}: {some_of(sorted(names))}"
        for names, side in zip(only, sides, strict=True)
        if names
    ]
    return lines or (["classes in another order"] if mine != theirs else [])


def _unlike(mine: str, theirs: str | None) -> bool:
    """Say whether both have something that a setting chose, and it is not the same."""
    return bool(mine and theirs and mine != theirs)


def digest_of(pieces: Sequence[bytes]) -> str:
    """Return the digest of byte strings in their order; none of them may be mistaken for two."""
    joined = sha256()
    for piece in pieces:
        joined.update(len(piece).to_bytes(8, "big"))
        joined.update(piece)
    return joined.hexdigest()[:DIGITS]
