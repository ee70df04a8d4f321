# What every script here does with one data set, from the extracted archive to the table. Sourced by them.
#   paper DATASET SETTINGS... -- ARCHIVE OUT [options of tables.py]
# Environment, with the paper's values as defaults:
#   RECIPE=resnet18               or vit_b_32, or a TOML file
#   MODEL=ViT-L-14-quickgelu      the teacher, an open_clip name or local-dir:FOLDER
#   PRETRAINED=openai             its weights; empty where MODEL brings its own
#   LISTS=ARCHIVE/lists           the published split lists, label2text.txt and chatgpt.txt
#   CAPTIONER=                    a transformers image-to-text model; empty: ARCHIVE/captions.jsonl, if it is there
#   VIEWS=10                      views of a support image, for few-shot retrieval; 0 for none
#   PYTHON=python                 of an environment with distill installed

# A checkout works without being installed.
PYTHONPATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH

paper() {
  local dataset=$1 settings=()
  shift
  while [ "$1" != -- ]; do
    settings+=(--set "$1")
    shift
  done
  shift
  if [ $# -lt 2 ]; then
    echo "Usage: bash $0 ARCHIVE OUT [--seeds 0,1,2] [--set KEY=VALUE]...   (see scripts/paper/common.sh)" >&2
    exit 2
  fi
  local archive=$1 out=$2 python=${PYTHON:-python} recipe=${RECIPE:-resnet18}
  shift 2
  local model=${MODEL:-ViT-L-14-quickgelu} weights=${PRETRAINED-openai}
  # The paper repeats small sets five times an epoch; large ones once, or three times for a ViT.
  if [ "$recipe" = vit_b_32 ] && [ "${LARGE:-0}" = 1 ]; then
    settings+=(--set data.repeat_epochs=3)
  fi
  "$python" -P -m cli split "$archive" --out "$out/data" --dataset "$dataset" --lists "${LISTS:-$archive/lists}"
  local captions=()
  if [ -n "${CAPTIONER:-}" ]; then
    [ -f "$out/data/captions.jsonl" ] || "$python" -P -m cli caption "$out/data" --model "$CAPTIONER"
  elif [ -f "$archive/captions.jsonl" ]; then
    captions=(--captions "$archive/captions.jsonl")
  fi
  "$python" -P -m cli cache-features "$out/data" --out "$out/cache" --model "$model" \
    ${weights:+--pretrained "$weights"} --support-views "${VIEWS:-10}" --support-shots 16 "${captions[@]}"
  "$python" "$(dirname "${BASH_SOURCE[0]}")/tables.py" --data "$out/data" --cache "$out/cache" \
    --out "$out/runs" --recipe "$recipe" "${settings[@]}" "$@"
}
