#!/usr/bin/env bash
# The paper's tables for Stanford Cars: 2,874 training images of 98 classes, 98 OOD classes.
#   bash scripts/download_data.sh StanfordCars ARCHIVE
#   bash scripts/paper/stanford_cars.sh ARCHIVE OUT
# Settings of the recipe and the environment are in common.sh; everything after OUT goes to tables.py.
set -euo pipefail
source "$(dirname "$0")/common.sh"
paper StanfordCars data.repeat_epochs=5 -- "$@"
