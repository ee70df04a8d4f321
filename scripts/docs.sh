#!/usr/bin/env bash
# Sets up a virtual environment and builds the documentation's site into site/; a link or an anchor that leads
# nowhere ends it. Nothing is asked of a network but by pip.
#   bash scripts/docs.sh            in .venv-docs
#   VENV=DIR bash scripts/docs.sh   in another folder
#   bash scripts/docs.sh serve      shows it at http://127.0.0.1:8000, anew whenever a file changes
# What else is given is given to mkdocs.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv-docs}
PYTHON=${PYTHON:-python3}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e ".[docs]"
if [ "$#" = 0 ]; then set -- build; fi
# Of a theme that says on every build what its makers do next.
export NO_MKDOCS_2_WARNING=1
"$VENV/bin/python" -m mkdocs "$@"
