"""Digests of a split that can be added up: they are the same however its rows are grouped.

A row's hash is a number below 2**256, a digest is the sum of its rows' hashes modulo 2**256 (the additive
multiset hash of Clarke et al., Asiacrypt 2003). So the digest of a split is the sum of its row groups',
less that of the rows that were removed, and costs nothing but reading the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Self

_MODULUS = 2**256


def is_digest(text: str) -> bool:
    """Say whether a text is a digest: 64 hexadecimal digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


@dataclass(frozen=True, kw_only=True, slots=True)
class Digests:
    """What names some rows: their ``keys``, the ``content`` of their images, and their ``labels``.

    Each is 64 hexadecimal digits. Two sets of rows with equal digests hold the same in any order.
    """

    keys: str = "0" * 64
    content: str = "0" * 64
    labels: str = "0" * 64

    def __post_init__(self) -> None:
        for part in fields(self):
            text = getattr(self, part.name)
            if not is_digest(text):
                raise ValueError(f"{part.name} is no digest: {text!r:.80}")

    @classmethod
    def of(cls, keys: Sequence[str], content: Sequence[bytes], labels: Sequence[Sequence[str]]) -> Self:
        """Return those of rows: their keys, the SHA-256 of each image, and each one's class names."""
        names = ("\0".join(sorted(of_row)).encode("utf-8", "surrogateescape") for of_row in labels)
        return cls(
            keys=digest_of_keys(keys),
            content=digest_of_values(keys, content),
            labels=digest_of_values(keys, names),
        )

    def __add__(self, other: Digests) -> Digests:
        return self._with(other, 1)

    def __sub__(self, other: Digests) -> Digests:
        return self._with(other, -1)

    def _with(self, other: Digests, sign: int) -> Digests:
        sums = {
            digest.name: _hex(
                int(getattr(self, digest.name), 16) + sign * int(getattr(other, digest.name), 16)
            )
            for digest in fields(self)
        }
        return Digests(**sums)


NONE = Digests()
"""Of no rows."""


def digest_of_keys(keys: Sequence[str]) -> str:
    """Return the digest of the keys of some rows."""
    return _sum(sha256(raw).digest() for raw in _raw(keys))


def digest_of_values(keys: Sequence[str], values: Iterable[bytes]) -> str:
    """Return the digest of something of each row, such as its embedding: 64 hexadecimal digits."""
    return _sum(sha256(raw + b"\0" + value).digest() for raw, value in zip(_raw(keys), values, strict=True))


def added(digests: Iterable[str]) -> str:
    """Return the sum of the digests of some rows: the digest of all of them."""
    return _hex(sum(int(digest, 16) for digest in digests))


def _raw(keys: Sequence[str]) -> Iterable[bytes]:
    # Names of files may be no UTF-8.
    return (key.encode("utf-8", "surrogateescape") for key in keys)


def _sum(hashes: Iterable[bytes]) -> str:
    return _hex(sum(int.from_bytes(one, "big") for one in hashes))


def _hex(number: int) -> str:
    return f"{number % _MODULUS:064x}"
