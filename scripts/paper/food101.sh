#!/usr/bin/env bash
# The paper's tables for Food-101: 35,700 training images of 51 classes, 50 OOD classes.
#   bash scripts/download_data.sh Food101 ARCHIVE
#   bash scripts/paper/food101.sh ARCHIVE OUT
# Settings of the recipe and the environment are in common.sh; everything after OUT goes to tables.py.
set -euo pipefail
source "$(dirname "$0")/common.sh"
LARGE=1 paper Food101 data.repeat_epochs=1 -- "$@"
