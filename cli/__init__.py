"""The command ``distill``: each command parses, calls one function, prints.

    root        the command itself, and how an error is told
    parts       kinds of options, tables
    data        split, describe, caption
    features    cache-features
    caches      cache info, verify, import, convert, add-prompts
    students    train, evaluate, fewshot, demo
    sweeps      sweep
    reports     report, compare
    models      export, texts, bench-model
    predictions predict, serve
    robotics    the same for episodes
    doctor      what this machine has

Every import of torch, h5py and the like stands inside a command: --help does not wait for them.
"""

from cli import caches, data, doctor, features, models, predictions, reports, robotics, students, sweeps
from cli.root import main

__all__ = [
    "caches",
    "data",
    "doctor",
    "features",
    "main",
    "models",
    "predictions",
    "reports",
    "robotics",
    "students",
    "sweeps",
]
