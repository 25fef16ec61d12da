"""What `bench_peer.py` compares, case by case: a recipe of ours with what the comparison changes of it, and the peer's towers,
batch and losses, from the official definitions.

A system is towers and losses of a peer: `encode(model, batch)` gives features and inverse temperatures, which is what data
parallelism and torch.compile wrap; `losses(features, everybody, first)` the terms, with everybody's features gathered.
"""

from dataclasses import dataclass, field, replace

import fgclip_probe
import torch
from fgclip_probe import contrast, pooled, roi_cells
from official import FgClip1, PixClip
from torch.nn import functional as F


@dataclass(frozen=True)
class PixClipSystem:
    """PixCLIP's three branches over stored text vectors (method.md 2.3 to 2.5: B1, C1 and G1)."""

    preset: str
    image: int = 224
    patch: int = 16
    embed: int = 1280
    text: int = 384
    sizes: dict = field(default_factory=dict)
    loss = "default"
    weights = {"global": 1.0, "crop": 1.0, "local": 1.0}
    of_one_rank = ()

    def model(self):
        return PixClip(self.text, 2 * self.text, 1, self.embed, {"image": self.image, "patch": self.patch} | self.sizes)

    def inputs(self, batch, _):
        generator = torch.Generator().manual_seed(7)
        corner = torch.rand(batch, 2, generator=generator) * 0.5
        side = 0.1 + torch.rand(batch, 2, generator=generator) * 0.4
        out = {"boxes": torch.cat([corner, corner + side], 1), "text": torch.randn(batch, self.text, generator=generator)}
        for name in ("", "crop_"):
            out[f"{name}pixels"] = torch.randn(batch, 3, self.image, self.image, generator=generator)
            out[f"{name}mask"] = torch.randn(batch, 1, self.image, self.image, generator=generator)
        return out

    def rows(self, inputs, at):
        return {name: tensor[at] for name, tensor in inputs.items()}

    def prepared(self, inputs):
        grid = self.image // self.patch
        return {**inputs, "cells": torch.stack([roi_cells(box, grid) for box in inputs["boxes"]])}

    def encode(self, model, batch):
        tokens = model.visual.tokens(batch["pixels"], batch["mask"])
        return {
            "image": model.visual.project(tokens[:, 0]),
            "region": model.visual.project(pooled(tokens[:, 1:], batch["cells"])),
            "crop": model.visual(batch["crop_pixels"], batch["crop_mask"]),
            "text": model.adapted(batch["text"]),
            "scale": model.logit_scale.exp(),
        }

    def losses(self, f, everybody, first):
        return {
            "global": contrast(f["image"], f["text"], f["scale"], everybody, first),
            "crop": contrast(f["crop"], f["text"], f["scale"], everybody, first),
            "local": 1 - F.cosine_similarity(f["region"], f["crop"].detach()).mean(),
        }


@dataclass(frozen=True)
class FgClipSystem:
    """FG-CLIP v1's second stage (method.md 4.2); texts as long as the authors pad them, 248 and 77 tokens."""

    preset = "fgclip1-b16"
    loss = "fgclip1"
    weights = fgclip_probe.WEIGHTS
    # Each rank contrasts its own regions.
    of_one_rank = ("region", "hard")

    def model(self):
        return FgClip1()

    def inputs(self, batch, regions):
        """`regions`: of a row, on average."""
        total = round(batch * regions)
        counts = [total * (n + 1) // batch - total * n // batch for n in range(batch)]
        return fgclip_probe.inputs(counts, counts)

    def rows(self, inputs, at):
        hard = 11 * inputs["hard_counts"].cumsum(0)
        texts = slice(hard[at.start - 1].item() if at.start else 0, hard[at.stop - 1].item())
        wide = {"text_hard": texts, "text_region": slice(4 * at.start, 4 * at.stop)}
        return {name: tensor[wide.get(name, at)] for name, tensor in inputs.items()}

    def prepared(self, inputs):
        return fgclip_probe.prepared(inputs, 14)

    def encode(self, model, batch):
        return fgclip_probe.encode(model, batch)

    def losses(self, f, everybody, first):
        return fgclip_probe.losses(f, everybody, first)


# A GPU compiles and loads kernels for each new shape, so more steps come first.
GPU_STEPS = {"ours_warm": 20, "ours_steps": 20, "peer_warm": 4, "peer_steps": 12}


@dataclass(frozen=True)
class Case:
    """One line of the comparison. Steps are those that are timed in a round, after those that are not."""

    recipe: str
    batch: int
    goal: float
    system: object
    clip_norm: float
    weight_decay: float
    ours_steps: int
    peer_steps: int
    ours_warm: int = 3
    peer_warm: int = 1
    sets: dict = field(default_factory=dict)

    def on_gpu(self, batch):
        """The same on a GPU, as one lane, since the peer runs the batch as one."""
        return replace(self, batch=batch, sets=self.sets | {"train.lanes": 1}, **GPU_STEPS)


VECTORS = "minilm-plain-256"
ADAPTER = {"data.vectors": VECTORS, "model.text_proj.width": 384, "model.text_proj.hidden": 768, "model.text_proj.layers": 1}

CASES = {
    "tiny": Case(
        recipe="recipes/pixclip-tiny.toml",
        batch=128,
        goal=2.0,
        system=PixClipSystem("tiny", 96, embed=256, sizes={"width": 256, "hidden": 672, "depth": 4}),
        clip_norm=1.0,
        weight_decay=0.05,
        ours_steps=8,
        peer_steps=6,
        sets=ADAPTER,
    ),
    "eva02-b16": Case(
        recipe="recipes/pixclip-b16.toml",
        batch=8,
        goal=1.5,
        system=PixClipSystem("eva02-b16"),
        clip_norm=5.0,
        weight_decay=0.05,
        ours_steps=4,
        peer_steps=3,
        sets={**ADAPTER, "model.weights": "", "train.lanes": 2},
    ),
    "fgclip-b16": Case(
        recipe="recipes/fgclip1-stage2-b16.toml",
        batch=8,
        goal=1.3,
        system=FgClipSystem(),
        clip_norm=1.0,
        weight_decay=0.001,
        ours_steps=3,
        peer_steps=1,
        peer_warm=0,
        # The authors contrast the regions of one GPU.
        sets={"model.weights": "", "train.lanes": 2, "loss.region": "lane"},
    ),
}

L14 = PixClipSystem("eva02-l14-336", 336, 14, sizes={"width": 1024, "hidden": 2730, "depth": 24})
GPU_CASES = {
    "eva02-b16": CASES["eva02-b16"].on_gpu(128),
    "eva02-l14-336": replace(CASES["eva02-b16"], recipe="recipes/pixclip-l14-336.toml", goal=1.15, system=L14).on_gpu(16),
    "fgclip-b16": CASES["fgclip-b16"].on_gpu(16),
}
