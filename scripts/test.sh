#!/usr/bin/env bash
# Sets up a virtual environment and runs everything a commit needs: ruff, mypy, the quick tests.
#   bash scripts/test.sh            in .venv-test
#   bash scripts/test.sh --all      with the tests that take minutes, which are marked "long"
#   VENV=DIR bash scripts/test.sh   in another folder
# What else is given is given to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv-test}
PYTHON=${PYTHON:-python3}
if [ "${1:-}" = --all ]; then
    shift
    set -- -m "" "$@"
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e ".[dev]"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/mypy"
# One thread a process: files of tests run side by side, each in one process, which makes its caches and runs once.
OMP_NUM_THREADS=1 "$VENV/bin/python" -m pytest -n auto --dist loadfile "$@"
