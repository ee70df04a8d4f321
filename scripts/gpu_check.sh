#!/usr/bin/env bash
# What this machine's GPU reaches, in 8 minutes and 16 GB at most; installs nothing where nothing is missing.
#   bash scripts/gpu_check.sh                    every part, on the first GPU; JSON and a table in artifacts/gpu
#   bash scripts/gpu_check.sh --multi            and two processes by NCCL, where there are two GPUs
#   bash scripts/gpu_check.sh --device cpu       the same in a small form without a GPU
#   bash scripts/gpu_check.sh --out DIR          results go to DIR
#   bash scripts/gpu_check.sh --keep MACHINE     and into BENCHMARKS.md, under this name of the machine
#   bash scripts/gpu_check.sh --list-wheels      what it needs beside torch
#   WHEELS=DIR bash scripts/gpu_check.sh         takes what is missing from wheels in DIR, without a network
#   PYTHON=FILE bash scripts/gpu_check.sh        another Python than python3
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu_check.py" "$@"
