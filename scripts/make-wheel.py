"""Lays pixfleet's programs out as a wheel and packs it: `pip install` is then the installation on a node.

    make-wheel.py --programs target/release --cuda target/wheel/pixfleet-worker-cuda --out target/wheel

The wheel holds programs and no Python. `pixfleet-worker` finds libtorch in the torch that pip installs beside it, through the
run path that worker/build.rs gives it, so the wheel depends on the one minor version of torch that it was linked against.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ["pixfleet", "pixfleet-coordinator", "pixfleet-worker"]
SHELLS = {
    "pixfleet.bash": "bash-completion/completions/pixfleet",
    "_pixfleet": "zsh/site-functions/_pixfleet",
    "pixfleet.fish": "fish/vendor_completions.d/pixfleet.fish",
}


def torch():
    """The version of torch that the programs are linked against, as a requirement: 2.11.*"""
    pinned = re.search(r"^torch==(\d+\.\d+)\.", (ROOT / "scripts/requirements-torch.txt").read_text(), re.M)
    return f"torch (=={pinned[1]}.*)"


def glibc(programs):
    """The newest version of glibc's symbols that a program asks for."""
    versions = set()
    for program in programs:
        told = subprocess.run(["objdump", "-T", program], capture_output=True, text=True, check=True).stdout
        versions |= {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_(\d+\.\d+)", told)}
    return max(versions)


def manuals(programs, at):
    """Each program writes the pages of its own commands; the front door's page is the front door's."""
    at.mkdir(parents=True)
    for name in reversed(PROGRAMS):
        told = at / name
        told.mkdir()
        command = [programs / name, *(["--manual", told] if name == "pixfleet-coordinator" else ["manual", told])]
        subprocess.run(command, check=True)
    # Pages of passed-on commands come from the program that parses their arguments.
    pages = {page.name: page for name in PROGRAMS for page in sorted((at / name).glob("*.1"))}
    pages["pixfleet.1"] = at / "pixfleet" / "pixfleet.1"
    return list(pages.values()), {name: at / "pixfleet" / name for name in SHELLS}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="folder of the programs, release profile")
    parser.add_argument("--cuda", type=Path, required=True, help="the worker that was built with the feature nccl")
    parser.add_argument("--out", type=Path, required=True, help="where the wheel goes")
    given = parser.parse_args()

    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    name = f"pixfleet-{version}"
    shutil.rmtree(given.out / "tree", ignore_errors=True)
    tree = given.out / "tree" / name
    scripts = tree / f"{name}.data/scripts"
    scripts.mkdir(parents=True)
    for program in [*(given.programs / program for program in PROGRAMS), given.cuda]:
        subprocess.run(["strip", "-o", scripts / program.name, program], check=True)
        (scripts / program.name).chmod(0o755)

    share = tree / f"{name}.data/data/share"
    pages, completions = manuals(given.programs.resolve(), given.out / "tree" / "manuals")
    (share / "man/man1").mkdir(parents=True)
    for page in pages:
        shutil.copy(page, share / "man/man1")
    for source, place in SHELLS.items():
        (share / place).parent.mkdir(parents=True)
        shutil.copy(completions[source], share / place)

    info = tree / f"{name}.dist-info"
    info.mkdir()
    major, minor = glibc(sorted(scripts.iterdir()))
    tag = f"py3-none-manylinux_{major}_{minor}_x86_64"
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nGenerator: pixfleet\nRoot-Is-Purelib: false\nTag: {tag}\n")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pixfleet\n"
        f"Version: {version}\n"
        "Summary: A distributed, elastic trainer for pixel-text models\n"
        "License: Apache-2.0\n"
        "Requires-Python: >=3.10\n"
        f"Requires-Dist: {torch()}\n"
        "Description-Content-Type: text/markdown\n\n"
        + (ROOT / "README.md").read_text()
    )
    for text in ["LICENSE", "NOTICE"]:
        shutil.copy(ROOT / text, info)
    for old in given.out.glob("*.whl"):
        old.unlink()
    subprocess.run([sys.executable, "-m", "wheel", "pack", tree, "--dest-dir", given.out], check=True)


if __name__ == "__main__":
    main()
