"""FG-CLIP v1's losses and every gradient, in plain PyTorch, against `pixfleet probe` (method.md 4.1, 4.2), on random weights.

    make import-peers        (runs this too; torch, safetensors; 8 GB of memory)

The features are those of `official.FgClip1`; here are the dense features with the attention-free last block, RoIAlign as
torchvision defines it, and the four losses. float64 would hide nothing: both sides compute in fp32.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from import_official import Cli, check, faults, randomized, token_ids
from official import FgClip1

LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3


def roi_align(map, box):
    """torchvision.ops.roi_align(map[None], [box * size], (1, 1), 1.0, -1, True) of one box: [D]."""
    _, height, width = map.shape
    x1, y1, x2, y2 = (box * torch.tensor([width, height, width, height])).tolist()
    x1, y1, x2, y2 = x1 - 0.5, y1 - 0.5, x2 - 0.5, y2 - 0.5
    nx, ny = math.ceil(x2 - x1), math.ceil(y2 - y1)
    total = 0
    for i in range(ny):
        for j in range(nx):
            y, x = y1 + (i + 0.5) * (y2 - y1) / ny, x1 + (j + 0.5) * (x2 - x1) / nx
            if y < -1 or y > height or x < -1 or x > width:
                continue
            y, x = max(y, 0.0), max(x, 0.0)
            y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
            y, x = (y if y0 < height - 1 else y0), (x if x0 < width - 1 else x0)
            yn, xn = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            wy, wx = y - y0, x - x0
            total = total + (
                map[:, y0, x0] * (1 - wy) * (1 - wx)
                + map[:, y0, xn] * (1 - wy) * wx
                + map[:, yn, x0] * wy * (1 - wx)
                + map[:, yn, xn] * wy * wx
            )
    return total / max(nx * ny, 1)


def regions(model, map, boxes, counts):
    rows = [roi_align(map[n], boxes[n, k]) for n, count in enumerate(counts.tolist()) for k in range(count)]
    return F.normalize(torch.stack(rows), dim=-1)


def contrast(a, b, scale):
    z, labels = scale * a @ b.T, torch.arange(len(a))
    return (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2


def losses(model, inputs):
    last = model.vision_model.encoder.layers[-1]
    before = model.before_last(inputs["pixels"])
    image = F.normalize(model.visual_projection(model.vision_model.post_layernorm(last(before, False)[:, 0])), dim=-1)
    dense = last.without_attention(before)[:, 1:]
    dense = model.visual_projection(model.vision_model.post_layernorm(dense))
    map = dense.transpose(1, 2).unflatten(2, (model.grid, model.grid))
    long, short = model.text(inputs["text_long"], True), model.text(inputs["text_short"], False)
    counts = inputs["box_counts"]
    own = [4 * n + k for n, count in enumerate(counts.tolist()) for k in range(count)]
    region = regions(model, map, inputs["boxes"], counts)
    hard = regions(model, map, inputs["hard_boxes"], inputs["hard_counts"])
    texts = model.text(inputs["text_hard"], False).unflatten(0, (len(hard), 11))
    z = model.logit_scale_hardneg.exp() * (texts @ hard[:, :, None]).squeeze(2)
    out = {
        "long": contrast(image, long, model.logit_scale.exp()),
        "short": contrast(image, short, model.logit_scale.exp()),
        "region": contrast(region, model.text(inputs["text_region"][own], False), model.logit_scale_finegraind.exp()),
        "hard": F.cross_entropy(z, torch.zeros(len(hard), dtype=torch.long)),
    }
    out["total"] = out["long"] + out["short"] + 0.1 * out["region"] + 0.5 * out["hard"]
    features = {"image": image, "text_long": long, "text_short": short, "region": region}
    return out, {f"{name}_features": t for name, t in features.items()}


def inputs():
    generator = torch.Generator().manual_seed(7)
    corner = torch.rand(4, 4, 2, generator=generator) * 0.5
    boxes = torch.cat([corner, corner + 0.1 + torch.rand(4, 4, 2, generator=generator) * 0.4], 2)
    return {
        "pixels": torch.randn(4, 3, 224, 224, generator=generator),
        "text_long": token_ids([200, 30, 77, 246], 248, 1),
        "text_short": token_ids([12, 60, 3, 75], 77, 2),
        "boxes": boxes,
        "box_counts": torch.tensor([4, 0, 1, 3]),
        "text_region": token_ids([5 + i for i in range(16)], 77, 3),
        "hard_boxes": boxes.flip(1),
        "hard_counts": torch.tensor([1, 0, 0, 2]),
        "text_hard": token_ids([6 + i % 9 for i in range(33)], 77, 4),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/debug/pixfleet")
    arguments.add_argument("--out", type=Path, default=Path("target/peers/fgclip"))
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    cli = Cli(given.program, given.out)
    model, batch = randomized(FgClip1(), 3), inputs()
    weights = given.out / "fgclip1-b16.safetensors"
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, weights)
    ours = cli.probe("fgclip1-b16", "fgclip1", weights, batch)
    theirs, features = losses(model, batch)
    theirs["total"].backward()
    for name, feature in features.items():
        error = (ours[name] - feature.detach()).abs().max().item()
        check(f"{name} within {LOSS_TOLERANCE}", ours[name].shape == feature.shape and error < LOSS_TOLERANCE, f"({error:.1e})")
    for name, loss in theirs.items():
        error = abs(ours[f"loss.{name}"].item() - loss.item())
        check(f"loss.{name} within {LOSS_TOLERANCE}", error < LOSS_TOLERANCE * max(1.0, loss.item()), f"({loss.item():.5f}, {error:.1e})")
    worst, at = 0.0, ""
    whole = math.sqrt(sum(p.grad.norm().item() ** 2 for p in model.parameters()))
    for name, p in model.named_parameters():
        # Keys' biases shift every logit of a softmax alike: their gradients are zero but for rounding.
        error = (ours[f"grad.{name}"] - p.grad).norm().item() / max(p.grad.norm().item(), 1e-5 * whole)
        if error > worst:
            worst, at = error, name
    count = len(list(model.named_parameters()))
    check(f"{count} gradients within {GRADIENT_TOLERANCE} of their norm", worst < GRADIENT_TOLERANCE, f"({worst:.1e} at {at})")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
