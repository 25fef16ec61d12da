"""pixfleet, with reading and decoding, against PyTorch on the same machine: the same towers and losses, samples per second.

A peer is the official definitions (`official.py`) with bf16 autocast, fused AdamW and clipping, its batch ready in memory: two
ranks of one thread under DDP over Gloo, or one process of two threads; each eager and under torch.compile. Before anything is
timed every peer must give, in fp32, the losses that `pixfleet probe` gives for the same weights and tensors.

One run, in rounds: each round times everybody, in an order that turns by one from round to round. A round's figure is of its
median step; the table's is of the median round, and the better peer counts. pixfleet is started anew each round and timed by its
step log after warm-up; peers stay alive, so that compiling is paid once. A peer that is slower than the best by more than a
quarter in the first round is not timed again. A processor without bf16 arithmetic compares in fp32.

On a GPU (`--device cuda`) it is one rank against one process, in bf16, each batch one lane, and the losses of a few rows are
compared, eager. What pixfleet says of its own steps (MFU, memory, reads of the device, waits for samples) stands below.
"""

import argparse
import functools
import itertools
import json
import os
import statistics
import sys
import sysconfig
from pathlib import Path

import torch
from bench_cases import CASES, GPU_CASES, VECTORS
from bench_sides import ROOT, WORKERS, Data, Peer, train
from import_official import Cli, check, faults, randomized
from safetensors.torch import save_file

LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
NEAR_THE_BEST = 1.25
GPU_ROWS = 4
# A GPU's fp32 kernels add in other orders than a CPU's.
GPU_SLACK = 10
OWN = {"mfu", "flops", "device_reads", "peak_memory_bytes", "seconds", "data_wait_s", "forward_s", "exchange_s", "backward_s"}
MODES = ("eager", "compiled")
OURS = "pixfleet"

EXAMPLES = """\
examples:
  make bench-peer                                            all cases; by hand, on a quiet machine
  bench_peer.py --case tiny --rounds 3                       one case, fewer rounds
  bench_peer.py --device cuda                                one GPU
  bench_peer.py --case eva02-b16 --profile                   with the better peer's kernels
  bench_peer.py --case tiny --precision bf16,fp32 --steps 1  both, whatever the processor
"""


class Bench:
    """One case."""

    def __init__(self, name, args, cli, data):
        self.name, self.case, self.args, self.cli, self.data = name, args.cases[name], args, cli, data
        self.gpu = args.device == "cuda"
        self.rows = GPU_ROWS if self.gpu else self.case.batch
        self.lines = []  # of our last round, as `train --log json` tells of a step
        self.folder = cli.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.expected = self.probe()
        ranks = {f"DDP, {WORKERS} x 1 thread": (WORKERS, 1), f"1 process, {WORKERS} threads": (1, WORKERS)}
        if self.gpu:
            ranks = {"PyTorch": (1, os.cpu_count())}
        self.peers = {title: Peer(name, *shape, self.folder, args.device) for title, shape in ranks.items()}
        self.rates = {}  # of each round, samples per second, by (program, precision)

    def probe(self):
        """What `pixfleet probe` says of the batch, by the peer's number of ranks."""
        system, batch = self.case.system, self.rows
        model, inputs = randomized(system.model(), 1), system.inputs(self.case.batch, self.data.regions())
        tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}
        save_file(tensors, self.folder / "weights.safetensors")
        save_file(inputs, self.folder / "inputs.safetensors")

        def of(rows):
            return self.cli.probe(system.preset, system.loss, self.folder / "weights.safetensors", system.rows(inputs, rows))

        whole, share = of(slice(0, batch)), batch // WORKERS
        terms = {name: whole[f"loss.{name}"].item() for name in system.weights}
        gradient = torch.stack([whole[f"grad.{name}"].norm() for name in tensors]).norm().item()
        shared = system.of_one_rank and not self.gpu
        parts = [of(slice(at, at + share)) for at in range(0, batch, share)] if shared else []
        means = {name: statistics.mean(part[f"loss.{name}"].item() for part in parts) for name in system.of_one_rank if parts}
        return {1: terms | {"gradient": gradient}, WORKERS: terms | means}

    def hold(self):
        """Every peer to ours; its norm of the gradient too, where all terms are of one rank."""
        # Compiled for few rows, a GPU's peer would be compiled again for all.
        for (title, peer), mode in itertools.product(self.peers.items(), MODES[:1] if self.gpu else MODES):
            theirs = peer.ask("losses", mode, self.rows // peer.world)
            for term, ours in self.expected[peer.world].items():
                limit = GRADIENT_TOLERANCE if term == "gradient" else LOSS_TOLERANCE
                limit *= GPU_SLACK if self.gpu else 1
                error = abs(theirs[term] / ours - 1)
                check(f"{self.name}, {title}, {mode}: {term} within {limit}", error <= limit, f"({ours:.6f}, {error:.1e})")
        if faults:
            raise SystemExit(f"not the same losses, so not the same work: {len(faults)} faults; nothing was timed")

    def ours(self, precision):
        steps = self.args.steps or self.case.ours_steps
        seconds, self.lines = train(self.args.program, self.case, self.data, precision, steps, self.folder, self.args.device)
        return seconds

    def theirs(self, peer, mode, precision):
        steps, warm = self.args.steps or self.case.peer_steps, self.case.peer_warm
        return peer.ask("run", mode, precision, warm + steps)[warm:]

    def contenders(self):
        """What times a round's steps, by (program, precision)."""
        for precision in self.args.precision:
            yield (OURS, precision), functools.partial(self.ours, precision)
            for (title, peer), mode in itertools.product(self.peers.items(), MODES):
                if precision != "fp32":
                    peer.ask("run", mode, precision, 1)  # compiles; for fp32 `hold` has
                yield (f"{title}, {mode}", precision), functools.partial(self.theirs, peer, mode, precision)

    def run(self):
        self.hold()
        racing = list(self.contenders())
        for number in range(self.args.rounds):
            turn = number % len(racing)
            for who, seconds in racing[turn:] + racing[:turn]:
                self.rates.setdefault(who, []).append(self.case.batch / statistics.median(seconds()))
                print(f"{self.name}, round {number + 1}: {self.rates[who][-1]:8.2f} samples/s  {', '.join(who)}", file=sys.stderr)
            if number == 0:
                racing = [(who, seconds) for who, seconds in racing if self.stays(*who)]

    def best(self, precision=None):
        """The better peer, of all or of one precision."""
        peers = [who for who in self.rates if who[0] != OURS and precision in (None, who[1])]
        return max(peers, key=lambda who: statistics.median(self.rates[who]))

    def stays(self, program, precision):
        """Whether it is timed after the first round: ours in the precision that counts, and peers near the best."""
        if program == OURS:
            return precision == self.args.precision[0]
        near = NEAR_THE_BEST * self.rates[program, precision][0] >= self.rates[self.best()][0]
        return near or (program, precision) == self.best(self.args.precision[0])

    def report(self):
        """The table, one line for each precision, and a file."""
        median = {who: statistics.median(rates) for who, rates in self.rates.items()}
        lines = [f"\n{self.name}, batch {self.case.batch}" + " " * 26 + "samples/s     least      most  rounds"]
        for (program, precision), rates in sorted(self.rates.items(), key=lambda item: -median[item[0]]):
            shown = f"{min(rates):10.2f}{max(rates):10.2f}{len(rates):8}"
            lines.append(f"  {program + ', ' + precision:<40}{median[program, precision]:10.2f}{shown}")
        ratios = {}
        for precision in self.args.precision:
            peer = self.best(precision)
            ratios[precision] = median[OURS, precision] / median[peer]
            met = "met" if ratios[precision] >= self.case.goal else "missed"
            lines.append(f"{self.name}, {precision}: {ratios[precision]:.2f} times the better peer ({peer[0]}); goal {self.case.goal}: {met}")
        own = self.own()
        lines.append("  " + ", ".join(f"{key} {value:.4g}" for key, value in own.items()))
        print("\n".join(lines), flush=True)
        rates = [{"program": p, "precision": q, "samples_per_s": median[p, q], "rounds": self.rates[p, q]} for p, q in self.rates]
        out = {"case": self.name, "batch": self.case.batch, "goal": self.case.goal, "ratios": ratios, "rates": rates, "own": own}
        if self.args.profile or ratios[self.args.precision[0]] < self.case.goal:
            out["kernels_of_the_better_peer"] = self.profile()
        (self.cli.folder / f"{self.name}.json").write_text(json.dumps(out, indent=1) + "\n")

    def own(self):
        """What pixfleet says of its steps: medians of the last round."""
        told = {}
        for line in self.lines:
            figures = line["metrics"] | {"data_wait_s": line["data_wait_s"], "seconds": line["seconds"]}
            for key in OWN & figures.keys():
                told.setdefault(key, []).append(figures[key])
        return {key: statistics.median(values) for key, values in sorted(told.items())}

    def profile(self):
        """The better peer's kernels, by the time of their own."""
        program, precision = self.best(self.args.precision[0])
        title, mode = program.rsplit(", ", 1)
        kernels = self.peers[title].ask("profile", mode, precision)
        print(f"\none step of {program}, {precision}, rank 0" + " " * 20 + "ms     calls")
        for kernel, milliseconds, calls in kernels:
            print(f"  {kernel[:60]:<60}{milliseconds:10.1f}{calls:10}")
        return kernels

    def close(self):
        for peer in self.peers.values():
            peer.close()


def precisions():
    """bf16 counts where the processor has it; libtorch's emulation is thirty times slower than fp32."""
    flags = Path("/proc/cpuinfo").read_text()
    if any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16 ")):
        return ["bf16", "fp32"]
    print("this processor has no bf16 arithmetic: comparing in fp32", file=sys.stderr)
    return ["fp32"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES | GPU_CASES, action="append", help="may be given many times; default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="timed steps of a round; default: by case")
    parser.add_argument("--precision", type=lambda text: text.split(","), help="bf16, fp32 or both; the first one counts")
    parser.add_argument("--profile", action="store_true", help="the better peer's kernels; also shown where the goal is missed")
    parser.add_argument("--program", default=str(ROOT / "target/debug/pixfleet"))
    parser.add_argument("--data", help="URL of a local dataset; default: one that is composed below --out")
    parser.add_argument("--vectors", default=VECTORS, help="the key of its text vectors, of 384 numbers")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench-peer", help="dataset, JSON and logs")
    args = parser.parse_args()
    args.cases = GPU_CASES if args.device == "cuda" else CASES
    args.precision = args.precision or (["bf16"] if args.device == "cuda" else precisions())
    if unknown := set(args.case or ()) - args.cases.keys():
        parser.error(f"--device {args.device} has no case {', '.join(unknown)}")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        raise SystemExit("torch.compile needs Python.h: on Debian, apt-get install python3-dev")
    folder = args.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cli = Cli(args.program, folder)
    data = Data(cli, folder / "data", args.data, args.vectors)
    for name in args.case or args.cases:
        bench = Bench(name, args, cli, data)
        try:
            bench.run()
            bench.report()
        finally:
            bench.close()


if __name__ == "__main__":
    main()
