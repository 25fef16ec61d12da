"""Writes adamw.json: a trajectory of torch.optim.AdamW with clip_grad_norm_, in float32.

    python -m venv v && v/bin/pip install torch==2.11.0
    v/bin/python adamw.py               # writes the file beside this script

Two parameters, of which the second has no weight decay and another learning rate; the gradient of step k is
sin(k + 0.7 i) * g, so no generator state is needed on either side.
"""

import json
import math
import pathlib

import torch

LR, EPS, BETAS, DECAY, CLIP = 1e-2, 1e-6, (0.9, 0.98), 0.05, 5.0
SHAPES = {"visual.head.weight": (3, 4), "visual.head.bias": (3,)}


def wave(k, count, g):
    return [math.sin(k + 0.7 * i) * g for i in range(count)]


def fresh(shape, k):
    return torch.tensor(wave(k, math.prod(shape), 1.0), dtype=torch.float32).reshape(shape)


weight = fresh(SHAPES["visual.head.weight"], 100).requires_grad_(True)
bias = fresh(SHAPES["visual.head.bias"], 200).requires_grad_(True)
optimizer = torch.optim.AdamW(
    [{"params": [weight], "weight_decay": DECAY}, {"params": [bias], "weight_decay": 0.0}],
    lr=LR,
    betas=BETAS,
    eps=EPS,
    foreach=False,
)
steps = []
for k in range(1, 11):
    g = 0.1 if k % 3 else 10.0  # every third step is clipped
    weight.grad = torch.tensor(wave(k, 12, g), dtype=torch.float32).reshape(3, 4)
    bias.grad = torch.tensor(wave(-k, 3, g), dtype=torch.float32)
    norm = torch.nn.utils.clip_grad_norm_([weight, bias], CLIP)
    factor = 1.0 / k
    for group in optimizer.param_groups:
        group["lr"] = LR * factor
    optimizer.step()
    steps.append({"norm": norm.item(), "weight": weight.detach().flatten().tolist(), "bias": bias.detach().tolist()})
out = pathlib.Path(__file__).with_suffix(".json")
out.write_text(json.dumps({"made_by": f"torch {torch.__version__.split('+')[0]}", "steps": steps}) + "\n")
print(out.name, out.stat().st_size, "bytes")
