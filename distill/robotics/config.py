"""The whole of a robotics run: an ordinary run's settings, and those that only robotics has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cache.sources.splits import MAIN_TEACHER
from distill.config import RunConfig, require, require_choice


@dataclass(frozen=True, kw_only=True, slots=True)
class RoboticsConfig:
    """What only robotics has.

    ``local`` classifies every location of the last feature map and aggregates; ``negative_text`` names the
    text bank of the negative prompts; ``threshold`` is the score from which an object counts as found;
    ``gamma_neg``, ``gamma_pos`` and ``clip`` are the asymmetric loss's.
    """

    local: bool = False
    negative_text: str = "negative_labels"
    threshold: float = 0.5
    gamma_neg: float = 2.0
    gamma_pos: float = 1.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        for name in ("gamma_neg", "gamma_pos"):
            require(getattr(self, name) >= 0, f"robotics.{name} is {getattr(self, name)}", "give at least 0.")
        for name in ("threshold", "clip"):
            require(
                0 <= getattr(self, name) < 1,
                f"robotics.{name} is {getattr(self, name)}",
                "give a number from 0 to 1.",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RoboticsRunConfig(RunConfig):
    """Everything that can change a robotics run's result; ``fewshot.shots`` counts episodes."""

    recipe_folder: ClassVar[Path] = Path(__file__).parent / "recipes"
    robotics: RoboticsConfig = field(default_factory=RoboticsConfig)

    def __post_init__(self) -> None:
        # Not super(): slots make the decorator build the class anew, which the short form does not see.
        RunConfig.__post_init__(self)
        for name in ("vlalign", "cap", "mse_raw"):
            require(
                not getattr(self.loss, name),
                f"loss.{name} is on, but episodes are trained with cls, mse and im_cst",
                f"set loss.{name}=0.",
            )
        require_choice("data.policy", self.data.policy, ("flip", "none"))
        require_choice("prompts.learner", self.prompts.learner, ("none", "coop"))
        require(
            self.teachers == (MAIN_TEACHER,),
            f"teachers is {list(self.teachers)}, but a cache of episodes has one",
            f'leave it at ["{MAIN_TEACHER}"].',
        )
