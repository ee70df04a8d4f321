"""The command ``distill``: each command parses, calls one function, prints.

    root        the command itself, and how an error is told
    parts       kinds of options, tables
    data        split, describe, caption
    features    cache-features
    caches      cache info, verify, import, convert, add-prompts
    students    train, evaluate, fewshot, demo
    sweeps      sweep
    reports     report, compare
    robotics    the same for episodes

Every import of torch, h5py and the like stands inside a command: --help does not wait for them.
"""

from cli import caches, data, features, reports, robotics, students, sweeps
from cli.root import main

__all__ = ["caches", "data", "features", "main", "reports", "robotics", "students", "sweeps"]
