"""One rank of the peer: a small two-tower contrastive model under DDP over Gloo, with a checkpoint after every step.

Started by torchrun, which torchrun_elastic.py starts; it resumes from the newest checkpoint, whoever died before. Sizes are
those of pixfleet's `tiny` preset and of its end-to-end tests: an EVA02-like tower of 96 px, 256 wide, 4 blocks; text vectors
of 384; 120 samples, a global batch of 24, fp32, one thread a rank; the losses of image and crop against the text.
Pixels and text are drawn from a seed in memory, so that no reading or decoding stands in the way of a restart.
"""
import os
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SIDE, PATCH, WIDTH, DEPTH, HEADS, HIDDEN, EMBED, TEXT = 96, 16, 256, 4, 4, 672, 256, 384
SAMPLES, GLOBAL_BATCH = 120, 24


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2, self.inner = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.w12, self.norm3, self.w3 = nn.Linear(WIDTH, 2 * HIDDEN), nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, WIDTH)
        x = x + self.proj(self.inner(attended))
        gate, value = self.w12(self.norm2(x)).chunk(2, dim=-1)
        return x + self.w3(self.norm3(F.silu(gate) * value))


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        patches = (SIDE // PATCH) ** 2
        self.embed = nn.Conv2d(4, WIDTH, PATCH, PATCH)  # pixels and mask
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, patches + 1, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, EMBED)
        self.text = nn.Sequential(nn.LayerNorm(TEXT), nn.Linear(TEXT, TEXT), nn.GELU(), nn.Linear(TEXT, TEXT))
        self.text_out = nn.Sequential(nn.LayerNorm(TEXT), nn.Linear(TEXT, EMBED))
        self.logit_scale = nn.Parameter(torch.tensor(2.659))

    def see(self, pixels):
        x = self.embed(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.positions
        return F.normalize(self.head(self.norm(self.blocks(x)[:, 0])), dim=-1)

    def forward(self, pixels, crop, text):
        vector = F.normalize(self.text_out(text + self.text(text)), dim=-1)
        return self.see(pixels), self.see(crop), vector, self.logit_scale.exp()


def gathered(own):
    """Everybody's rows, the own ones with their graph."""
    rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, own.detach().contiguous())
    rows[dist.get_rank()] = own
    return torch.cat(rows)


def info_nce(a, b, scale):
    logits = scale * gathered(a) @ gathered(b).T
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def batch_of(data, step, rank, world):
    """This rank's rows of the step's global batch: each epoch is a permutation of its own."""
    share = GLOBAL_BATCH // world
    positions = range(step * GLOBAL_BATCH + rank * share, step * GLOBAL_BATCH + (rank + 1) * share)
    rows = []
    for position in positions:
        epoch, index = divmod(position, SAMPLES)
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(epoch))
        rows.append(int(order[index]))
    return [tensor[rows].float() for tensor in data]


def save(path, step, model, optimizer):
    """Whole or not at all."""
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, path + ".part")
    os.replace(path + ".part", path)


def main(folder):
    parent = os.getppid()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    generation = int(os.environ["PEER_GENERATION"]) + int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    log = open(f"{folder}/steps/{generation}-{rank}-{os.getpid()}.log", "a", buffering=1)

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(11)
    model = Towers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    pixels, crop = (torch.randint(0, 256, (SAMPLES, 4, SIDE, SIDE), dtype=torch.uint8) / 255 for _ in range(2))
    data = (pixels, crop, F.normalize(torch.randn(SAMPLES, TEXT), dim=-1))

    step, path = 0, f"{folder}/checkpoint.pt"
    if os.path.exists(path):
        saved = torch.load(path, weights_only=True)
        step = saved["step"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    replica = DistributedDataParallel(model)

    while os.getppid() == parent:
        image, crop, text, scale = replica(*batch_of(data, step, rank, world))
        loss = info_nce(image, text, scale) + info_nce(crop, text, scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.write(f"{time.time_ns()} {step} {generation}\n")
        step += 1
        if rank == 0:
            save(path, step, model, optimizer)


if __name__ == "__main__":
    main(sys.argv[1])
