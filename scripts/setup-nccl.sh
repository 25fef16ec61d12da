#!/usr/bin/env bash
# Installs the headers that `cargo ... --features nccl` compiles against into VENV, beside its torch: no CUDA toolkit.
# usage: scripts/setup-nccl.sh VENV
set -euo pipefail

venv=${1:?usage: scripts/setup-nccl.sh VENV}
here=$(cd "$(dirname "$0")" && pwd)

"$venv/bin/pip" --disable-pip-version-check --quiet install --no-deps --require-hashes -r "$here/requirements-nccl.txt"

packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
for header in cu13/include/cuda_runtime_api.h cu13/include/crt/host_defines.h cu13/include/cccl nccl/include/nccl.h; do
    if [ ! -e "$packages/nvidia/$header" ]; then
        echo "setup-nccl: $packages/nvidia/$header is missing after the installation" >&2
        exit 1
    fi
done
