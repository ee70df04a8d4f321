#!/usr/bin/env bash
# Sets up a virtual environment and runs the main job on the embedded default: draw, cache, train, export, ask.
#   bash scripts/demo.sh            in .venv, results in artifacts/demo
#   VENV=DIR bash scripts/demo.sh --out DIR
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
echo "installing into $VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e ".[export]"
"$VENV/bin/distill" demo "$@"
