"""Where things lie in a file of episodes: the research code's own keys, or those that a mapping file names.

objects = "@objects"           # a dataset of texts, or behind an @ an attribute
episodes = "data"              # the group that holds the episodes; left out: the file itself
main = "wrist"                 # whose embedding the student learns; left out: the first camera's
step = -1                      # which time, where axes has a T; left out: 0
[[cameras]]
rgb = "obs/front_rgb"
name = "front"                 # left out: camera_1, camera_2, ...
axes = "THWC"                  # left out: HWC
white = 1.0                    # what is full brightness; left out: 255, as uint8
[[cameras]]
name = "wrist"
rgb = "obs/wrist_rgb"
depth = "obs/wrist_depth"      # left out: the camera has none
depth_axes = "HW"              # left out: as axes
depth_scale = 0.001            # to the unit of the depth; left out: 1.0
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from cache.runtime.errors import UserError, nearest_names, reason_of
from cache.sources.names import check_inner, is_plain_name

MOST_CAMERAS = 32
WHITE = 255.0
# Columns of a cache are VIEW_embedding: these are taken.
TAKEN = ("image", "caption", "text")


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraKeys:
    """One camera: the keys of its pictures within an episode, and their form.

    ``axes`` names the axes of ``rgb`` in their order: H, W, C and, where there are several times, T;
    ``depth_axes`` those of ``depth``, which may have no C. ``white`` is what full brightness is, and
    ``depth_scale`` what depth is multiplied with.
    """

    rgb: str
    name: str = ""
    depth: str = ""
    axes: str = "HWC"
    depth_axes: str = ""
    white: float = WHITE
    depth_scale: float = 1.0

    def __post_init__(self) -> None:
        check_inner("a key", [self.rgb, *([self.depth] if self.depth else [])])
        if not is_plain_name(self.name) or self.name in TAKEN:
            raise ValueError(f"a camera is called {self.name!r:.80}, which cannot name a column")
        if sorted(self.axes.replace("T", "", 1)) != ["C", "H", "W"]:
            raise ValueError(f"axes is {self.axes!r:.40}, which is not H, W and C, and T where there is time")
        if sorted(self.axes_of_depth.replace("T", "", 1).replace("C", "", 1)) != ["H", "W"]:
            raise ValueError(
                f"depth_axes is {self.depth_axes!r:.40}, which is not H and W, and C and T at most"
            )
        for name, value in (("white", self.white), ("depth_scale", self.depth_scale)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}, which is not above 0")

    @property
    def axes_of_depth(self) -> str:
        """The axes of the depth."""
        return self.depth_axes or self.axes

    @property
    def channels(self) -> int:
        """How many channels the student sees of it."""
        return 4 if self.depth else 3


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeKeys:
    """What a file of episodes calls its parts; the cameras are in the order of the student's channels."""

    cameras: tuple[CameraKeys, ...]
    objects: str
    episodes: str = ""
    main: str = ""
    step: int = 0

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        if not 0 < len(names) <= MOST_CAMERAS or len(set(names)) < len(names):
            raise ValueError(f"there are {len(names)} cameras of {len(set(names))} names")
        if self.main and self.main not in names:
            raise ValueError(f"main is {self.main!r:.80}, and the cameras are {', '.join(names)}")
        dataset, _, attribute = self.objects.partition("@")
        check_inner("a key", [name for name in (dataset, self.episodes) if name])
        if not dataset and not attribute:
            raise ValueError("objects is empty")

    @property
    def main_camera(self) -> CameraKeys:
        """The camera whose embedding the student is compared with."""
        return next((camera for camera in self.cameras if camera.name == self.main), self.cameras[0])

    @property
    def views(self) -> tuple[str, ...]:
        """What stage 1 calls each camera's picture: the main one is ``image``, and comes first."""
        main = self.main_camera
        return ("image", *(camera.name for camera in self.cameras if camera is not main))

    @property
    def with_depth(self) -> tuple[bool, ...]:
        """Whether each camera has depth."""
        return tuple(bool(camera.depth) for camera in self.cameras)

    def place(self, key: str, name: str = "") -> str:
        """Return where a part of an episode lies in the file."""
        return "/".join(part for part in (self.episodes, key, name) if part)

    @classmethod
    def from_json(cls, value: Any) -> EpisodeKeys:
        """Return the keys of a table with the fields' names; ValueError for what cannot be meant."""
        table = _checked(cls, value, "the mapping")
        cameras = table.pop("cameras")
        return cls(
            cameras=tuple(
                CameraKeys(**{"name": f"camera_{number}", **_checked(CameraKeys, camera, f"camera {number}")})
                for number, camera in enumerate(cameras, start=1)
            ),
            **table,
        )

    @classmethod
    def load(cls, path: Path) -> EpisodeKeys:
        """Read a mapping file; UserError where it is none."""
        try:
            return cls.from_json(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path} maps no keys ({reason_of(error)})",
                fix='write it as: objects = "labels", then for every camera [[cameras]] and rgb = "obs/rgb".',
            ) from error


def _checked(of: type, value: Any, where: str) -> dict[str, Any]:
    """Return a table's values in the types of a class's fields; ValueError where they are of others."""
    types = get_type_hints(of)
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is no table")
    table: dict[str, Any] = {}
    for name, given in value.items():
        if name not in types:
            near = nearest_names(str(name), types).removesuffix(" ")
            raise ValueError(f"{where} has {name!r:.40}, which is no setting: {near or ', '.join(types)}")
        wanted = types[name] if types[name] in (str, int, float) else (list, tuple)
        if wanted is float and type(given) is int:
            given = float(given)
        if not isinstance(given, wanted) or isinstance(given, bool):
            raise ValueError(f"{name} of {where} is {given!r:.40}")
        table[name] = given
    for field in fields(of):
        if field.default is MISSING and field.name not in table:
            raise ValueError(f"{where} has no {field.name}")
    return table


RESEARCH_KEYS = EpisodeKeys(
    cameras=tuple(
        CameraKeys(
            name=name,
            rgb=f"dict_str_{name}_camera/dict_str_rgb",
            depth=f"dict_str_{name}_camera/dict_str_depth",
        )
        for name in ("base", "hand")
    ),
    objects="model_ids",
    main="hand",
)
"""The research code's own files: a base and a hand camera, each with depth."""
