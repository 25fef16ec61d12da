#!/usr/bin/env bash
# On a machine with a GPU: what no CPU can show, as a table with one line for each, and exit code 1 if any failed. Trains the
# demo on a GPU through NCCL (one rank), in bf16. Fails where there is no GPU: a check that passes without what it checks
# would say nothing. What needs two GPUs says so where there is one.
#
#   make gpu-check                         builds here; beside PyTorch too, where python3 has what tests/peers needs
#   PIXFLEET_BIN=DIR scripts/gpu-check.sh  takes programs that were built elsewhere with --features pixfleet-worker/nccl, and
#                                          as DIR/nccl-tests the test of that name of pixfleet-collective;
#                                          LD_LIBRARY_PATH must then lead to the torch/lib of torch 2.11 with CUDA 13, and to
#                                          the cu13/lib beside it
#   ... scripts/gpu-check.sh devices peer  only these: devices groups demo ranks bits figures peer
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
    export LD_LIBRARY_PATH=$PWD/.cache/libtorch/lib:$PWD/.cache/libtorch/../nvidia/cu13/lib
    cargo build --bins --workspace --features pixfleet-worker/nccl --target-dir target/gpu
    bin=target/gpu/debug
    built=$(cargo test --package pixfleet-collective --features nccl --test nccl --no-run --target-dir target/gpu --message-format=json |
        python3 -c 'import json, sys
for line in sys.stdin:
    said = json.loads(line) if line.startswith("{") else {}
    if said.get("executable") and said["target"]["name"] == "nccl": print(said["executable"])')
    ln -sf "$built" "$bin/nccl-tests"
fi
# Vectors that lie beside data which was brought along, or those that the demo makes.
vectors=${VECTORS:-minilm_bf16-plain-256}
out=$(realpath -m "${OUT:-target}/gpu-demo")
mkdir -p "$out"
gpus=$(nvidia-smi --list-gpus | wc -l)
rows=()
failed=0

# row NAME RESULT VALUE: RESULT is ok, FAILED or -, which needs more GPUs than there are.
row() {
    rows+=("$(printf '%-58s %-7s %s' "$1" "$2" "$3")")
    if [ "$2" = FAILED ]; then failed=1; fi
}

# says NAME FILE WORDS: FILE holds WORDS.
says() {
    if grep -qF "$3" "$2"; then row "$1" ok "$3"; else row "$1" FAILED "$(tail -n 1 "$2")"; fi
}

# A worker that finds no coordinator: it has its GPU before it looks for one.
nobody() { env -u CUDA_VISIBLE_DEVICES "$@" "$bin/pixfleet-worker" worker --coordinator 127.0.0.1:9 --device cuda; }

devices() {
    nobody LOCAL_RANK="$gpus" >"$out/beyond.log" 2>&1 || true
    says "a local rank beyond the GPUs is refused" "$out/beyond.log" "more workers than GPUs: LOCAL_RANK is $gpus"
    local holders=()
    for _ in $(seq "$gpus"); do
        nobody RUST_LOG=warn >/dev/null 2>&1 &
        holders+=($!)
        sleep 2
    done
    nobody RUST_LOG=warn >"$out/held.log" 2>&1 || true
    says "one worker more than GPUs is refused without a launcher" "$out/held.log" "more workers than GPUs: all $gpus"
    wait "${holders[@]}" || true
}

# The demo's dataset and run file, and figures of its run.
demo() {
    if "$bin/pixfleet" demo --out "$out" --workers 1 --device cuda:0 --set train.precision=bf16; then
        local figures
        figures=$(python3 - "$out/report.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
print(", ".join(f"{key} = {report[key]}" for key in
      ("steps", "samples_per_s", "text_to_region_r10", "in_image_mask", "in_image_full")))
PY
        )
        row "the demo through NCCL, one rank, bf16" ok "$figures"
    else
        row "the demo through NCCL, one rank, bf16" FAILED "its words stand above"
    fi
}

# train NAME WORKERS ARGS...: some steps of the demo's run on GPUs, its lines to NAME.jsonl; a new run each time.
train() {
    local name=$1 workers=$2
    shift 2
    rm -rf "$out/runs/$name"
    RUST_LOG=info "$bin/pixfleet" train "$out/demo.toml" --workers "$workers" --device cuda --log json \
        --set "data.vectors=$vectors" --set "run.name=$name" --set "run.store=file://$out/runs" --set "data.url=file://$out/data" \
        --set schedule.steps=30 --set schedule.warmup=5 "$@" >"$out/$name.jsonl" 2>"$out/$name.err"
}

ranks() {
    if [ "$gpus" -lt 2 ]; then
        row "each of $gpus workers on its own GPU" - "needs two GPUs"
        row "a straggler is named by its own time, not by the others' wait" - "needs two GPUs"
        return
    fi
    if train ranks "$gpus"; then
        local seen
        seen=$(cat "$out"/runs/ranks/logs/w*.log | grep -o 'computes on cuda:[0-9]*' | sort -u | wc -l)
        if [ "$seen" = "$gpus" ]; then row "each of $gpus workers on its own GPU" ok "$seen"
        else row "each of $gpus workers on its own GPU" FAILED "$seen GPUs in use"; fi
    else
        row "each of $gpus workers on its own GPU" FAILED "$(tail -n 1 "$out/ranks.err")"
    fi
    if PIXFLEET_FAULT=w1:step=5:after=forward:with=slow train slow 2; then
        local named
        named=$(grep '"straggler"' "$out/slow.jsonl" | head -n 1) || true
        case $named in
            *'"w1"'*) row "a straggler is named by its own time, not by the others' wait" ok "$named" ;;
            *) row "a straggler is named by its own time, not by the others' wait" FAILED "${named:-nobody is named}" ;;
        esac
    else
        row "a straggler is named by its own time, not by the others' wait" FAILED "$(tail -n 1 "$out/slow.err")"
    fi
}

# Losses of two exact runs, to the last digit.
exact() {
    local name="exact: the same bits twice, with $1 and $2 workers"
    if train exact-a "$1" --set train.reduce=exact && train exact-b "$2" --set train.reduce=exact; then
        local verdict
        verdict=$(python3 - "$out/exact-a.jsonl" "$out/exact-b.jsonl" <<'PY'
import json, sys
def losses(path):
    lines = (json.loads(line) for line in open(path))
    return {line["step"]: line["losses"] for line in lines if "step" in line and "losses" in line}
one, two = map(losses, sys.argv[1:])
assert one, "no step was told"
print("same" if one == two else f"step {next(s for s in one if one[s] != two.get(s))} differs")
PY
        ) || verdict="unreadable"
        if [ "$verdict" = same ]; then row "$name" ok "30 steps"; else row "$name" FAILED "$verdict"; fi
    else
        # Where a kernel has no deterministic twin, its name stands here.
        row "$name" FAILED "$(tail -n 1 "$out/exact-a.err")"
    fi
}

# Groups of one process: forming, abort, torn gathers, waits. Each test is a line.
groups() {
    "$bin/nccl-tests" --test-threads 1 >"$out/nccl-tests.log" 2>&1 || true
    local found=0
    while read -r _ name _ result; do
        found=1
        if [ "$result" = ok ]; then row "nccl: ${name//_/ }" ok ""; else row "nccl: ${name//_/ }" FAILED "$out/nccl-tests.log"; fi
    done < <(grep -E '^test .* \.\.\. ' "$out/nccl-tests.log")
    if [ "$found" = 0 ]; then row "nccl: tests of groups" FAILED "$(tail -n 1 "$out/nccl-tests.log")"; fi
}

# Memory, reads, stalls and healing of EVA02-B/16 over the demo's data.
figures() {
    local name result value
    while IFS=$'\t' read -r name result value; do row "$name" "$result" "$value"; done < <(
        python3 scripts/gpu-figures.py --program "$bin/pixfleet" --data "file://$out/data" --vectors "$vectors" --out "$out"
    )
}

# pixfleet with reading and decoding against PyTorch, eager and compiled, on this GPU.
peer() {
    local python=python3
    [ ! -x .cache/peers/bin/python ] || python=.cache/peers/bin/python
    if "$python" tests/peers/bench_peer.py --device cuda --program "$bin/pixfleet" --data "file://$out/data" --out "$out/peer" \
        --vectors "$vectors" --rounds "${ROUNDS:-5}" >"$out/peer.txt"; then
        while read -r line; do row "beside PyTorch" ok "$line"; done < <(grep -E 'times the better peer|^  mfu|^  .*mfu' "$out/peer.txt")
    else
        row "beside PyTorch" FAILED "$(tail -n 1 "$out/peer.txt")"
    fi
    cat "$out/peer.txt"
}

bits() {
    exact 1 1
    if [ "$gpus" -ge 2 ]; then exact 1 2; else row "exact: the same bits twice, with 1 and 2 workers" - "needs two GPUs"; fi
}

checks=("$@")
[ ${#checks[@]} -gt 0 ] || checks=(devices groups demo ranks bits figures peer)
for check in "${checks[@]}"; do "$check"; done

printf '\ngpu-check, %s GPU(s): %s\n' "$gpus" "$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)"
printf '%s\n' "${rows[@]}"
exit "$failed"
