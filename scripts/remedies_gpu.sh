#!/usr/bin/env bash
# Do a loss or lines of 64 pixels help the pretrained recogniser itself? Fine-tunes it on one GPU, and scores the results.
#
#   make pretrain STAGE=data                                      # DATA is then build/pretrain/data
#   python scripts/benchmark/make.py SOURCES LINES
#   scripts/remedies_gpu.sh train DATA OUT [SECONDS [SEED...]]    # on the GPU: 130 seconds an arm, seeds 5, 6 and 7
#   scripts/remedies_gpu.sh score OUT LINES                       # anywhere
#
# Arms that are finished are skipped, so a run that was cut off can be repeated. With the same seed, all arms train on
# the same lines in the same order, as far as each gets in its time (about.json has the number). The score of an arm is
# that of its weights and that of their mean with the weights before (mean-ARM). PYTHON names the interpreter, and PLAN
# other options of scripts/pretrain/train.py than "--gpu --within SECONDS", such as PLAN="--minutes 45" on a CPU.
set -euo pipefail
usage() {
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
python=${PYTHON:-.venv/bin/python}
here=$(dirname "$0")
arms=(
  "ctc --loss preset=ctc"
  "ctc-64 --height 64 --loss preset=ctc"
  "flow1-swap --loss preset=flow1 weight=1e-3 terms=[1.0*remedies_terms:swap]"
)

train() {
  local data=$1 out=$2 seconds=${3:-130}
  export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} REMEDIES_DATA=$data
  shift $(($# < 3 ? $# : 3))
  local seeds=("$@")
  [ $# -gt 0 ] || seeds=(5 6 7)
  read -ra plan <<< "${PLAN:---gpu --within $seconds}"
  for seed in "${seeds[@]}"; do
    for arm in "${arms[@]}"; do
      read -ra options <<< "${arm#* }"
      "$python" "$here/pretrain/train.py" "$data" "$out/${arm%% *}-$seed" "${plan[@]}" --init pretrained --lr 3e-4 \
        --seed "$seed" "${options[@]}"
    done
  done
}

score() {
  local out=$1 lines=$2 recognizer name part
  for recognizer in "$out"/*/recognizer; do
    name=$(basename "$(dirname "$recognizer")")
    [ -e "$out/mean-$name" ] || "$python" -m jaxcrnn export "$recognizer" --interpolate pretrained --share 0.5 \
      --format safetensors --out "$out/mean-$name"
    for part in random natural; do
      read_with "$recognizer" "$lines/$part.txt" "$out/$name-$part.txt"
      read_with "$out/mean-$name" "$lines/$part.txt" "$out/mean-$name-$part.txt"
    done
  done
  for part in random natural; do
    "$python" "$here/benchmark/score.py" "$part" "$out"/*-"$part".txt
  done
  "$python" "$here/benchmark/score.py" random,natural "$out"/*-random.txt "$out"/*-natural.txt
}

read_with() {
  [ -e "$3" ] || "$python" -m jaxcrnn evaluate "$1" --data "$2" --predictions "$3"
}

[ $# -ge 3 ] || usage
case $1 in
  train | score) "$@" ;;
  *) usage ;;
esac
