"""Small files of episodes as a stranger would write them."""

from __future__ import annotations

import h5py
import numpy as np

CAMERAS = ("dict_str_base_camera", "dict_str_hand_camera")


def write_episode(file, key, objects, *, size=(20, 24), rng=None):
    """One episode as a stranger would write it."""
    rng = rng or np.random.default_rng(0)
    for camera in CAMERAS:
        file[f"{key}/{camera}/dict_str_rgb"] = rng.integers(0, 256, size=(*size, 3), dtype=np.uint8)
        file[f"{key}/{camera}/dict_str_depth"] = rng.uniform(0.2, 2, size=(*size, 1)).astype(np.float32)
    file[f"{key}/model_ids"] = np.array([name.encode() for name in objects])


def written_episodes(out):
    """A small folder of episodes of different resolutions, with gzip as h5py users like it."""
    out.mkdir()
    rng = np.random.default_rng(1)
    with h5py.File(out / "train.h5", "w") as file:
        write_episode(file, "traj_1", ["011_banana", "025_mug"], rng=rng)
        write_episode(file, "traj.0", ["025_mug"], size=(48, 64), rng=rng)
    with h5py.File(out / "val.h5", "w") as file:
        write_episode(file, "traj_9", ["013_apple", "011_banana"], rng=rng)
        write_episode(file, "traj_8", ["005_tomato_soup_can"], rng=rng)
    return out
