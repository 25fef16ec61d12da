"""Language models as text encoders: pixfleet's vectors against transformers', and LLM2Vec's own handling of texts.

    make llm-peers                     (torch, transformers; 5 GB of memory, some ten minutes on two cores)
    make llm-peers ARGS="--rounds 5"   instead, tokens a second of both on the same cores, in turn, on a quiet machine

Llama and Qwen 3 are tiny and random, under real tokenizers; Gemma 3 270M has its real weights. transformers encodes each
text by itself, so nothing is padded; pixfleet encodes all of them in its batches, from the same folder. Llama's tokens and
pooling masks are compared with those that LLM2Vec's own methods give: they are read from its source and run as they stand.
"""

import argparse
import ast
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from transformers import AutoModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model
from transformers.utils import logging

faults = []
WORDS = "a red fox with white paws sits on the old stone wall behind two green bicycles and looks at the rain".split()


def check(what, fine, detail=""):
    print(f"{'ok  ' if fine else 'FAIL'} {what} {detail}", flush=True)
    if not fine:
        faults.append(what)


def captions(count, longest, seed):
    """Texts of 1 to `longest` words, most of them short, as captions are; a few with other scripts, spaces and lines."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda below: int(torch.randint(below, (1,), generator=generator))
    texts = []
    for _ in range(count):
        words = 1 + min(draw(longest), draw(longest))
        texts.append(" ".join(WORDS[draw(len(WORDS))] for _ in range(words)).capitalize() + ".")
    return texts + ["Ein Fuchs läuft über die Straße.", "キツネが壁の上に座っている", "  spaces before and after  ", "two\n\nlines\n", "x"]


def tiny_llama(folder, tokenizer):
    config = LlamaConfig(
        vocab_size=128256, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=2, max_position_embeddings=1024, rms_norm_eps=1e-5, bos_token_id=128000, eos_token_id=128009,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    )
    return write(LlamaModel(config), folder, tokenizer)


def tiny_qwen(folder, tokenizer):
    config = Qwen3Config(
        vocab_size=151936, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=1024,
    )
    return write(Qwen3Model(config), folder, tokenizer)


def write(model, folder, tokenizer):
    """Random weights large enough that every part shows in the vectors; in two shards, so that an index is read."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            random = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * random if p.dim() == 1 else random * (1.5 / p.shape[-1] ** 0.5 if p.shape[0] < 1000 else 1.0))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size="20MB")
    (folder / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    return folder


def pixfleet(args, folder, texts, **settings):
    """(vectors, ids and pooled count of each text, what was printed)"""
    work = args.work
    (work / "texts.json").write_text(json.dumps(texts))
    words = [f"{key}={str(value).lower()}" for key, value in settings.items()]
    command = [args.program, folder, work / "texts.json", work / "out.safetensors", *words]
    printed = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    out = load_file(work / "out.safetensors")
    ids = [part.tolist() for part in out["ids"].split(out["counts"].tolist())]
    return out["vectors"], list(zip(ids, out["pooled"].tolist())), printed


def reference(model, tokens, pooling, causal):
    """transformers' vectors, a text at a time."""
    vectors = []
    with torch.no_grad():
        for ids, pooled in tokens:
            ids = torch.tensor([ids])
            more = {}
            if not causal:
                # Nothing is hidden: what LLM2Vec's bidirectional Llama does with its causal mask.
                more["attention_mask"] = torch.zeros(1, 1, ids.shape[1], ids.shape[1], dtype=model.dtype)
            hidden = model(input_ids=ids, use_cache=False, **more).last_hidden_state[0].float()
            vectors.append(hidden[-1] if pooling == "last" else hidden[-pooled:].mean(dim=0))
    return torch.stack(vectors)


def parity(args, name, folder, texts, causal, pooling, template, dtypes=("fp32", "bf16")):
    tight = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    for dtype in dtypes:
        settings = dict(causal=causal, pooling=pooling, template=template)
        if dtype == "bf16":
            settings["precision"] = "bf16"
        ours, tokens, _ = pixfleet(args, folder, texts, **settings)
        theirs = reference(tight, tokens, pooling, causal)
        cosine = torch.cosine_similarity(ours, theirs).min().item()
        goal = 0.9999 if dtype == "fp32" else 0.999
        spread = torch.cosine_similarity(theirs[:-1], theirs[1:]).mean().item()
        detail = f"(least cosine {cosine:.7f} of {len(texts)} texts; neighbours' {spread:.2f})"
        check(f"{name}, {dtype}, {'causal' if causal else 'both ways'}, {pooling}: >= {goal}", cosine >= goal and spread < 0.99, detail)


class Llm2Vec:
    """LLM2Vec's own methods, without the packages that its module wants."""

    NAMES = ["prepare_for_tokenization", "tokenize", "_convert_to_str"]

    def __init__(self, source, tokenizer, max_length, doc_max_length):
        self.tokenizer, self.max_length, self.doc_max_length, self.pooling_mode = tokenizer, max_length, doc_max_length, "mean"
        self.model = SimpleNamespace(config=SimpleNamespace(_name_or_path="meta-llama/Meta-Llama-3-8B-Instruct"))
        module = ast.parse(source.read_text())
        owner = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "LLM2Vec")
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and node.name in self.NAMES:
                scope = {"torch": torch}
                exec(compile(ast.Module([node], []), str(source), "exec"), scope)
                setattr(self, node.name, scope[node.name].__get__(self))

    def tokens(self, text):
        features = self.tokenize([self.prepare_for_tokenization(self._convert_to_str("", text))])
        return features["input_ids"][0].tolist(), int(features["embed_mask"].sum())


def llm2vec(args, folder, texts):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), padding_side="left")
    tokenizer.pad_token = "<|eot_id|>"
    for length, text_length in [(512, 512), (512, 400), (64, 40), (24, 24)]:
        theirs = Llm2Vec(args.peers / "llm2vec.py", tokenizer, length, text_length)
        wanted = [theirs.tokens(text) for text in texts]
        _, ours, _ = pixfleet(args, folder, texts, template="llama3", length=length, text_length=text_length)
        unequal = [text[:40] for text, a, b in zip(texts, ours, wanted) if a != b]
        cut = sum(len(ids) == length for ids, _ in wanted)
        detail = f"({len(texts)} texts, {cut} of full length) {unequal[:3]}"
        check(f"LLM2Vec's ids and pooling mask, length {length}, text {text_length}", not unequal, detail)


def bench(args, folder, texts):
    """Tokens a second: transformers in batches of 32 texts sorted by length, as LLM2Vec.encode does it."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), padding_side="left", pad_token="<pad>")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()

    def theirs():
        since = time.perf_counter()
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), 32):
                batch = tokenizer([texts[i] for i in order[start : start + 32]], return_tensors="pt", padding=True, truncation=True, max_length=512)
                hidden = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).last_hidden_state
                (hidden * batch.attention_mask.unsqueeze(-1)).sum(dim=1) / batch.attention_mask.sum(dim=1, keepdim=True)
        return time.perf_counter() - since

    theirs()
    rates = {"pixfleet": [], "transformers": []}
    for _ in range(args.rounds):
        _, _, printed = pixfleet(args, folder, texts, rounds=2)
        rates["pixfleet"].append(printed["tokens"] / printed["seconds"][0])
        rates["transformers"].append(printed["tokens"] / theirs())
    medians = {name: statistics.median(rates[name]) for name in rates}
    for name, median in medians.items():
        print(f"     {name}: {median:.0f} tokens/s (median of {args.rounds}, {min(rates[name]):.0f} to {max(rates[name]):.0f})")
    print(f"     pixfleet / transformers: {medians['pixfleet'] / medians['transformers']:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=Path("target/debug/examples/encode_texts"))
    parser.add_argument("--peers", type=Path, default=Path(".cache/llm"), help="what scripts/fetch-llm-peers.py fetched")
    parser.add_argument("--gemma", type=Path, default=Path(".cache/gemma"), help="what scripts/fetch-gemma.py wrote")
    parser.add_argument("--work", type=Path, default=Path("target/llm-peers"))
    parser.add_argument("--rounds", type=int, default=0, help="measure speed instead, in so many rounds")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    logging.disable_progress_bar()
    if args.rounds:
        return bench(args, args.gemma, captions(300, 80, 6))
    tokenizers = args.peers / "tokenizers"
    llama, qwen = tiny_llama(args.work / "llama", tokenizers / "llama3"), tiny_qwen(args.work / "qwen", tokenizers / "qwen3")

    texts = captions(60, 80, 1)
    llm2vec(args, llama, texts + captions(6, 3000, 2))
    for causal, pooling in [(False, "mean"), (True, "mean"), (True, "last")]:
        parity(args, "Llama, tiny, random", llama, texts, causal, pooling, "llama3")
    for causal, pooling in [(True, "last"), (True, "mean"), (False, "mean")]:
        parity(args, "Qwen 3, tiny, random", qwen, texts, causal, pooling, "plain")
    # Some of these are longer than Gemma's window.
    parity(args, "Gemma 3 270M", args.gemma, captions(30, 60, 3) + captions(2, 1200, 4), True, "mean", "plain")
    parity(args, "Gemma 3 270M", args.gemma, captions(20, 40, 5), True, "last", "plain", ["fp32"])
    sys.exit(f"{len(faults)} faults" if faults else 0)


if __name__ == "__main__":
    main()
