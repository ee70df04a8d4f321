#!/usr/bin/env bash
# The paper's tables for Oxford 102 Flower: 3,112 training images of 51 classes, 51 OOD classes.
#   bash scripts/download_data.sh Flower102 ARCHIVE
#   bash scripts/paper/flower102.sh ARCHIVE OUT
# Settings of the recipe and the environment are in common.sh; everything after OUT goes to tables.py.
set -euo pipefail
source "$(dirname "$0")/common.sh"
paper Flower102 data.repeat_epochs=5 -- "$@"
