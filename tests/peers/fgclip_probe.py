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


def roi_cells(box, grid):
    """What torchvision.ops.roi_align(map, [box * grid], (1, 1), 1.0, -1, True) takes of each cell of a square map: [grid * grid].

    It samples bilinearly at a grid of points and averages, so it is linear in the map.
    """
    x1, y1, x2, y2 = (box * grid - 0.5).tolist()
    nx, ny = math.ceil(x2 - x1), math.ceil(y2 - y1)
    cells = torch.zeros(grid, grid)
    for i in range(ny):
        for j in range(nx):
            y, x = y1 + (i + 0.5) * (y2 - y1) / ny, x1 + (j + 0.5) * (x2 - x1) / nx
            if y < -1 or y > grid or x < -1 or x > grid:
                continue
            y, x = max(y, 0.0), max(x, 0.0)
            y0, x0 = min(int(y), grid - 1), min(int(x), grid - 1)
            y, x = (y if y0 < grid - 1 else y0), (x if x0 < grid - 1 else x0)
            yn, xn = min(y0 + 1, grid - 1), min(x0 + 1, grid - 1)
            wy, wx = y - y0, x - x0
            cells[y0, x0] += (1 - wy) * (1 - wx)
            cells[y0, xn] += (1 - wy) * wx
            cells[yn, x0] += wy * (1 - wx)
            cells[yn, xn] += wy * wx
    return cells.flatten() / max(nx * ny, 1)


def pooled(dense, cells):
    """Rows of maps [K, cells, D], each pooled by its own cells [K, cells], in fp32: [K, D]."""
    return (cells[:, :, None] * dense.float()).sum(1)


def contrast(a, b, scale, everybody=lambda own: own, first=0):
    """Symmetric InfoNCE of own rows, the first of them number `first`, against everybody's."""
    labels = torch.arange(len(a), device=a.device) + first
    return (F.cross_entropy(scale * a @ everybody(b).T, labels) + F.cross_entropy(scale * b @ everybody(a).T, labels)) / 2


def prepared(inputs, grid):
    """The probe's tensors as the towers eat them: the boxes that count as rows and cells, and their texts alone."""
    at = {
        kind: [(n, k) for n, count in enumerate(inputs[f"{counts}_counts"].tolist()) for k in range(count)]
        for kind, counts in (("region", "box"), ("hard", "hard"))
    }
    batch = {name: inputs[name] for name in ("pixels", "text_long", "text_short", "text_hard")}
    batch["text_region"] = inputs["text_region"][[4 * n + k for n, k in at["region"]]]
    for kind, boxes in (("region", inputs["boxes"]), ("hard", inputs["hard_boxes"])):
        batch[f"{kind}_rows"] = torch.tensor([n for n, _ in at[kind]])
        batch[f"{kind}_cells"] = torch.stack([roi_cells(boxes[n, k], grid) for n, k in at[kind]])
    return batch


def encode(model, batch):
    """Every set's features, L2-normalized, and the three inverse temperatures."""
    last = model.vision_model.encoder.layers[-1]
    before = model.before_last(batch["pixels"])
    image = model.visual_projection(model.vision_model.post_layernorm(last(before, False)[:, 0]))
    dense = last.without_attention(before)[:, 1:]
    dense = model.visual_projection(model.vision_model.post_layernorm(dense))
    out = {"image": F.normalize(image, dim=-1)}
    for kind in ("region", "hard"):
        out[kind] = F.normalize(pooled(dense[batch[f"{kind}_rows"]], batch[f"{kind}_cells"]), dim=-1)
    for text in ("text_long", "text_short", "text_region", "text_hard"):
        out[text] = model.text(batch[text], text == "text_long")
    for name in ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg"):
        out[name] = getattr(model, name).exp()
    return out


WEIGHTS = {"long": 1.0, "short": 1.0, "region": 0.1, "hard": 0.5}


def losses(f, everybody=lambda own: own, first=0):
    """The four terms; images and captions meet everybody's, regions and hard negatives this rank's alone."""
    texts = f["text_hard"].unflatten(0, (len(f["hard"]), 11))
    z = f["logit_scale_hardneg"] * (texts @ f["hard"][:, :, None]).squeeze(2)
    return {
        "long": contrast(f["image"], f["text_long"], f["logit_scale"], everybody, first),
        "short": contrast(f["image"], f["text_short"], f["logit_scale"], everybody, first),
        "region": contrast(f["region"], f["text_region"], f["logit_scale_finegraind"]),
        "hard": F.cross_entropy(z, torch.zeros(len(z), dtype=torch.long, device=z.device)),
    }


def inputs(box_counts=(4, 0, 1, 3), hard_counts=(1, 0, 0, 2)):
    """The probe's tensors, one image for each count."""
    generator, n = torch.Generator().manual_seed(7), len(box_counts)
    corner = torch.rand(n, 4, 2, generator=generator) * 0.5
    boxes = torch.cat([corner, corner + 0.1 + torch.rand(n, 4, 2, generator=generator) * 0.4], 2)
    return {
        "pixels": torch.randn(n, 3, 224, 224, generator=generator),
        "text_long": token_ids([(200, 30, 77, 246)[i % 4] for i in range(n)], 248, 1),
        "text_short": token_ids([(12, 60, 3, 75)[i % 4] for i in range(n)], 77, 2),
        "boxes": boxes,
        "box_counts": torch.tensor(box_counts),
        "text_region": token_ids([5 + i % 20 for i in range(4 * n)], 77, 3),
        "hard_boxes": boxes.flip(1),
        "hard_counts": torch.tensor(hard_counts),
        "text_hard": token_ids([6 + i % 9 for i in range(11 * sum(hard_counts))], 77, 4),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", default="target/debug/pixfleet")
    arguments.add_argument("--out", type=Path, default=Path("target/peers/fgclip"))
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    cli = Cli(given.program, given.out)
    model, tensors = randomized(FgClip1(), 3), inputs()
    weights = given.out / "fgclip1-b16.safetensors"
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, weights)
    ours = cli.probe("fgclip1-b16", "fgclip1", weights, tensors)
    features = encode(model, prepared(tensors, model.grid))
    theirs = losses(features)
    theirs["total"] = sum(weight * theirs[name] for name, weight in WEIGHTS.items())
    theirs["total"].backward()
    for name, feature in ((f"{name}_features", features[name]) for name in ("image", "text_long", "text_short", "region")):
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
