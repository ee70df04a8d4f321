"""Means of a run's weights, judged beside the last ones: a moving average, and one with the first weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distill.config import OptimConfig
from distill.judge.model import Model, learner_of
from distill.record.run_files import AVERAGED, EMA


class Averages:
    """The means that a config asks for, of all that is learnt: student and prompts, with their buffers.

    ``ema`` is timm's moving average over the optimiser's steps. Its decay begins at 0 and rises to the
    config's as 1 - n^(-2/3) over n steps, so that no short run keeps its first weights. ``averaged`` is the
    mean of the first and the last weights (WiSE-FT, arXiv 2109.01903).
    """

    def __init__(self, model: Model, config: OptimConfig) -> None:
        """Begin with the weights that a student has now."""
        learner = learner_of(model)
        self._learnt = nn.ModuleList([model.student, *([learner] if learner is not None else [])])
        self._decay, self._share = config.ema, config.average_with_start
        self.begin()

    def begin(self) -> None:
        """Begin anew: what a student has now are its first weights, as after a head by ridge."""
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._steps, self._ema = 0, _moving_average(self._learnt, self._decay) if self._decay else None
        self._start = self._copied() if self._share else {}

    def keep(self, name: str) -> None:
        """Take what a student has now for a mean that was made elsewhere, such as one of several heads."""
        self._kept[name] = self._copied()

    def _copied(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._learnt.state_dict().items()}

    @property
    def names(self) -> list[str]:
        """The means that there are, as results and files are called."""
        return [*([EMA] if self._ema is not None else []), *([AVERAGED] if self._share else []), *self._kept]

    def update(self) -> None:
        """Take in the weights after a step of the optimiser."""
        if self._ema is not None:
            self._steps += 1
            self._ema.update(self._learnt, step=self._steps)

    @contextmanager
    def in_place(self, name: str) -> Iterator[None]:
        """Have a mean's weights in the student and its prompts, within."""
        own: Mapping[str, Tensor] = self._learnt.state_dict()
        kept = {key: value.clone() for key, value in own.items()}
        _copy(own, self._weights(name, own))
        try:
            yield
        finally:
            _copy(own, kept)

    def _weights(self, name: str, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if name == EMA:
            assert self._ema is not None
            return self._ema.module.state_dict()
        if name in self._kept:
            return self._kept[name]
        return {
            key: torch.lerp(value, self._start[key], self._share) if value.is_floating_point() else value
            for key, value in own.items()
        }

    def state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        ema = self._ema.module.state_dict() if self._ema is not None else {}
        return {"steps": self._steps, EMA: dict(ema), "start": self._start, "kept": self._kept}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of the same config."""
        self._steps, self._start, self._kept = state["steps"], state["start"], state["kept"]
        if self._ema is not None:
            self._ema.module.load_state_dict(state[EMA])


def _moving_average(learnt: nn.Module, decay: float) -> Any:
    import cache.runtime.torchvision_compat  # noqa: F401  # before timm, which imports it  # isort: skip
    from timm.utils import ModelEmaV3  # here, because it takes a second

    return ModelEmaV3(learnt, decay=decay, use_warmup=True)


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    for name, value in into.items():
        value.copy_(weights[name])
