#!/usr/bin/env bash
# The paper's tables for tiered-ImageNet, a subset of ImageNet. Its split lists are not published: bring your own.
#   bash scripts/download_data.sh tiered-ImageNet ARCHIVE
#   bash scripts/paper/tiered_imagenet.sh ARCHIVE OUT
# Settings of the recipe and the environment are in common.sh; everything after OUT goes to tables.py.
set -euo pipefail
source "$(dirname "$0")/common.sh"
LARGE=1 paper tiered-ImageNet data.repeat_epochs=1 -- "$@"
