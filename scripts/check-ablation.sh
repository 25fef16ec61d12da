#!/usr/bin/env bash
# What LongGRIT's check is worth to a model: the same scenes, of which one in five has a wrong caption, with the check and without
# it, three seeds each; then how often a text finds its region on scenes with true captions.
# usage: scripts/check-ablation.sh BIN OUT
set -euo pipefail
bin=$1 out=$(realpath -m "$2")
cd "$(dirname "$0")/.."
mkdir -p "$out"
# What an earlier call annotated is not annotated again, and nothing would be planted.
rm -rf "$out"/{checked,unchecked}-data "$out/runs"

data=file://$out/scenes
[ -e "$out/scenes/index/latest.json" ] || "$bin/pixfleet" shards build mini --scenes 1200 --seed 41 --out "$data"
"$bin/pixfleet" shards embed "$data" --split test --weights .cache/minilm

# The recipe without its check: everything is merged.
mkdir -p "$out/unchecked" && cp -r recipes/annotate/longgrit "$out/unchecked/"
python3 - recipes/annotate/longgrit.toml "$out/unchecked/longgrit.toml" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
text = re.sub(r'\[\[stage\]\]\nname = "check"\n(?:[^\[].*\n|\n)*', "", text)
assert 'writes = "check_ok"' not in text
open(sys.argv[2], "w").write(text.replace('when = "check_ok"', ""))
PY
"$bin/annotator" --data "$data" --out "$out/checked-data" --wrong 0.2
"$bin/annotator" --data "$data" --out "$out/unchecked-data" --wrong 0.2 --recipe "$out/unchecked/longgrit.toml"

for arm in checked unchecked; do
    "$bin/pixfleet" shards embed "file://$out/$arm-data/wrong-0.2" --split train --weights .cache/minilm
    for seed in 1 2 3; do
        "$bin/pixfleet" train examples/demo.toml --workers 2 --set "run.name=$arm-$seed" --set "run.seed=$seed" \
            --set "run.store=file://$out/runs" --set "data.url=file://$out/$arm-data/wrong-0.2" --set train.precision=fp32 \
            --set data.vectors=minilm-plain-256 >"$out/$arm-$seed.log"
        "$bin/pixfleet" eval "file://$out/runs/$arm-$seed" --data "$data" --split test --text short,long --out "$out/$arm-$seed" >/dev/null
        python3 - "$arm" "$seed" "$out/$arm-$seed/report.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[3]))
print(f"{sys.argv[1]:<10} seed {sys.argv[2]}: R@10 {report['text_to_region_r10']:.3f} short, {report['long_text_to_region_r10']:.3f} long")
PY
    done
done
