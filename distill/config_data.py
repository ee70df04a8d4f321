"""The settings of how training images are drawn: ``data`` of a run's config."""

from __future__ import annotations

from dataclasses import dataclass

from cache.runtime import machine_limits
from cache.sources.decoders import AUTO, DECODERS
from distill.config_fields import accepted, at_least, check_fields, one_of, require


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How training images are drawn.

    ``repeat_epochs`` is how often an epoch goes over the images; ``scale_min`` is the least share of an image
    that a crop keeps; ``policy`` is crop_flip, flip, randaugment or none; ``per_image`` false draws one crop
    for a whole batch, as the original research code; ``id_val`` is the share of train set aside to choose on;
    ``seed`` decides the order and the augmentation, -1 leaves that to ``train.seed``;
    ``pixels`` auto reads the images that the cache keeps, files always decodes; ``decoder`` of photos is
    torchvision or pillow, auto the faster that loads, which the run then keeps to; ``device_images`` says
    whether decoded images are kept on the device: auto on CUDA where they fit, on, off; ``memory_mb`` is how
    much memory decoded images may take otherwise before they are decoded anew every epoch (never more than
    half of the machine's); ``shuffle_buffer`` is how many images a process holds to mix them where a cache's
    tars are streamed; ``workers`` are the processes that decode, -1 by the machine: all cores beside a GPU,
    else one (never more than four a core, or 16); ``replay_views`` replays what the cache keeps of views,
    each with the teacher's embedding of it, in place of ``policy`` and ``scale_min``: auto wherever it has
    them of every image; ``shared_classes`` lets classes be in train and in the OOD test as well;
    ``pool_share`` is the share of a batch that are images without a label, -1 by their number;
    ``class_val`` is the share of train's classes set aside to choose on, ``pool_val`` that of a pool alone
    which is compared with the teacher's answers; ``choose_by`` says whether id_val or class_val chooses the
    best checkpoint, auto is id_val where there is one; ``balanced`` draws every class alike often;
    ``mixup`` is alpha of that (arXiv 1710.09412), 0 is off.
    """

    repeat_epochs: int = at_least(1, 1, most=machine_limits.EPOCH_REPEATS)
    policy: str = one_of("crop_flip", "flip", "randaugment", "none")
    per_image: bool = True
    scale_min: float = accepted(0.08, lambda value: 0 < value <= 1, "give a share from 0 to 1.")
    id_val: float = accepted(0.0, lambda value: 0 <= value < 1, "give a share below 1.")
    seed: int = at_least(-1, -1, fix="give at least 0, or -1 for train.seed.")
    pixels: str = one_of("auto", "files")
    decoder: str = one_of(AUTO, *DECODERS)
    device_images: str = one_of("auto", "on", "off")
    memory_mb: int = at_least(0, 2048)
    shuffle_buffer: int = at_least(1, 4096)
    workers: int = at_least(
        -1, -1, fix="give at least 0, or -1: by the machine.", most=machine_limits.WORKERS
    )
    replay_views: str = one_of("auto", "on", "off")
    shared_classes: bool = False
    pool_share: float = accepted(
        -1.0, lambda value: value == -1 or 0 <= value < 1, "give a share below 1, or -1: by their number."
    )
    class_val: float = accepted(0.0, lambda value: 0 <= value < 1, "give a share below 1.")
    pool_val: float = accepted(0.0, lambda value: 0 <= value < 1, "give a share below 1.")
    choose_by: str = one_of("auto", "id_val", "class_val")
    balanced: bool = False
    mixup: float = at_least(0, 0.0, fix="give a number above 0, such as 0.2, or 0 for none.")

    def __post_init__(self) -> None:
        check_fields("data", self)
        require(
            self.choose_by == "auto" or getattr(self, self.choose_by) > 0,
            f"data.choose_by is {self.choose_by} with data.{self.choose_by}=0",
            f"set data.{self.choose_by}=0.1, or data.choose_by=auto.",
        )
        require(
            self.replay_views != "on" or self.crops_each,
            f"data.replay_views is on with data.policy={self.policy}, "
            f"data.per_image={str(self.per_image).lower()}",
            "views are crops, one an image: set data.policy=crop_flip and data.per_image=true.",
        )

    @property
    def crops_each(self) -> bool:
        """Whether images are cropped, each on its own."""
        return self.per_image and self.policy in ("crop_flip", "randaugment")
