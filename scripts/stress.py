"""Stress distill on purpose.

    python scripts/stress.py torture --faults 256      faults of 45 kinds, and what they cost
    python scripts/stress.py fuzz --seconds 60         files of every kind, changed until a reader gives in
    python scripts/stress.py load --images 100000      memory and open files through both stages
    python scripts/stress.py million                   a million samples in tars, a kill and a resume

NAME --help tells what each does and takes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import bench

NAMES = ("torture", "fuzz", "load", "million")
# Which are benchmarks too.
MEASURED = ("load", "million")


def main(words: Sequence[str] | None = None) -> None:
    """Do what the first word names; the load run is a benchmark too."""
    words = sys.argv[1:] if words is None else list(words)
    if words and words[0] in MEASURED:
        bench.main(words)
        return
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)
    parser.add_argument("name", choices=NAMES, help="NAME --help tells more.")
    module = importlib.import_module(f"stress.{parser.parse_args(words[:1]).name}")
    prog = f"stress.py {words[0]}"
    own = argparse.ArgumentParser(prog=prog, description=module.__doc__, formatter_class=as_it_is)
    bench.add_options(own, module.OPTIONS)
    sys.exit(module.run(own.parse_args(words[1:])))


if __name__ == "__main__":
    main()
