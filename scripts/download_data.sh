#!/usr/bin/env bash
# Fetches one data set's archive and its published split lists; see usage below.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: bash scripts/download_data.sh DATASET FOLDER

Fetches the archive of a data set, checks its MD5, extracts it into FOLDER, and fetches the published
split lists, class names and descriptions into FOLDER/lists. Run again, it goes on where it stopped.

DATASET, in any case:
  CaltechBirds     1.2 GB   CUB-200-2011
  Flower102        0.3 GB   Oxford 102 Flower
  Food101            5 GB   Food-101
  SUN397            37 GB   SUN397
  StanfordCars              images by hand: the script says where from, then checks that they are there
  tiered-ImageNet           images by hand, likewise

Then: distill split FOLDER --dataset DATASET --lists FOLDER/lists --out LIST.csv

Needs curl or wget, md5sum and tar. FOLDER needs room for the archive and for its images; the archive
may be removed afterwards.

Environment:
  DISTILL_MIRROR   URL prefix to fetch from instead of the publishers: PREFIX/ARCHIVE and
                   PREFIX/lists/DATASET/FILE. Archives must have the same MD5.

Exit status: 0 all there, 1 something is missing or wrong, 2 wrong usage.
TEXT
}

LISTS_URL=https://raw.githubusercontent.com/xuanlinli17/large_vlm_distillation_ood
# The lists and the texts are taken at fixed commits: a list that changes is another split.
LISTS_COMMIT=6ca86370b88f58776c3e984cbb49c88862a295c6
TEXTS_COMMIT=8548bb5636ce288fabfe6d8472cbd1c05fee9b2b
ATTEMPTS=5

fail() {
  echo "Error: $*" >&2
  exit 1
}

# Sets NAME, and either URL and MD5, or PAGE, STEPS and IMAGES where images must be fetched by hand.
choose() {
  URL='' MD5='' PAGE='' STEPS='' IMAGES=()
  case "${1,,}" in
    caltechbirds)
      NAME=CaltechBirds
      URL=https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz
      MD5=97eceeb196236b17998738112f37df78
      ;;
    flower102)
      NAME=Flower102
      URL=https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz
      MD5=52808999861908f626f3c1f4e79d11fa
      ;;
    food101)
      NAME=Food101
      URL=http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz
      MD5=85eeb15f3717b99a5da872d97d918f87
      ;;
    sun397)
      NAME=SUN397
      URL=http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz
      MD5=8ca2778205c41d23104230ba66911c7a
      ;;
    stanfordcars)
      NAME=StanfordCars
      PAGE=https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset
      STEPS="log in, press Download, and unpack the folder cars_train"
      IMAGES=(cars_train)
      ;;
    tiered-imagenet)
      NAME=tiered-ImageNet
      PAGE=https://lyy.mpi-inf.mpg.de/mtl/download/
      STEPS="agree to the terms, download tiered-imagenet, and unpack the folder tiered_imagenet"
      IMAGES=(tiered_imagenet/train train)
      ;;
    *) return 1 ;;
  esac
}

# fetch URL FILE: one attempt, from where FILE ends.
fetch() {
  local shown=(--silent --show-error)
  if [ -t 2 ]; then shown=(--progress-bar); fi
  if command -v curl >/dev/null; then
    curl --fail --location "${shown[@]}" --connect-timeout 30 --continue-at - --output "$2" "$1"
  else
    wget --no-verbose --continue --timeout=30 --tries=1 --output-document="$2" "$1"
  fi
}

has_md5() {
  [ -f "$1" ] && [ "$(md5sum <"$1" | cut -d' ' -f1)" = "$2" ]
}

# resume URL FILE: several attempts, each from where the one before broke off.
resume() {
  local attempt status
  for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
    echo "fetching $1 ($(stat -c %s "$2" 2>/dev/null || echo 0) bytes are there)"
    status=0
    fetch "$1" "$2" || status=$?
    if [ "$status" -eq 0 ]; then return; fi
    # curl's 33: the server cannot resume, so only a fresh start can succeed.
    if [ "$status" -eq 33 ]; then rm -f "$2"; fi
    sleep "$((attempt - 1))"
  done
  fail "$1 could not be fetched. Fix: run again to go on; if that does not help, remove $2."
}

# fetch_archive URL FILE MD5: an archive gets its own name only once its checksum is right.
fetch_archive() {
  local part=$2.part
  if has_md5 "$2" "$3"; then return; fi
  if ! has_md5 "$part" "$3"; then
    resume "$1" "$part"
    if ! has_md5 "$part" "$3"; then
      mv "$part" "$2.wrong"
      fail "the MD5 of $2.wrong is not $3; it was not extracted. Fix: remove it and run again."
    fi
  fi
  mv "$part" "$2"
}

# Extracted only once; the mark comes last, so that a killed extraction is done again.
get_images() {
  local folder=$1 file mark
  file="$folder/${URL##*/}"
  mark="$folder/.extracted-${URL##*/}"
  if [ -e "$mark" ]; then return; fi
  if [ -n "${DISTILL_MIRROR:-}" ]; then URL="$DISTILL_MIRROR/${URL##*/}"; fi
  fetch_archive "$URL" "$file" "$MD5"
  echo "extracting $file"
  tar --extract --no-same-owner --file "$file" --directory "$folder" || fail "$file could not be extracted."
  touch "$mark"
}

check_images() {
  local folder=$1 below
  for below in "${IMAGES[@]}"; do
    # With -quit, for there may be hundreds of thousands.
    if [ -d "$folder/$below" ] &&
      [ -n "$(find -L "$folder/$below" -iname '*.jp*g' -print -quit)" ]; then
      return
    fi
  done
  cat >&2 <<TEXT
Error: $folder/${IMAGES[0]} holds no images, and $NAME cannot be fetched without a person. Fix:
  1. open $PAGE
  2. $STEPS
  3. put it so that the images are below $folder/${IMAGES[0]}
  4. run this command again
TEXT
  exit 1
}

# get_list COMMIT FILE FOLDER
get_list() {
  local file="$3/lists/$2" url="$LISTS_URL/$1/data/$NAME/$2"
  if [ -s "$file" ]; then return; fi
  if [ -n "${DISTILL_MIRROR:-}" ]; then url="$DISTILL_MIRROR/lists/$NAME/$2"; fi
  rm -f "$file.part"
  if fetch "$url" "$file.part"; then
    mv "$file.part" "$file"
  else
    # wget leaves an empty file where there is nothing to fetch.
    rm -f "$file.part"
    return 1
  fi
}

get_lists() {
  local folder=$1 file lost=()
  mkdir -p "$folder/lists"
  for file in train_data.txt val_on_train_data.txt val_data.txt; do
    get_list "$LISTS_COMMIT" "$file" "$folder" || lost+=("$file")
  done
  for file in label2text.txt chatgpt.txt; do
    get_list "$TEXTS_COMMIT" "$file" "$folder" || lost+=("$file")
  done
  if [ "${#lost[@]}" -gt 0 ]; then
    fail "not fetched into $folder/lists: ${lost[*]}. Fix: run again, or put your own there."
  fi
}

main() {
  case "${1:-}" in
    -h | --help)
      usage
      exit 0
      ;;
  esac
  if [ "$#" -ne 2 ] || [ -z "$2" ] || ! choose "$1"; then
    if [ "$#" -eq 2 ]; then echo "Error: ${1@Q} is not one of the six data sets." >&2; fi
    usage >&2
    exit 2
  fi
  mkdir -p "$2"
  if [ -n "$URL" ]; then get_images "$2"; else check_images "$2"; fi
  get_lists "$2"
  echo "$NAME is in $2. Next: distill split $2 --dataset $NAME --lists $2/lists --out LIST.csv"
}

main "$@"
