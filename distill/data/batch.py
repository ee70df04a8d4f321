"""What crosses from data to the loop: B images with their cached teacher targets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor

from cache.runtime.distributed import current_ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Which rows of a batch of ``total`` one process computes: ``start`` to ``stop``."""

    total: int
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The rows as a slice."""
        return slice(self.start, self.stop)

    @classmethod
    def whole(cls, total: int) -> Share:
        """Return all of a batch."""
        return cls(total=total, start=0, stop=total)

    @classmethod
    def of(cls, total: int, rank: int, world: int) -> Share:
        """Return the share of one of ``world`` processes."""
        return cls(total=total, start=total * rank // world, stop=total * (rank + 1) // world)


def own_share(total: int) -> Share:
    """Return this process's share of a batch; shares differ by one row at most."""
    ranks = current_ranks()
    return Share.of(total, ranks.rank, ranks.world)


@dataclass(frozen=True, kw_only=True, slots=True)
class Crops:
    """What is shown of every image of a batch, a view that the cache keeps: ``view_B`` int64 is its number.

    The whole picture goes through RandAugment, ``operation_OB`` of a ``magnitude`` as
    :func:`cache.sources.rand_augment.draw_operations` gives them, none where O is 0. Then ``box_B4`` is cut
    out, (left, top, width, height) float32 as fractions of the image; ``flip_B`` bool mirrors it.
    """

    view_B: Tensor
    box_B4: Tensor
    flip_B: Tensor
    operation_OB: Tensor
    magnitude: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What one teacher gave for B images.

    ``teacher_BD`` and ``caption_BD`` are raw embeddings, float32; ``nearest_BK`` int32 class labels and
    ``similarity_BK`` their cosines.
    """

    teacher_BD: Tensor
    caption_BD: Tensor | None = None
    nearest_BK: Tensor | None = None
    similarity_BK: Tensor | None = None

    @property
    def neighbours(self) -> tuple[Tensor, Tensor] | None:
        """The teacher's nearest texts as :func:`distill.objective.distillation_objective` takes them."""
        if self.nearest_BK is None or self.similarity_BK is None:
            return None
        return self.nearest_BK, self.similarity_BK

    def tensors(self) -> dict[str, Tensor]:
        """Return what there is, by name."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in tensors.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """What every image of a batch is mixed with: image ``other_B`` int64, of which it keeps a ``share``."""

    share: float
    other_B: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B images, and one :class:`Targets` for every teacher. Row i of every tensor is one image.

    ``image_BXRR`` is what :mod:`distill.data.pixels` decoded, X channels, uint8 for photos, or what the
    student takes once they are augmented; with several processes it has this one's share of the rows alone.
    ``label_B`` int64, multi-hot [B, C] where an image has several. With a ``mix`` images are mixed,
    labels and targets still their own.
    """

    image_BXRR: Tensor
    label_B: Tensor
    targets: tuple[Targets, ...]
    mix: Mix | None = None

    def __post_init__(self) -> None:
        rows = [self.label_B, *(t for each in self.targets for t in each.tensors().values())]
        sizes = {len(tensor) for tensor in rows}
        assert len(sizes) == 1, f"rows do not line up: {sizes}"
        assert len(self.image_BXRR) <= len(self.label_B)

    def of_others(self, mix: Mix) -> Batch:
        """Return the same images with labels and targets of those that they are mixed with."""
        rows = [{name: value[mix.other_B] for name, value in own.tensors().items()} for own in self.targets]
        targets = tuple(Targets(**own) for own in rows)
        return replace(self, label_B=self.label_B[mix.other_B], targets=targets, mix=None)
