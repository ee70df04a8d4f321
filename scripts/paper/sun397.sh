#!/usr/bin/env bash
# The paper's tables for SUN397: 38,663 training images of 200 classes, 197 OOD classes.
#   bash scripts/download_data.sh SUN397 ARCHIVE
#   bash scripts/paper/sun397.sh ARCHIVE OUT
# Settings of the recipe and the environment are in common.sh; everything after OUT goes to tables.py.
set -euo pipefail
source "$(dirname "$0")/common.sh"
LARGE=1 paper SUN397 data.repeat_epochs=1 -- "$@"
