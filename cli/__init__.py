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

from cli.root import main
from distill.commands import cache as caches
from distill.commands import cache_features as features
from distill.commands import doctor, models, predictions, reports, robotics, students
from distill.commands import prepare as data
from distill.commands import sweep as sweeps

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
