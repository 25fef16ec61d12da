"""Golden file roi_align.safetensors: torchvision.ops.roi_align(map, boxes, (1, 1), 1.0, -1, True), forward and gradient.

    pip install torch==2.11.0 torchvision==0.26.0 numpy safetensors && python roi_align.py
"""

import os

import numpy as np
import torch
from safetensors.numpy import save_file
from torchvision.ops import roi_align

from common import hash_fill

HERE = os.path.dirname(os.path.abspath(__file__))
EDGES = [
    (0, 0, 1, 1),  # everything
    (0, 0, 0, 0),  # the padding box: no area
    (0.5, 0.5, 0.5, 0.5),
    (0.3, 0.2, 0.3, 0.9),  # no width
    (0, 0, 0.01, 0.01),  # less than a cell, in a corner
    (0.99, 0.99, 1, 1),
    (0, 0.4, 1, 0.6),
    (1, 1, 1, 1),
    (0.2, 0, 0.4, 1),  # whole cells of a map 5 high
]


def case(name: str, count: int, height: int, width: int) -> dict:
    corners = hash_fill(name + ".corners", (count, 4), 0.5) + np.float32(0.5)
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    small = count // 3  # a third are small, as regions are
    boxes[:small, 2:] = boxes[:small, :2] + (boxes[:small, 2:] - boxes[:small, :2]) * np.float32(0.15)
    boxes[-len(EDGES) :] = np.array(EDGES, dtype=np.float32)
    features = torch.from_numpy(hash_fill(name + ".map", (count, 2, height, width), 1.0)).requires_grad_()
    scaled = torch.from_numpy(boxes) * torch.tensor([width, height, width, height], dtype=torch.float32)
    index = torch.arange(count, dtype=torch.float32)[:, None]
    pooled = roi_align(features, torch.cat([index, scaled], 1), (1, 1), 1.0, -1, True).flatten(1)
    pooled.backward(torch.from_numpy(hash_fill(name + ".grad", (count, 2), 1.0)))
    return {
        name + ".boxes": boxes,
        name + ".pooled": pooled.detach().numpy(),
        name + ".map_grad": features.grad.numpy(),
    }


out = case("wide", 180, 5, 7) | case("b16", 60, 14, 14)
save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, os.path.join(HERE, "roi_align.safetensors"))
print({k: v.shape for k, v in out.items()})
