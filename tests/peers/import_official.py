"""Published checkpoints with random weights: `pixfleet import`, `pixfleet export`, and the official definition loads the
file with no key missing and gives the features that `pixfleet probe` gives.

    make import-peers        (torch, transformers, safetensors; 8 GB of memory)

Hugging Face's CLIP is transformers' own; FG-CLIP v1, OpenAI's CLIP, AlphaCLIP and PixCLIP are written in `official.py`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from official import END, KEEP, FgClip1, OpenAiClip, OpenAiVision, PixClip

TOLERANCE = 1e-4
START = 49406
faults = []


def check(what, fine, detail=""):
    print(f"{'ok  ' if fine else 'FAIL'} {what} {detail}", flush=True)
    if not fine:
        faults.append(what)


def randomized(model, seed):
    """Numbers that a trained tower might have: norms near 1, everything else small."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "logit_scale" in name:
                p.fill_(3.0 + 0.1 * seed)
                continue
            random = torch.randn(p.shape, generator=generator)
            norm = p.dim() == 1 and name.endswith("weight")
            p.copy_(1 + 0.1 * random if norm else 0.03 * random)
    return model.eval()


def token_ids(words, length, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(words), length), END)
    for row, count in enumerate(words):
        ids[row, 0] = START
        ids[row, 1 : count + 1] = torch.randint(0, START, (count,), generator=generator)
    return ids


def same(what, ours, theirs):
    """Every tensor of `theirs`, bit for bit."""
    unequal = [name for name in theirs if name not in ours or not torch.equal(ours[name], theirs[name])]
    check(what, not unequal and set(ours) == set(theirs), f"({len(theirs)} tensors) {unequal[:4]}")


def loads(what, model, state):
    missing, unexpected = model.load_state_dict(state, strict=False)
    check(f"{what}: no key missing", not missing and not unexpected, f"{missing[:4]} {unexpected[:4]}")
    return model.eval()


def close(what, probe, features):
    for name, theirs in features.items():
        if name not in probe:
            check(f"{what}: {name}", False, "(the probe has no such output)")
            continue
        error = (probe[name] - theirs).abs().max().item()
        check(f"{what}: {name} within {TOLERANCE}", probe[name].shape == theirs.shape and error < TOLERANCE, f"({error:.1e})")


class Cli:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def run(self, *args):
        subprocess.run([self.program, *map(str, args)], check=True)

    def imported(self, files, to, *more):
        out = self.folder / f"{to}.safetensors"
        self.run("import", *files, "--to", to, "--out", out, *more)
        return out

    def exported(self, weights, names):
        out = self.folder / "exported.safetensors"
        self.run("export", weights, "--as", names, "--out", out)
        return load_file(out)

    def probe(self, model, loss, weights, inputs):
        tensors, out = self.folder / "in.safetensors", self.folder / "out.safetensors"
        save_file({name: t.contiguous() for name, t in inputs.items()}, tensors)
        self.run("probe", "--model", model, "--loss", loss, "--weights", weights, "--tensors", tensors, "--out", out)
        return load_file(out)


def fgclip_inputs():
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(5))
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.0, 0.0, 1.0, 0.5], [0.3, 0.3, 0.8, 0.8], [0.5, 0.1, 0.9, 0.4]])
    return {
        "pixels": pixels,
        "text_long": token_ids([200, 30], 248, 1),
        "text_short": token_ids([12, 60], 77, 2),
        "boxes": boxes.expand(2, 4, 4),
        "box_counts": torch.tensor([4, 1]),
        "text_region": token_ids([5] * 8, 77, 3),
        "hard_boxes": boxes.expand(2, 4, 4),
        "hard_counts": torch.tensor([1, 0]),
        "text_hard": token_ids([6] * 11, 77, 4),
    }


def hf_config():
    return CLIPConfig(
        vision_config=dict(image_size=224, patch_size=16, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                           num_attention_heads=12, hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=512),
        text_config=dict(vocab_size=END + 1, hidden_size=512, intermediate_size=2048, num_hidden_layers=12,
                         num_attention_heads=8, max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5,
                         bos_token_id=START, eos_token_id=END, pad_token_id=END, projection_dim=512),
        projection_dim=512,
    )  # fmt: skip


def hf_file(cli):
    randomized(CLIPModel(hf_config()), 1).save_pretrained(cli.folder / "hf")
    return cli.folder / "hf" / "model.safetensors"


def hf_clip(cli):
    file = hf_file(cli)
    back = cli.exported(cli.imported([file], "clip-b16"), "official")
    same("hf-clip: import and export give the same file", back, load_file(file))
    official = loads("hf-clip", randomized(CLIPModel(hf_config()), 2), back)
    start = cli.imported([file], "fgclip1-b16")
    inputs = fgclip_inputs()
    with torch.no_grad():
        out = official(input_ids=inputs["text_short"], pixel_values=inputs["pixels"])
    features = {"image_features": out.image_embeds, "text_short_features": out.text_embeds}
    close("hf-clip", cli.probe("fgclip1-b16", "fgclip1", start, inputs), features)
    started = load_file(start)
    table = started["text_model.embeddings.position_embedding.weight"]
    rows = list(table[:KEEP])
    for i in range(KEEP, 76):
        rows += [((4 - k) * table[i] + k * table[i + 1]) / 4 for k in range(4)]
    rows += [table[76] + k * (table[76] - table[75]) / 4 for k in range(4)]
    error = (torch.stack(rows) - started["text_model.embeddings.position_embedding_res.weight"]).abs().max().item()
    check("hf-clip: 77 positions stretched to 248 for fgclip1", error < 1e-6, f"({error:.1e})")


def fgclip1(cli):
    published = randomized(FgClip1(), 3)
    torch.save(published.state_dict(), cli.folder / "fgclip.pth")
    weights = cli.imported([cli.folder / "fgclip.pth"], "fgclip1-b16")
    back = cli.exported(weights, "official")
    same("fgclip1: import and export give the same file", back, published.state_dict())
    official = loads("fgclip1", FgClip1(), back)
    inputs = fgclip_inputs()
    with torch.no_grad():
        features = official.features(inputs)
    close("fgclip1", cli.probe("fgclip1-b16", "fgclip1", weights, inputs), features)


def openai_clip(cli):
    published = randomized(OpenAiClip(), 4).half()
    torch.save({"state_dict": published.state_dict(), "epoch": 3}, cli.folder / "openai.pt")
    file = cli.folder / "openai.pt"
    back = cli.exported(cli.imported([file], "clip-b16"), "openai")
    state = {name: t.float() for name, t in published.state_dict().items()}
    same("openai-clip: import and export give the same numbers", back, state)
    official = loads("openai-clip", OpenAiClip(), back)
    inputs = fgclip_inputs()
    with torch.no_grad():
        features = official.features(inputs)
    close("openai-clip", cli.probe("fgclip1-b16", "fgclip1", cli.imported([file], "fgclip1-b16"), inputs), features)


def alphaclip(cli):
    alpha = randomized(OpenAiVision(alpha=True), 5)
    torch.save(alpha.state_dict(), cli.folder / "alpha.pth")
    back = cli.exported(cli.imported([hf_file(cli), cli.folder / "alpha.pth"], "alphaclip-b16"), "alphaclip")
    same("alphaclip: import and export give the same file", back, alpha.state_dict())
    loads("alphaclip", OpenAiVision(alpha=True), back)


def pixclip(cli):
    published = randomized(PixClip(), 6)
    state = {f"module.{name}": t for name, t in published.state_dict().items()}
    torch.save(state, cli.folder / "pixclip.pth")
    weights = cli.imported([cli.folder / "pixclip.pth"], "eva02-b16")
    back = cli.exported(weights, "official")
    names = set(back) == set(published.state_dict())
    check("pixclip: the export has the names of the published file", names)
    official = loads("pixclip", randomized(PixClip(), 7), back)
    generator = torch.Generator().manual_seed(8)
    inputs = {
        "pixels": torch.randn(2, 3, 224, 224, generator=generator),
        "mask": torch.randn(2, 1, 224, 224, generator=generator),
        "text": torch.randn(2, 4096, generator=generator),
    }
    with torch.no_grad():
        features = official.features(inputs)
    close("pixclip", cli.probe("eva02-b16", "alphaclip", weights, inputs), features)


SYSTEMS = {"hf-clip": hf_clip, "openai-clip": openai_clip, "alphaclip": alphaclip, "fgclip1": fgclip1, "pixclip": pixclip}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", default=SYSTEMS, help=", ".join(SYSTEMS))
    parser.add_argument("--program", default="target/debug/pixfleet")
    parser.add_argument("--out", type=Path, default=Path("target/import"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cli = Cli(args.program, args.out)
    for system in args.systems:
        SYSTEMS[system](cli)
    print(f"{len(faults)} faults" + "".join(f"\n  {fault}" for fault in faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
