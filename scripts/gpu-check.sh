#!/usr/bin/env bash
# On a machine with a GPU: trains the demo on it through NCCL (one rank), in bf16, and prints samples/s. Fails where
# there is no GPU: a check that passes without what it checks would say nothing.
#
#   make gpu-check                         builds here
#   PIXFLEET_BIN=DIR scripts/gpu-check.sh  takes programs that were built elsewhere with --features pixfleet-worker/nccl;
#                                          LD_LIBRARY_PATH must then lead to the torch/lib of torch 2.11 with CUDA 13
set -euo pipefail
cd "$(dirname "$0")/.."

if ! nvidia-smi --query-gpu=name,memory.total --format=csv,noheader; then
    echo "gpu-check: no GPU here" >&2
    exit 1
fi
bin=${PIXFLEET_BIN:-}
if [ -z "$bin" ]; then
    # The CUDA libraries that the wheel of torch names as its own dependencies.
    .cache/venv/bin/pip install --quiet torch==2.11.0
    cargo build --bins --workspace --features pixfleet-worker/nccl --target-dir target/gpu
    bin=target/gpu/debug
fi
out=${OUT:-target}/gpu-demo
"$bin/pixfleet" demo --out "$out" --workers 1 --device cuda:0 --set train.precision=bf16
python3 - "$out/report.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
for key in ("steps", "samples_per_s", "text_to_region_r10", "in_image_mask", "in_image_full"):
    print(f"gpu-check: {key} = {report[key]}")
PY
