"""The teacher, whatever library it is of. Never imported by training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from cache.runtime.transfer import fetched_later, moved_beside
from cache.store.spec import TeacherSpec
from cache.teacher.eight_bit import EightBit
from cache.teacher.text_side import BATCH, TextSide, embedded_texts, token_ids

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
REGIONS_PER_SIDE = 7

# The module whose output are all tokens, and what makes the patches' embeddings of them.
PatchTokens = tuple[nn.Module, Callable[[Tensor], Tensor]]


class ImageSide(Protocol):
    """Preprocessed pictures of a teacher -> embeddings."""

    def embed(self, images_B3HW: Tensor) -> Tensor:
        """Return raw embeddings [B, D], where they were computed, of images on the teacher's device."""

    def patch_tokens(self) -> PatchTokens | None:
        """Return where the patches' embeddings come from; None where it has none."""

    @property
    def nbytes(self) -> int:
        """How many bytes its weights have."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which teacher is to be loaded, and how: the words of :func:`cache.teacher.load.load_teacher`."""

    model: str
    pretrained: str | None
    preprocessing: str
    precision: str
    compile: bool
    device: torch.device
    weights_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A loaded teacher: embeds images, and texts if it can, into a space of ``embed_dim`` numbers.

    ``transform`` is its whole preprocessing, ``eight_bit`` the same in two halves, where it has such.
    """

    spec: TeacherSpec
    transform: Callable[[Any], Tensor]
    device: torch.device
    embed_dim: int
    images: ImageSide
    texts: TextSide | None = None
    eight_bit: EightBit | None = None

    @property
    def takes_pixels(self) -> bool:
        """Whether its GPU makes numbers of pixels, uint8, which workers send it then."""
        return self.eight_bit is not None and self.device.type == "cuda"

    @property
    def in_workers(self) -> Callable[[Any], Tensor]:
        """What is done to a picture where it is decoded."""
        if self.eight_bit is not None and self.takes_pixels:
            return self.eight_bit.pixels
        return self.transform

    @property
    def reads_texts(self) -> bool:
        """Whether it embeds texts as well."""
        return self.texts is not None

    def embed_images(self, images_B3HW: Tensor) -> Tensor:
        """Return raw embeddings [B, D] float32 on the CPU for images [B, 3, H, W].

        They are as ``transform`` gives them, float32, or as ``in_workers`` does.
        """
        return self.start_images(images_B3HW)()

    @torch.inference_mode()
    def start_images(self, images_B3HW: Tensor) -> Callable[[], Tensor]:
        """Begin :meth:`embed_images`, and return what waits for the embeddings.

        A GPU computes while its caller goes on; so start the next batch before waiting for this one.
        """
        dtype = DTYPES[self.spec.precision]
        if images_B3HW.dtype == torch.uint8 and self.eight_bit is not None:
            images = self.eight_bit.numbers(moved_beside(images_B3HW, self.device, torch.uint8), dtype)
        else:
            images = moved_beside(images_B3HW, self.device, dtype)
        return fetched_later(self.images.embed(images).float())

    def check_regions(self) -> None:
        """Make sure that :meth:`embed_regions` can work; UserError else."""
        self._patch_tokens()

    @torch.inference_mode()
    def embed_regions(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings as :meth:`embed_images` does, and those of 7x7 regions, [B, 49, D], row by row.

        A region is the mean of the patch tokens in it, each put through the tower's final norm and
        projection in place of its class token.

        Raises
        ------
        UserError
            If the image tower is no ViT, or its pooling is a learnt one.
        """
        tokens: list[Tensor] = []
        last, project = self._patch_tokens()
        hook = last.register_forward_hook(lambda module, given, output: tokens.append(output))
        try:
            embeddings = self.embed_images(images_B3HW)
        finally:
            hook.remove()
        # On the CPU: Apple's GPUs pool to sides alone that divide the grid's.
        patches = project(tokens[0]).float().cpu()
        count, (height, width) = patches.shape[1], images_B3HW.shape[2:]
        down = round(math.sqrt(count * height / width))  # patches are square
        grid = patches.transpose(1, 2).unflatten(2, (down, count // down))
        pooled = F.adaptive_avg_pool2d(grid, REGIONS_PER_SIDE)
        return embeddings, pooled.flatten(2).transpose(1, 2)

    def _patch_tokens(self) -> PatchTokens:
        found = self.images.patch_tokens()
        if found is None:
            raise UserError(
                f"the image tower of {self.spec.model} has no patch tokens that can be embedded one by one",
                fix="leave --regions out, or choose a ViT teacher without attention pooling.",
            )
        return found

    @torch.inference_mode()
    def embed_texts(
        self, texts: Sequence[str], *, batch_size: int = BATCH, progress: Progress | None = None
    ) -> tuple[Tensor, int]:
        """Return raw embeddings [T, D] float32 on the CPU, in the order given, and how many texts were cut.

        UserError if it reads no texts.
        """
        side = self.text_side()
        if not texts:  # of a row group of which no row is seen any more
            return torch.empty(0, self.embed_dim), 0
        return embedded_texts(side, texts, batch_size=batch_size, progress=progress)

    def is_too_long(self, text: str) -> bool:
        """Say whether a text is cut to fit the context; UserError if it reads no texts."""
        return self.text_side().is_too_long(text)

    def token_ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return what is read of each text: its tokens, cut to the context; UserError without texts."""
        return token_ids(self.text_side(), texts)

    def text_side(self) -> TextSide:
        """Return what reads its texts; UserError if nothing does."""
        if self.texts is None:
            raise UserError(
                f"the teacher {self.spec.model} reads no texts",
                fix="choose one that does for this, such as CLIP, or leave out what is of texts.",
            )
        return self.texts
