"""``model.json``: everything about a shipped model but its weights and texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import replacing, sha256_of
from cache.runtime.errors import UserError, nearest_names, other_schema, reason_of
from cache.runtime.folder_kinds import is_instead
from cache.runtime.json_values import value_of
from cache.sources.decoders import DECODERS, PILLOW
from cache.sources.decoding import PLAIN, Decoding
from cache.sources.episode_keys import EpisodeKeys
from cache.sources.names import is_plain_name
from cache.store.checksums import has_its_checksum, with_checksum
from cache.store.read_errors import READ_ERRORS
from cache.store.spec import IMPORTED
from distill.config import HEADS
from distill.judge.calibration import Calibration
from distill.judge.rejection import Reject
from distill.record.run_files import CHECKPOINTS

NAME = "model.json"
SCHEMA_VERSION = 1
ONNX = {"float32": "model.onnx", "float16": "model.float16.onnx", "int8": "model.int8.onnx"}
PRECISIONS = tuple(ONNX)
PROGRAM, WEIGHTS = "model.pt2", "model.safetensors"
OUTSIDE, GRAPH = "outside", "graph"
# A side: a batch of 32 such pictures takes 1.6 GB.
MOST_PIXELS = 4096
MOST_OUTPUTS = 2**16 - 1
EXPORT_AGAIN = "copy the folder again, or export the run again."
SOURCE_WORDS = ("distill", "run", "checkpoint", "data", "fingerprint", "teacher_name", "config")
TEACHER_WORDS = ("model", "pretrained", "weights_sha256")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an RGB photo, or the cameras of an episode, to what the student takes.

    A photo is squashed to ``resize`` x ``resize`` pixels (bilinear), its middle ``crop`` x ``crop`` cut out
    and scaled to 0..1; an episode's pictures are resized to ``crop`` x ``crop`` (bicubic) and stacked, RGB in
    0..1 and depth. Then ``mean`` is taken off, and what is left divided by ``std``. ``where`` says who does
    it: ``outside`` leaves it to the caller, and the graph takes ``image`` float32 [B, 3, crop, crop];
    ``graph`` takes ``image`` uint8 [B, H, W, 3]. ``decoding`` says how the file of a photo becomes one, and
    ``decoder`` by what (:mod:`cache.sources.decoders`).
    """

    where: str
    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoding: Decoding = PLAIN
    decoder: str = PILLOW

    def __post_init__(self) -> None:
        if self.where not in (OUTSIDE, GRAPH):
            raise ValueError(f"preprocessing is {self.where!r}")
        if self.decoder not in DECODERS:
            raise ValueError(f"photos are decoded by {self.decoder!r:.40}")
        if not 0 < self.crop <= self.resize <= MOST_PIXELS:
            raise ValueError(f"images are squashed to {self.resize!r} and cut to {self.crop!r}")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std are {self.mean} and {self.std}, not a number a channel")

    @property
    def channels(self) -> int:
        """How many channels the student takes."""
        return len(self.mean)

    def blank(self) -> NDArray[Any]:
        """Return a picture of zeros, as the graph takes it."""
        if self.where == GRAPH:
            return np.zeros((self.resize, self.resize, 3), dtype=np.uint8)
        return np.zeros((self.channels, self.crop, self.crop), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class ObjectScores:
    """How a model of episodes scores objects: from an embedding [L, D], of L locations, one where not local.

    A text's cosine is sum_L softmax_L(cosine / temperature) * cosine, an object's score the sigmoid of its
    positive text's cosine less its negative one's, divided by temperature, plus ``bias``, clamped to 0..1. It
    is there from ``threshold`` on. ``keys`` say where its files have their pictures, ``negatives`` what bank
    has the negative texts of a bank of positive ones.
    """

    keys: EpisodeKeys
    local: bool
    bias: float
    threshold: float
    negatives: dict[str, str]

    def __post_init__(self) -> None:
        if not (-1 <= self.bias <= 1 and -1 <= self.threshold <= 1):
            raise ValueError(f"bias and threshold are {self.bias} and {self.threshold}")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A shipped model in words and numbers.

    A student of several teachers has more ``outputs`` than ``embed_dim``: their embeddings side by side, of
    which one is shipped.

    It was built for ``image_size`` pixels with ``kwargs``; ``code`` is the SHA-256 of one's own code.

    ``files`` are what was exported, by name, with the SHA-256 of each; ``banks`` the names of the text banks,
    ``bank`` the one that classifies unless another is chosen ('', with no banks, of a student whose teacher
    has no texts: it gives embeddings alone); ``measured`` what each precision does on the
    test images; ``unlike`` the mean cosine to the student, by precision, of those that answer otherwise;
    ``text_mean`` what is taken off the unit row of a text before it is compared, where the student is of the
    teacher's centred space (the banks are so already), else empty; ``calibration`` how ``temperature`` was
    fitted, None where it is that of the training; ``reject`` when an image is none of the classes, by
    precision; ``vocabulary`` how many words it can name without candidates; ``objects`` how the objects of
    episodes are scored, None for photos; ``head`` and ``hidden`` are the student's (``student.head``);
    ``source`` where it comes from, in words: nothing is opened or loaded by them.
    """

    name: str
    arch: str
    embed_dim: int
    outputs: int
    parameters: int
    preprocessing: Preprocessing
    temperature: float
    bank: str
    banks: tuple[str, ...]
    id_classes: tuple[str, ...]
    ood_classes: tuple[str, ...]
    templates: tuple[str, ...] = ()
    text_mean: tuple[float, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    unlike: dict[str, float] = field(default_factory=dict)
    calibration: Calibration | None = None
    reject: dict[str, Reject] = field(default_factory=dict)
    objects: ObjectScores | None = None
    head: str = "linear"
    hidden: int = 0
    source: dict[str, Any] = field(default_factory=dict)
    license: str = "unknown"
    image_size: int = 0
    kwargs: tuple[str, ...] = ()
    code: str = ""
    vocabulary: int = 0

    def save(self, folder: Path) -> None:
        """Write ``model.json``, whole or not at all."""
        with replacing(folder / NAME) as temporary:
            value = {"schema_version": SCHEMA_VERSION, **asdict(self)}
            temporary.write_text(with_checksum(value) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ModelInfo:
        """Read a model folder.

        UserError if it is no such folder, another version wrote it, or the file is damaged.
        """
        path = folder / NAME
        if not path.is_file():
            raise UserError(
                f"{folder} is not an exported model{is_instead(folder)}: it has no {NAME}",
                fix="give a folder that 'distill export RUN --out MODEL' wrote.",
            )
        with undamaged(path):
            text = path.read_text(encoding="utf-8")
            value = json.loads(text)
            if not isinstance(value, dict):
                raise ValueError("it is no table")
            version = value["schema_version"]
            if version != SCHEMA_VERSION:
                raise other_schema(path, version, SCHEMA_VERSION)
            if not has_its_checksum(text):
                raise ValueError("it differs from its checksum")
            ours = {f.name for f in fields(cls)}
            return value_of(cls, {name: value[name] for name in value if name in ours}, name="it")

    def __post_init__(self) -> None:
        """Raise a ValueError for what a folder from elsewhere may say, and no export writes."""
        if not (0 < self.embed_dim <= MOST_OUTPUTS and 0 < self.outputs <= MOST_OUTPUTS):
            raise ValueError(f"embed_dim is {self.embed_dim!r} of {self.outputs!r} outputs")
        if self.head not in HEADS or not 0 <= self.hidden <= MOST_OUTPUTS:
            raise ValueError(f"head is {self.head!r:.40} of {self.hidden!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature!r}")
        if len(self.text_mean) not in (0, self.embed_dim):
            raise ValueError(f"text_mean has {len(self.text_mean)} numbers, embed_dim is {self.embed_dim}")
        for name in self.banks:
            if not is_plain_name(name):
                raise ValueError(f"{name!r} cannot name a text bank")
        if self.bank not in self.banks and (self.bank or self.banks or self.objects):
            raise ValueError(f"it has no text bank {self.bank!r}")
        self._check_objects()
        teacher = self.source.get("teacher")
        words = [self.source.get(name) for name in SOURCE_WORDS]
        words += [teacher.get(name) for name in TEACHER_WORDS] if isinstance(teacher, dict) else [None]
        if not all(isinstance(word, str) for word in words) or self.checkpoint not in CHECKPOINTS:
            raise ValueError("source does not say where it comes from")

    def _check_objects(self) -> None:
        cameras = self.objects.keys.with_depth if self.objects else (False,)
        if self.preprocessing.channels != sum(4 if depth else 3 for depth in cameras):
            raise ValueError(f"its {len(cameras)} cameras are not {self.preprocessing.channels} channels")
        pairs = self.objects.negatives if self.objects else {}
        if not {*pairs, *pairs.values()} <= {*self.banks} or (self.objects and self.bank not in pairs):
            raise ValueError("a text bank has no negative one")

    @property
    def checkpoint(self) -> str:
        """Which of its run's checkpoints it is."""
        return str(self.source["checkpoint"])

    @property
    def teacher_weights(self) -> str | None:
        """The SHA-256 of its teacher's weights; None where rows were imported, which do not tell it."""
        teacher = self.source["teacher"]
        return None if teacher["pretrained"] == IMPORTED else str(teacher["weights_sha256"])

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions whose ONNX file is here."""
        return tuple(name for name in PRECISIONS if ONNX[name] in self.files)

    def warning(self, precision: str) -> str:
        """Return a line that says that a precision does not answer as its student does; empty if it does."""
        if precision not in self.unlike:
            return ""
        return (
            f"the {precision} file does not answer as the student does: its embeddings have a mean cosine of "
            f"{self.unlike[precision]:.3f} with the student's; take another precision if its accuracy matters"
        )

    def onnx_file(self, folder: Path, precision: str | None) -> tuple[str, Path]:
        """Return a precision and its ONNX file; None is the first there is.

        UserError if it was not exported, or the file is missing or is not what was exported.
        """
        chosen = precision or next(iter(self.precisions), None)
        if chosen is None or chosen not in self.precisions:
            there = ", ".join(self.precisions) or "none"
            raise UserError(
                f"{folder} holds no ONNX model of precision {chosen or 'float32'} (it has {there})",
                fix=f"{nearest_names(chosen or '', self.precisions)}export the run with --precisions "
                f"{','.join([*self.precisions, chosen or 'float32'])}.",
            )
        return chosen, self.checked(folder, ONNX[chosen])

    def checked(self, folder: Path, name: str) -> Path:
        """Return the path of one of the model's files; UserError unless it is what was exported."""
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing", fix=EXPORT_AGAIN)
        if sha256_of(path) != self.files.get(name):
            raise UserError(f"{path} is damaged (it differs from its checksum)", fix=EXPORT_AGAIN)
        return path


def bank_file(name: str) -> str:
    """Return a text bank's file in the model's folder."""
    return f"texts/{name}.npz"


@contextmanager
def undamaged(path: Path, *, what: str = "") -> Iterator[None]:
    """Turn what reading a damaged file of a model's folder raises into a UserError."""
    try:
        yield
    except READ_ERRORS as error:
        raise UserError(f"{what}{path} is damaged ({reason_of(error)})", fix=EXPORT_AGAIN) from error
