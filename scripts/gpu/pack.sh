#!/usr/bin/env bash
# What a GPU machine without a network needs to run scripts/gpu/check.sh, in pieces: Node, onnxruntime-node's binding, the CUDA build of ONNX Runtime
# with device code of one compute capability only, and bench/gpu.ts as one file.
# usage: pack.sh OUT [compute capability, default 90] [bytes of a piece, default 24m]. Needs pip, xz and python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$(mkdir -p "$1" && cd "$1" && pwd); capability=${2:-90}; size=${3:-24m}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
version=$(node -p "require('onnxruntime-node/package.json').version")
wheel=${VISEDIT_WHEEL:-}
if [[ -z $wheel ]]; then
  pip download -q --no-deps --only-binary :all: --python-version 3.11 -d "$work" "onnxruntime-gpu==$version"
  wheel=$(ls "$work"/onnxruntime_gpu-*.whl)
fi
unzip -qo "$wheel" 'onnxruntime/capi/libonnxruntime*' -d "$work/wheel"
capi=$work/wheel/onnxruntime/capi; root=$work/root; native=node_modules/onnxruntime-node/bin/napi-v6/linux/x64
mkdir -p "$root/cuda" "$root/$native" "$root/node_modules/onnxruntime-common/dist"
cp "$capi/libonnxruntime.so.$version" "$root/cuda/libonnxruntime.so.1"
cp "$capi/libonnxruntime_providers_shared.so" "$root/cuda/"
python3 scripts/gpu/prune_fatbin.py "$capi/libonnxruntime_providers_cuda.so" "$root/cuda/libonnxruntime_providers_cuda.so" "$capability"
cp "$native/onnxruntime_binding.node" "$root/$native/"
cp -r node_modules/onnxruntime-node/{dist,package.json} "$root/node_modules/onnxruntime-node/"
cp -r node_modules/onnxruntime-common/package.json "$root/node_modules/onnxruntime-common/"
cp -r node_modules/onnxruntime-common/dist/cjs "$root/node_modules/onnxruntime-common/dist/"
cp "$(readlink -f "$(command -v node)")" "$root/node"; strip "$root/node" || true
tar c -C "$root" . | xz -T0 -6 | split -b "$size" -d - "$out/piece."
scripts/gpu/bundle.sh "$out"
ls -l "$out"
