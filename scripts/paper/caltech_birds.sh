#!/usr/bin/env bash
# The paper's tables for Caltech-UCSD Birds 200-2011: 4,122 training images of 100 classes, 100 OOD classes.
#   bash scripts/download_data.sh CaltechBirds ARCHIVE
#   bash scripts/paper/caltech_birds.sh ARCHIVE OUT
# Settings of the recipe and the environment are in common.sh; everything after OUT goes to tables.py.
set -euo pipefail
source "$(dirname "$0")/common.sh"
paper CaltechBirds data.repeat_epochs=5 -- "$@"
