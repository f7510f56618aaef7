#!/usr/bin/env bash
# bench/gpu.ts with all that it imports as one file, for a machine without node_modules. usage: bundle.sh OUT
set -euo pipefail
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Pictures are made of numbers there: nothing decodes a file.
echo 'export default () => { throw new Error("this bundle decodes no pictures"); };' > "$out/no-sharp.mjs"
npx esbuild bench/gpu.ts --bundle --platform=node --format=esm --log-level=warning --external:onnxruntime-node --alias:sharp="$out/no-sharp.mjs" \
  --banner:js='import { createRequire as requireFrom } from "node:module"; const require = requireFrom(import.meta.url);' --outfile="$out/bench.mjs"
# Scripts that run when they are the program's own file must not take the bundle for theirs.
echo 'await import("./bench.mjs");' > "$out/run.mjs"
# The bundle finds its package by this file.
cp package.json "$out/"
rm "$out/no-sharp.mjs"
