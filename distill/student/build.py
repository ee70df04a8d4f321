"""Students: any network by its name or of one's own, its last layer an embedding, and its first weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import CacheMismatch, UserError, reason_of
from cache.runtime.own_code import OwnCode, own_code_in
from distill.config import PRETRAINED, SCRATCH, StudentConfig
from distill.data.normalisation import IMAGENET, Normalisation
from distill.student.architecture import START, Architecture, Hub, published_normalisation
from distill.student.names import HUB, TIMM, TORCHVISION, resolve
from distill.student.weights_files import OTHER_START, WeightsFile, load_backbone


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a student was made.

    ``normalisation`` is that of its input; ``start`` says what its first weights were, ``sha256`` of which
    file; ``code`` is the SHA-256 of one's own code, '' of none; ``hub`` what the hub said of it.
    """

    normalisation: Normalisation = IMAGENET
    start: str = SCRATCH
    sha256: str = ""
    code: str = ""
    hub: Hub | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {
            "code": self.code,
            "hub": self.hub.to_json() if self.hub else {},
            "input": self.normalisation.to_json(),
            "first_weights": {"start": self.start, "sha256": self.sha256},
        }

    @classmethod
    def of_checkpoint(cls, state: Mapping[str, Any], *, where: str) -> Self:
        """Read it from a checkpoint; UserError if that does not say it."""
        try:
            first, code = state["first_weights"], state["code"]
            return cls(
                normalisation=Normalisation.from_json(state["input"], where=where),
                start=str(first["start"]),
                sha256=str(first["sha256"]),
                code=str(code),
                hub=Hub.from_json(state["hub"], where=where),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"{where} does not say how its student was made", fix="train the run again."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a student is built from beside its config: one's own ``code``, and how it was ``made`` before.

    ``published`` are the weights of ``student.start=pretrained`` where they have been loaded already.
    """

    code: OwnCode | None = None
    made: Made | None = None
    published: Mapping[str, Tensor] | None = None

    @classmethod
    def of(
        cls, arch: str, code: Path | None, state: Mapping[str, Any] | None = None, *, where: str = ""
    ) -> Self:
        """Return the origin of a student that is new, or of a checkpoint's ``state``.

        UserError if it is one's own code and that is not given, or code is given and it is none;
        CacheMismatch if the code is another than the checkpoint's.
        """
        own = own_code_in(arch)
        if own is None and code is not None:
            raise UserError(
                f"--code {code} is of students of one's own, and this one is {arch}", fix="leave --code out."
            )
        if own is not None and code is None:
            raise UserError(
                f"the student {arch} is code, which is run only where the command names it",
                fix=f"give that file: --code {own[0]}.",
            )
        read = OwnCode.read(code) if code is not None else None
        made = Made.of_checkpoint(state, where=where) if state is not None else None
        if made is not None and made.hub is None and arch.startswith(f"{HUB}:"):
            raise UserError(f"{where} does not say what its {arch} is", fix="train the run again.")
        if made is not None and read is not None and made.code != read.sha256:
            raise CacheMismatch(
                f"{code} is not the code that {where} was trained with (sha256 {read.sha256[:12]}, then "
                f"{made.code[:12]})",
                fix="give the file as it was then.",
            )
        return cls(code=read, made=made)


NEW = Origin()


def start_of(config: StudentConfig, *, starting: bool) -> dict[str, Any]:
    """Return a config's student as :func:`build_student` takes it; its first weights only if ``starting``."""
    return {
        "arch": config.arch,
        "image_size": config.image_size,
        "start": config.start if starting else SCRATCH,
        "kwargs": config.kwargs,
    }


def input_of(config: StudentConfig) -> str:
    """Return what names the normalisation of a config's students: those of equal names have the same.

    Nothing is built or fetched: of what is known by its file alone it is the name of that.
    """
    library, name = resolve(config.arch)
    if config.start not in (SCRATCH, PRETRAINED) or library not in (TORCHVISION, TIMM):
        return repr((config.arch, config.start, config.kwargs))
    return repr(published_normalisation(library, name))


def build_student(
    arch: str,
    *,
    embed_dim: int,
    start: str = SCRATCH,
    kwargs: Sequence[str] = (),
    image_size: int = 224,
    origin: Origin = NEW,
) -> nn.Module:
    """Return a new student: images [B, 3, S, S] float32 -> embeddings [B, embed_dim].

    ``arch`` is a torchvision or timm name; where both have it, torchvision's: ``timm:NAME`` and
    ``torchvision:NAME`` choose; ``hf-hub:ORG/NAME`` is a model of timm's on the hub, ``FILE.py:NAME`` a
    function of ``origin``'s code that takes the size of the embedding. The last layer is new; with ``start``
    pretrained the others are the library's own (downloaded), with a file those in there
    (:class:`WeightsFile`): a last layer of another size is new, anything else must fit. ``kwargs`` are
    ``key=value`` arguments of the network. ``image_size`` is the input's side in pixels. How it was made is
    said by :func:`made_of`; where ``origin`` says how it was before, its weights are yet to be loaded.
    UserError if no model has the name, it cannot take that size, or the weights are missing or do not fit.
    """
    before = origin.made
    architecture = Architecture.of(
        arch, kwargs, image_size, code=origin.code, hub=before.hub if before else None
    )
    start = SCRATCH if before else start
    student = architecture.build(embed_dim)
    made = before or Made(
        normalisation=architecture.normalisation(student),
        start=start,
        code=architecture.code.sha256 if architecture.code else "",
        hub=architecture.hub,
    )
    if start == PRETRAINED:
        _load_published(student, architecture, embed_dim, origin.published or architecture.published())
    elif start != SCRATCH:
        made = _load_file(student, architecture, embed_dim, Path(start), made)
    student.made = made  # type: ignore[assignment]
    _check_output(student, arch, embed_dim, image_size, architecture.code)
    return student


def made_of(student: nn.Module) -> Made:
    """Return how a student of :func:`build_student` was made; of another module the defaults."""
    made = getattr(student, "made", None)
    return made if isinstance(made, Made) else Made()


def _load_published(
    student: nn.Module, architecture: Architecture, embed_dim: int, published: Mapping[str, Tensor]
) -> None:
    head = architecture.head_of(student, embed_dim)
    state = architecture.in_todays_names(dict(published), student)
    # ImageNet's classes are no embedding, also where their number is embed_dim.
    state = {key: value for key, value in state.items() if key not in head}
    if differing := load_backbone(student, state, head):
        raise UserError(
            f"the published file of {architecture.arch} is not of this student ({'; '.join(differing)})",
            fix=START,
        )


def _load_file(
    student: nn.Module, architecture: Architecture, embed_dim: int, path: Path, made: Made
) -> Made:
    """Put a file's weights into a student; return how it was made."""
    file, head = WeightsFile.read(path), architecture.head_of(student, embed_dim)
    state, left_out = file.fitted(student, head, lambda table: architecture.in_todays_names(table, student))
    differing = load_backbone(student, state, head)
    if differing and architecture.library == TIMM:
        # Names of the network's authors, or another input size: timm knows how its own are made of them.
        converted = _as_timm_loads(state, student)
        differing = load_backbone(student, converted, head) if converted else differing
    if differing:
        raise UserError(
            f"{path} is not of this student ({'; '.join(differing)})",
            fix=f"give weights of {architecture.arch}, or {OTHER_START}",
        )
    words = f"{path}, {left_out:,} tensors of other parts left out" if left_out else str(path)
    return Made(
        normalisation=file.normalisation or made.normalisation,
        start=words,
        sha256=sha256_of(path),
        code=made.code,
        hub=made.hub,
    )


def _as_timm_loads(state: dict[str, Tensor], student: nn.Module) -> dict[str, Tensor]:
    """Return a state dict as timm makes its own of published ones; empty where it cannot."""
    convert = getattr(sys.modules[type(student).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return {}
    try:
        return dict(convert(dict(state), student))
    except Exception:  # of names that are no published ones; in what they differ has been said before
        return {}


@torch.no_grad()
def probed(student: nn.Module, channels: int, side: int) -> Any:
    """Return what a student that is judged gives of one image of zeros; it is left as it was."""
    training = student.training
    try:
        return student.eval()(torch.zeros(1, channels, side, side))
    finally:
        student.train(training)


def _check_output(
    student: nn.Module, arch: str, embed_dim: int, image_size: int, code: OwnCode | None
) -> None:
    try:
        output = probed(student, 3, image_size)
    except Exception as error:
        if code is not None:  # which may raise anything
            raise UserError(
                f"{arch} cannot take {image_size} px images ({code.told(error)})",
                fix="correct the file, or give another student.image_size.",
            ) from error
        if not isinstance(error, (RuntimeError, AssertionError, ValueError)):
            raise
        own = getattr(student, "pretrained_cfg", {}).get("input_size", (0,))[-1]  # timm's
        hint = f"set student.image_size to {own}, its own size" if own else "give a larger student.image_size"
        raise UserError(
            f"{arch} cannot take {image_size} px images ({reason_of(error)})",
            fix=f"{hint}, or one that its patches divide.",
        ) from error
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape != (1, embed_dim):
        raise UserError(
            f"{arch} gives outputs {shape}, expected (1, {embed_dim})", fix="choose another student."
        )


def check_eval_size(student: nn.Module, config: StudentConfig) -> None:
    """Make sure that a student of photos can be judged at its ``eval_size``; UserError else."""
    if config.eval_size in (0, config.image_size):
        return
    try:
        probed(student, 3, config.eval_size)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{config.arch} of {config.image_size} px cannot be judged at student.eval_size="
            f"{config.eval_size} ({reason_of(error)})",
            fix="set student.eval_size=0, or choose a network that takes any size.",
        ) from error
