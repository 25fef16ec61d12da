"""One rank of the peer that `bench_peer.py` times: official towers under DDP over Gloo, or alone; eager and torch.compile.

Both modes share parameters, optimizer and one batch, which lies ready in memory. The rank answers each line on its standard
input with a line of JSON:

    losses MODE ROWS             the terms of the first rows in fp32, mean over ranks, and the norm of the averaged gradient; nothing is learned
    run MODE PRECISION STEPS     seconds of each step
    profile MODE PRECISION       the kernels of one step: name, milliseconds of their own, calls
"""

import argparse
import contextlib
import ctypes
import json
import operator
import os
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from bench_cases import CASES, GPU_CASES
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

KERNELS = 15


class Encoder(nn.Module):
    """A system's towers as a module, which DDP and torch.compile can wrap."""

    def __init__(self, system, model):
        super().__init__()
        self.system, self.model = system, model

    def forward(self, batch):
        return self.system.encode(self.model, batch)


class Rank:
    def __init__(self, case, given):
        self.case, self.world, self.device = case, given.world, given.device
        model = case.system.model()
        missing, unexpected = model.load_state_dict(load_file(given.weights), strict=False)
        assert not unexpected and all("freqs" in name for name in missing), (missing, unexpected)
        share = case.batch // given.world
        self.first = given.rank * share
        self.inputs = case.system.rows(load_file(given.inputs), slice(self.first, self.first + share))
        self.batch = self.prepared(share)
        model.to(self.device)
        # As the authors' code has it: what is a vector or a number does not decay.
        groups = [[p for p in model.parameters() if (p.dim() > 1) == wide] for wide in (True, False)]
        groups = [{"params": ps, "weight_decay": decay} for ps, decay in zip(groups, (case.weight_decay, 0.0))]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-6, fused=True)
        self.parameters = list(model.parameters())
        encoder = Encoder(case.system, model)
        if self.world > 1:
            encoder = DistributedDataParallel(encoder, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.modes = {"eager": encoder, "compiled": torch.compile(encoder)}

    def prepared(self, rows):
        batch = self.case.system.prepared(self.case.system.rows(self.inputs, slice(0, rows)))
        return {name: x.to(self.device) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}

    def everybody(self, own):
        """All ranks' rows; the gradient of each goes back to its rank."""
        return torch.cat(differentiable.all_gather(own)) if self.world > 1 else own

    def backward(self, mode, precision, batch):
        """The terms, with their gradients in the parameters."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=precision == "bf16"):
            features = self.modes[mode](batch)
        features = {name: tensor.float() for name, tensor in features.items()}
        terms = self.case.system.losses(features, self.everybody, self.first)
        sum(self.case.system.weights[name] * loss for name, loss in terms.items()).backward()
        return terms

    def step(self, mode, precision):
        self.backward(mode, precision, self.batch)
        nn.utils.clip_grad_norm_(self.parameters, self.case.clip_norm)
        self.optimizer.step()

    def losses(self, mode, rows):
        terms = {name: loss.detach() for name, loss in self.backward(mode, "fp32", self.prepared(int(rows))).items()}
        if self.world > 1:
            for loss in terms.values():
                dist.all_reduce(loss)
        norm = torch.stack([p.grad.norm() for p in self.parameters]).norm()
        return {name: loss.item() / self.world for name, loss in terms.items()} | {"gradient": norm.item()}

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def run(self, mode, precision, steps):
        times = []
        for _ in range(int(steps)):
            start = time.perf_counter()
            self.step(mode, precision)
            self.wait()
            times.append(time.perf_counter() - start)
        return times

    def profile(self, mode, precision):
        time_of = operator.attrgetter("self_device_time_total" if self.device == "cuda" else "self_cpu_time_total")
        with torch.profiler.profile() as seen:
            self.step(mode, precision)
            self.wait()
        kernels = sorted(seen.key_averages(), key=time_of, reverse=True)
        return [(k.key, time_of(k) / 1e3, k.count) for k in kernels[:KERNELS]]

    def answer(self, command, *words):
        answer = {"losses": self.losses, "run": self.run, "profile": self.profile}[command](*words)
        # What an idle peer holds, others lack.
        self.optimizer.zero_grad()
        ctypes.CDLL(None).malloc_trim(0)
        return answer


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--case", choices=CASES | GPU_CASES, required=True)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--weights", required=True, help="safetensors, under the official names")
    arguments.add_argument("--inputs", required=True, help="the global batch as `pixfleet probe` reads it, safetensors")
    arguments.add_argument("--rank", type=int, default=0)
    arguments.add_argument("--world", type=int, default=1)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--meet", help="a file that the ranks find each other by")
    given = arguments.parse_args()
    # Answers alone go to standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(given.threads)
    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32 when losses are compared; bf16 does not care
    if given.world > 1:
        dist.init_process_group("gloo", init_method=f"file://{given.meet}", rank=given.rank, world_size=given.world)
    rank = Rank((GPU_CASES if given.device == "cuda" else CASES)[given.case], given)
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            print(json.dumps(rank.answer(*line.split())), file=answers, flush=True)


if __name__ == "__main__":
    main()
