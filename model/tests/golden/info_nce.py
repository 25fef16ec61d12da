"""Writes info_nce.json: losses and gradients of open_clip's ClipLoss, in float64.

    python -m venv v && v/bin/pip install torch==2.11.0 && v/bin/pip install --no-deps open-clip-torch==3.3.0
    v/bin/python info_nce.py            # writes the file beside this script

ClipLoss has no label smoothing: those cases are the same mean of two F.cross_entropy with `label_smoothing`.
open_clip's package imports torchvision, timm and more; its loss.py alone needs only torch, so it is loaded by path.
"""

import importlib.util
import json
import math
import pathlib

import torch
import torch.nn.functional as F

MASK = (1 << 64) - 1


def mix(z):
    """SplitMix64's finalizer, as cluster::rng::mix."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def fill(name, shape):
    """pixfleet_model::testing::hash_fill with scale 1, then rows of length 1, rounded to float32."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    values = [((mix((h + i) & MASK) >> 40) / (1 << 24) - 0.5) * 2 for i in range(math.prod(shape))]
    rows = F.normalize(torch.tensor(values, dtype=torch.float64).reshape(shape), dim=1)
    return rows.to(torch.float32).to(torch.float64)


def clip_loss():
    package = pathlib.Path(importlib.util.find_spec("open_clip").origin).parent
    spec = importlib.util.spec_from_file_location("open_clip_loss", package / "loss.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ClipLoss()


def case(n, d, logit_scale, smoothing):
    a, b = fill(f"a{n}", [n, d]), fill(f"b{n}", [n, d])
    if n > 4:  # some pairs that already agree, as in training
        b[::2] = F.normalize(a[::2] + 0.2 * b[::2], dim=1).to(torch.float32).to(torch.float64)
    a.requires_grad_(True)
    b.requires_grad_(True)
    parameter = torch.tensor(logit_scale, dtype=torch.float64, requires_grad=True)
    scale = parameter.exp()
    if smoothing == 0:
        loss = clip_loss()(a, b, scale)
    else:
        z, labels = scale * a @ b.T, torch.arange(n)
        loss = (
            F.cross_entropy(z, labels, label_smoothing=smoothing)
            + F.cross_entropy(z.T, labels, label_smoothing=smoothing)
        ) / 2
    loss.backward()
    flat = lambda t: [float(f"{v:.12g}") for v in t.detach().flatten().tolist()]
    return {
        "n": n,
        "d": d,
        "logit_scale": logit_scale,
        "smoothing": smoothing,
        "a": flat(a),
        "b": flat(b),
        "loss": loss.item(),
        "grad_a": flat(a.grad),
        "grad_b": flat(b.grad),
        "grad_logit_scale": parameter.grad.item(),
    }


cases = [
    case(11, 6, math.log(1 / 0.07), 0.0),
    case(11, 6, math.log(100), 0.0),
    case(11, 6, math.log(1 / 0.07), 0.1),
    case(7, 5, 0.0, 0.3),
    case(1, 5, math.log(1 / 0.07), 0.0),
]
out = pathlib.Path(__file__).with_suffix(".json")
out.write_text(json.dumps({"made_by": f"torch {torch.__version__.split('+')[0]}, open-clip-torch 3.3.0", "cases": cases}) + "\n")
print(out.name, out.stat().st_size, "bytes")
