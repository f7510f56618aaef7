#!/usr/bin/env bash
# Everything that needs a card, within ten minutes, on a machine with PyTorch for CUDA 13 and no network.
# usage: check.sh PIECES [parts]. PIECES is the folder that pack.sh wrote; parts, in this order unless given: install checks weights ask step profile torch
# Logs go to $OUT where it is set.
set -uo pipefail
pieces=$(cd "$1" && pwd); shift
parts=${*:-install checks weights ask step profile torch}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd); root=${VISEDIT_GPU_ROOT:-/tmp/visedit-gpu}; model=$root/llava-7b; logs=${OUT:-$root}
mkdir -p "$root" "$logs"
if [[ ! -x $root/node ]]; then cat "$pieces"/piece.* | xz -dc -T0 | tar x -C "$root" || exit 1; fi
ln -sfn "$root/node_modules" "$pieces/node_modules"
export VISEDIT_CUDA=$root/cuda VISEDIT_DEVICE=${VISEDIT_DEVICE:-cuda} ORT_DISABLE_TELEMETRY=1 OUT=$logs
bench() { "$root/node" "$pieces/run.mjs" "$@" 2>&1 >> "$logs/results.jsonl" | tee -a "$logs/log.txt"; }
for part in $parts; do
  began=$SECONDS; echo "== $part" | tee -a "$logs/log.txt"
  case $part in
    weights) bench shapes "$model" && python3 "$here/random_weights.py" "$model" ;;
    profile) CUDA_LAUNCH_BLOCKING=1 timeout 150 "$root/node" "$pieces/run.mjs" profile "$model" 2>&1 >> "$logs/results.jsonl" | tee -a "$logs/log.txt" ;;
    torch) for kind in eager sdpa; do timeout 90 python3 "$here/torch_step.py" "$model" 4 $kind 2>&1 | tee -a "$logs/log.txt"; done ;;
    *) bench "$part" "$model" ;;
  esac
  echo "== $part: $((SECONDS - began)) s" | tee -a "$logs/log.txt"
done
