#!/usr/bin/env bash
# From somebody else's format to a trained and audited model: what factory-formats.sh ingested as COCO is annotated (by a stand-in
# for the models, which answers from the scenes' facts), encoded by Gemma 3 270M, trained from for 100 steps, and audited.
# usage: scripts/factory.sh BIN FOLDER GEMMA
set -euo pipefail
bin=$(realpath "$1") folder=$(realpath "$2") gemma=$(realpath "$3")
cd "$(dirname "$0")/.."

"$bin/annotator" --data "file://$folder/mini" --from "file://$folder/shards/coco" --out "$folder/annotated" --wrong 0
data=file://$folder/annotated/wrong-0
"$bin/pixfleet" shards verify "$data"
"$bin/pixfleet" shards embed "$data" --split train --encoder llm --weights "$gemma" | tee "$folder/embed.txt"
vectors=$(ls "$folder/annotated/wrong-0/vectors")
[ "$(wc -w <<<"$vectors")" = 1 ] || { echo "expected the vectors of one encoder, found: $vectors" >&2; exit 1; }
rm -rf "$folder/runs"
"$bin/pixfleet" train examples/demo.toml --workers 2 --set run.name=factory --set "run.store=file://$folder/runs" --set "data.url=$data" \
    --set "data.vectors=$vectors" --set model.text_proj.width=640 --set schedule.steps=100 --set train.precision=fp32
"$bin/pixfleet" audit "file://$folder/runs/factory"
