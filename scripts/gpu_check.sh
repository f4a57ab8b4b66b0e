#!/usr/bin/env bash
# Checks and measures the package on one NVIDIA GPU in at most nine minutes, or with small sizes on a CPU.
#
#   scripts/gpu_check.sh OUT              # on a machine with a GPU
#   SMALL=1 scripts/gpu_check.sh OUT      # anywhere
#
# OUT/sections.jsonl has a line for each section as soon as it ends: its name, exit code and seconds. Results are written
# as they are measured, so a run that is cut off loses only its current section; repeated, it skips finished sections.
#
#   doctor.json                     versions and devices
#   step-bfloat16.json, -float32    whole step beside PyTorch, its compilation, and where its time goes by layer
#   parts-bfloat16.json, -float32   matrix product, forward, backbone, BiLSTM, linear head, CTC, center losses
#   step-quick.json, -loops.json    the step compiled quickly, and also with one frame in each iteration of its loops
#   ctc-kernel.json                 CTC with model.ctc=pallas
#   tests.xml                       tests that need a GPU
#   run/                            training on rendered lines
#   parity-*.json                   the run's numbers beside the PyTorch reference, without and with TF32
#
# PYTHON names the interpreter, and BUDGET the seconds in all. The exit code is 1 if a section failed.
set -uo pipefail
if [ $# -ne 1 ]; then
  sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import jaxcrnn' || { echo "PYTHON=$python cannot import jaxcrnn; expected an interpreter that can" >&2; exit 2; }
budget=${BUDGET:-540}
began=$(date +%s)
failed=0
trap 'exit 130' INT
export XLA_PYTHON_CLIENT_PREALLOCATE=false                                    # PyTorch needs memory, too
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/compiled}  # bench compiles without it

if [ -n "${SMALL:-}" ]; then
  sizes=(--batch 4 --width 96 --classes 200 --slots 5 --hidden 16 --backbone small --matrix 512 --rounds 2)
  # Parity needs as many: early, gradients that are nearly 0 in either program become whole steps of Adam.
  training=(data.batch_size=8 model.hidden=16 optim.steps=300)
else
  sizes=(--batch 256 --matrix 8192 --rounds 7)
  training=(data.batch_size=256 model.hidden=256 model.dtype=bfloat16 optim.steps=400)
  export JAX_PLATFORMS=cuda
fi

section() { # NAME SECONDS COMMAND...: runs the command for at most so many seconds
  local name=$1 limit=$2 left start code
  shift 2
  grep -qs "\"$name\", \"exit\": 0" "$out/sections.jsonl" && return
  left=$((budget - $(date +%s) + began))
  if [ "$left" -lt $((limit / 3)) ]; then
    echo "$name: not run, only $left s are left"
    failed=1
    return
  fi
  start=$(date +%s)
  timeout --foreground --signal TERM --kill-after 10 $((limit < left ? limit : left)) "$@" > "$out/$name.log" 2>&1
  code=$?
  [ "$code" -eq 0 ] || failed=1
  echo "{\"section\": \"$name\", \"exit\": $code, \"seconds\": $(($(date +%s) - start))}" >> "$out/sections.jsonl"
  echo "$name: exit code $code after $(($(date +%s) - start)) s"
}

into=(bash -c '"$@" > "$0"')  # FILE COMMAND...: keeps standard output in a file

bench() { # NAME SECONDS OPTIONS...
  local name=$1 limit=$2
  shift 2
  section "$name" "$limit" "$python" -m jaxcrnn bench "${sizes[@]}" "$@" --out "$out/$name.json"
}

parity() { # DTYPE SECONDS
  section "parity-$1" "$2" "${into[@]}" "$out/parity-$1.json" \
    "$python" -m jaxcrnn parity "$out/run" --checkpoint latest --dtype "$1" --presets ctc --json
}

section doctor 20 "${into[@]}" "$out/doctor.json" "$python" -m jaxcrnn doctor --json
bench step-bfloat16 130 --only step --dtype bfloat16 --layers
bench parts-bfloat16 90 --only product,forward,backbone,bilstm,head,ctc,center --dtype bfloat16
# Compiled as the package is, not with the flags that make the tests quick.
section tests 40 env XLA_FLAGS= "$python" -m pytest -q -m gpu -p no:cacheprovider --junitxml "$out/tests.xml" \
  tests/kernels
bench step-quick 60 --only step --dtype bfloat16 --no-torch --quick-compile
section train 70 "$python" -m jaxcrnn train --charset jaxcrnn/resources/demo.txt --out "$out/run" --auto-resume --set \
  model.backbone=small text.share=1.0 text.source=lookalikes text.shortest=2 text.longest=5 text.widths=1 \
  render.level=easy run.eval_every=100 "${training[@]}"
parity float32 80
[ -n "${SMALL:-}" ] || parity tensorfloat32 50
bench step-float32 100 --only step --dtype float32 --layers
bench parts-float32 60 --only product,forward,backbone,bilstm,head
bench step-loops 70 --only step --dtype bfloat16 --no-torch --quick-compile --lstm scan --ctc scan
[ -n "${SMALL:-}" ] || bench ctc-kernel 50 --only ctc --dtype bfloat16 --ctc pallas --no-torch
cat "$out/sections.jsonl"
exit "$failed"
