"""A teacher of one's own: an object that a Python file makes, which the command names, and nothing else does.

``FILE.py:NAME`` is called with no argument. What it gives has ``preprocess(picture)``, a PIL image -> float
tensor [3, H, W], and ``embed_images(images)``, [B, 3, H, W] -> [B, D]; if it reads texts
``embed_texts(texts)``, a list of T strings -> [T, D]; and ``weights_files``, a path or several, where its
weights lie in files. A torch module is moved to the device and the precision; all else is given float32 on
the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from cache.runtime.atomic_files import digest, sha256_of
from cache.runtime.errors import UserError
from cache.runtime.memory_errors import memory_error
from cache.runtime.own_code import OwnCode, own_code_in

# Before the file, which may import torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401
from cache.runtime.transfer import put_on
from cache.store.spec import TeacherSpec
from cache.teacher.image_towers import chosen_precision
from cache.teacher.state_files import check_asked
from cache.teacher.teacher import DTYPES, Asked, PatchTokens, Teacher
from cache.teacher.text_side import Kept

# Of a picture and a text that stand for all, when it is loaded.
BLANK, WORDS = (256, 256), ["a photo", "a drawing of it"]
# What stands behind a text that is shorter than another: no character.
NOTHING = -1


@dataclass(frozen=True, kw_only=True)
class OwnObject:
    """What one's own code made, and that code; each call of it is told in its words where it fails."""

    code: OwnCode
    name: str
    made: Any

    @classmethod
    def of(cls, code: OwnCode, name: str) -> Self:
        """Run the file and call what is named; UserError where that fails or gives no teacher."""
        make = code.function(name, makes="a teacher", takes="no argument")
        with _told(code, f"{name}()"):
            made = make()
        for method in ("preprocess", "embed_images"):
            if not callable(getattr(made, method, None)):
                raise UserError(
                    f"{code.path}: {name}() gives a {type(made).__name__} without {method}",
                    fix="give an object with preprocess(picture) and embed_images(images).",
                )
        if isinstance(made, nn.Module):
            made.eval().requires_grad_(False)
        return cls(code=code, name=name, made=made)

    def called(self, method: str, given: Any, *, shape: tuple[int | None, ...]) -> Tensor:
        """Return what a method gives; UserError unless that is a float tensor of a shape, None for any."""
        with _told(self.code, f"{self.name}.{method}"):
            result = getattr(self.made, method)(given)
        fits = isinstance(result, Tensor) and result.is_floating_point() and result.ndim == len(shape)
        if not fits or any(size not in (None, own) for own, size in zip(result.shape, shape, strict=True)):
            is_tensor = isinstance(result, Tensor)
            gives = f"{_words(result.shape)} of {result.dtype}" if is_tensor else f"a {type(result).__name__}"
            raise UserError(
                f"{self.code.path}: {self.name}.{method} gives {gives}, expected a float tensor "
                f"{_words(shape)}",
                fix="correct the file.",
            )
        return result  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class OwnTransform:
    """Its preprocessing: a picture -> float32 [3, H, W], ``sides`` always; None while these are not known."""

    own: OwnObject
    sides: tuple[int, int] | None = None

    def __call__(self, picture: Image.Image) -> Tensor:
        """Return what it takes of a picture."""
        shape = (3, *(self.sides or (None, None)))
        return self.own.called("preprocess", picture, shape=shape).float().cpu()

    def __reduce__(self) -> tuple[Callable[..., OwnTransform], tuple[Any, ...]]:
        """Be made anew in another process, which knows nothing of the file's classes."""
        return _transform_again, (self.own.code, self.own.name, self.sides)


def _transform_again(code: OwnCode, name: str, sides: tuple[int, int] | None) -> OwnTransform:
    return OwnTransform(own=OwnObject.of(code, name), sides=sides)


@dataclass(frozen=True, kw_only=True)
class OwnImages:
    """Its image side: rows of ``embed_dim`` numbers, None while it is not known how many."""

    own: OwnObject
    embed_dim: int | None = None

    def embed(self, images_B3HW: Tensor) -> Tensor:
        """Return raw embeddings [B, D]."""
        return self.own.called("embed_images", images_B3HW, shape=(len(images_B3HW), self.embed_dim))

    def patch_tokens(self) -> PatchTokens | None:
        """Return None: nobody knows of any."""
        return None

    @property
    def nbytes(self) -> int:
        """How many bytes the weights have; 0 where it is no torch module."""
        made = self.own.made
        return sum(part.nbytes for part in made.parameters()) if isinstance(made, nn.Module) else 0


@dataclass(frozen=True, kw_only=True)
class OwnTexts:
    """Its text side: texts go to it as they are, in batches, and their characters stand for tokens."""

    own: OwnObject
    embed_dim: int

    @property
    def context_length(self) -> int:
        """How many characters it takes: all."""
        return 2**31

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the characters of texts as numbers [T, L], and how many each has."""
        counts = torch.tensor([max(1, len(text)) for text in texts])
        tokens = torch.full((len(texts), int(counts.max())), NOTHING)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text)] = torch.tensor([ord(one) for one in text], dtype=torch.int64)
        return tokens, counts

    def embed(self, tokens_TL: Tensor) -> Tensor:
        """Return raw embeddings [T, D] of such characters."""
        texts = ["".join(chr(one) for one in row if one != NOTHING) for row in tokens_TL.tolist()]
        return self.own.called("embed_texts", texts, shape=(len(texts), self.embed_dim))

    def is_too_long(self, text: str) -> bool:
        """Return False: what it cuts is its own affair."""
        del text
        return False

    def check_kept(self) -> None:
        """Raise a UserError: a cache keeps no code."""
        raise UserError(
            f"the text tower of {self.own.code.path.name}:{self.own.name} is code, which no cache keeps",
            fix="leave --keep-text-tower out.",
        )

    def kept(self) -> Kept:
        """Raise as :meth:`check_kept`."""
        self.check_kept()
        raise AssertionError


def load_own(asked: Asked) -> Teacher:
    """Load the teacher of ``FILE.py:NAME``.

    Its identity are the SHA-256 of the file and of that with the weights that the object names.

    Raises
    ------
    UserError
        If the file cannot be run, or what it gives is no teacher.
    """
    found = own_code_in(asked.model)
    assert found is not None
    path, name = found
    for option, given in (("--pretrained", asked.pretrained), ("--preprocess", asked.preprocessing)):
        if given and given != "model":
            raise UserError(
                f"{option} {given} cannot go with {asked.model}, whose code does that itself",
                fix=f"leave {option} out.",
            )
    own = OwnObject.of(OwnCode.read(path), name)
    weights = _weights_of(own)
    check_asked(f"and the code of {asked.model}", weights, asked.weights_sha256)
    precision, device = _placed(own, asked)
    transform = OwnTransform(own=own)
    blank = transform(Image.new("RGB", BLANK))
    sides = (blank.shape[1], blank.shape[2])
    if asked.compile:
        own = _compiled(own)
    images = OwnImages(own=own)
    with torch.inference_mode():
        embed_dim = images.embed(torch.stack([blank, blank]).to(device, DTYPES[precision])).shape[1]
        texts = OwnTexts(own=own, embed_dim=embed_dim) if hasattr(own.made, "embed_texts") else None
        if texts is not None:
            texts.embed(texts.tokens(WORDS)[0])
    return Teacher(
        spec=_spec(own, asked, precision=precision, sides=sides, weights=weights, reads=texts is not None),
        transform=replace(transform, sides=sides),
        device=device,
        embed_dim=embed_dim,
        images=replace(images, embed_dim=embed_dim),
        texts=texts,
    )


def _spec(
    own: OwnObject, asked: Asked, *, precision: str, sides: tuple[int, int], weights: str, reads: bool
) -> TeacherSpec:
    return TeacherSpec(
        model=asked.model,
        pretrained="its own",
        architecture=own.code.sha256,
        weights_sha256=weights,
        # Which of a file's teachers it is, is told by what it does.
        tokenizer=f"{own.name}.embed_texts" if reads else "",
        preprocessing=asked.preprocessing,
        image_size=sides,
        mean=(),
        std=(),
        interpolation="",
        resize_mode=f"{own.name}.preprocess",
        fill_color=0,
        precision=precision,
    )


def _placed(own: OwnObject, asked: Asked) -> tuple[str, torch.device]:
    """Return the precision and the device that it computes in; a torch module is moved there."""
    if isinstance(own.made, nn.Module):
        precision = chosen_precision(asked.precision, asked.device)
        put_on(own.made.to(DTYPES[precision]), asked.device, asked.model)
        return precision, asked.device
    if asked.precision not in ("auto", "float32"):
        raise UserError(
            f"--precision {asked.precision} is of torch modules, and {own.name}() gives a "
            f"{type(own.made).__name__}",
            fix="leave --precision out: the code computes as it says.",
        )
    return "float32", torch.device("cpu")


def _compiled(own: OwnObject) -> OwnObject:
    """Return it with what embeds images compiled."""
    own.made.embed_images = torch.compile(own.made.embed_images)
    return own


def _weights_of(own: OwnObject) -> str:
    """Return what names the code, what is called in it, and the weights that it says to have read.

    A shipped model knows its teacher by this alone.
    """
    given = getattr(own.made, "weights_files", None) or ()
    files = [Path(one) for one in ([given] if isinstance(given, str | Path) else given)]
    for file in files:
        if not file.is_file():
            raise UserError(
                f"{own.code.path}: {own.name}().weights_files names {file}, which is no file",
                fix="correct the file.",
            )
    return digest([own.code.sha256, own.name, *map(sha256_of, files)])


@contextmanager
def _told(code: OwnCode, what: str) -> Iterator[None]:
    """Turn what one's own code raises into a line that says where."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # it may raise anything
        if full := memory_error(error):
            raise full from error
        raise UserError(
            f"{code.path}: {what} failed ({code.told(error)})", fix="correct the file."
        ) from error


def _words(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
