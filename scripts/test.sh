#!/usr/bin/env bash
# Sets up a virtual environment and runs everything a commit needs: ruff, mypy, all tests.
#   bash scripts/test.sh            in .venv-test
#   VENV=DIR bash scripts/test.sh   in another folder
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv-test}
PYTHON=${PYTHON:-python3}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e ".[dev]"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/mypy"
# One thread a process: tests run side by side.
OMP_NUM_THREADS=1 "$VENV/bin/python" -m pytest -n auto "$@"
