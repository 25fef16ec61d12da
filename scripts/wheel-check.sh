#!/usr/bin/env bash
# The wheel in an empty venv, with no Rust in sight: it installs with what it depends on, trains, evaluates, encodes and audits.
# usage: scripts/wheel-check.sh WHEEL DRAWINGS MINILM
set -euo pipefail

wheel=$(realpath "$1") drawings=$(realpath "$2") minilm=$(realpath "$3")
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
cd "$at"

# Nothing of this shell but the venv and the system; pip keeps its own settings.
bare() { env -i PATH="$at/venv/bin:/usr/bin:/bin" HOME="$HOME" TERM="${TERM:-dumb}" OMP_WAIT_POLICY=passive "$@"; }

if bare sh -c 'command -v cargo || command -v rustc'; then
    echo "wheel-check: Rust is on the bare path; this would not show that it is not needed" >&2
    exit 1
fi
before=$SECONDS
bare pip --disable-pip-version-check --quiet install "$wheel"
echo "wheel-check: $(basename "$wheel"), $(du -h "$wheel" | cut -f1), installed in $((SECONDS - before)) s"
bare pixfleet --version
for page in pixfleet pixfleet-train pixfleet-shards-verify pixfleet-eval pixfleet-coordinator; do
    test -s "$at/venv/share/man/man1/$page.1"
done
grep -q -- --print-plan "$at/venv/share/bash-completion/completions/pixfleet"

before=$SECONDS
bare pixfleet demo --out demo --scenes 400 --steps 20 --set schedule.warmup=5 --drawings "$drawings" --minilm "$minilm"
test -s demo/report.html
run=$(ls -d demo/runs/demo)
bare pixfleet audit "file://$PWD/$run"
bare pixfleet encode "file://$PWD/$run" --data "file://$PWD/demo/data" --split test --out embeddings.parquet
test -s embeddings.parquet
# Each worker took libtorch from this venv.
bare ldd "$at/venv/bin/pixfleet-worker" | grep -F libtorch_cpu | grep -qF "$at/venv/bin/../lib/"
echo "wheel-check: trained, evaluated, audited and encoded in $((SECONDS - before)) s"
