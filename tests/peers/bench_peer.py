"""pixfleet, with reading and decoding, against PyTorch on the same machine: the same towers and losses, samples per second.

A peer is the official definitions (`official.py`) with bf16 autocast, fused AdamW and clipping, its batch ready in memory: two
ranks of one thread under DDP over Gloo, or one process of two threads; each eager and under torch.compile. Before anything is
timed every peer must give, in fp32, the losses that `pixfleet probe` gives for the same weights and tensors.

One run, in rounds: each round times everybody, in an order that turns by one from round to round. A round's figure is of its
median step; the table's is of the median round, and the better peer counts. pixfleet is started anew each round and timed by its
step log after warm-up; peers stay alive, so that compiling is paid once. A peer that is slower than the best by more than a
quarter in the first round is not timed again. A processor without bf16 arithmetic compares in fp32.
"""

import argparse
import functools
import itertools
import json
import statistics
import sys
import sysconfig
from pathlib import Path

import torch
from bench_cases import CASES
from bench_sides import ROOT, WORKERS, Data, Peer, train
from import_official import Cli, check, faults, randomized
from safetensors.torch import save_file

LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
NEAR_THE_BEST = 1.25
MODES = ("eager", "compiled")
OURS = "pixfleet"

EXAMPLES = """\
examples:
  make bench-peer                                            all cases; by hand, on a quiet machine
  bench_peer.py --case tiny --rounds 3                       one case, fewer rounds
  bench_peer.py --case eva02-b16 --profile                   with the better peer's kernels
  bench_peer.py --case tiny --precision bf16,fp32 --steps 1  both, whatever the processor
"""


class Bench:
    """One case."""

    def __init__(self, name, args, cli, data):
        self.name, self.case, self.args, self.cli, self.data = name, CASES[name], args, cli, data
        self.folder = cli.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.expected = self.probe()
        ranks = {f"DDP, {WORKERS} x 1 thread": (WORKERS, 1), f"1 process, {WORKERS} threads": (1, WORKERS)}
        self.peers = {title: Peer(name, *shape, self.folder) for title, shape in ranks.items()}
        self.rates = {}  # of each round, samples per second, by (program, precision)

    def probe(self):
        """What `pixfleet probe` says of the batch, by the peer's number of ranks."""
        system, batch = self.case.system, self.case.batch
        model, inputs = randomized(system.model(), 1), system.inputs(batch, self.data.regions())
        tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}
        save_file(tensors, self.folder / "weights.safetensors")
        save_file(inputs, self.folder / "inputs.safetensors")

        def of(rows):
            return self.cli.probe(system.preset, system.loss, self.folder / "weights.safetensors", system.rows(inputs, rows))

        whole, share = of(slice(0, batch)), batch // WORKERS
        terms = {name: whole[f"loss.{name}"].item() for name in system.weights}
        gradient = torch.stack([whole[f"grad.{name}"].norm() for name in tensors]).norm().item()
        parts = [of(slice(at, at + share)) for at in range(0, batch, share)] if system.of_one_rank else []
        means = {name: statistics.mean(part[f"loss.{name}"].item() for part in parts) for name in system.of_one_rank}
        return {1: terms | {"gradient": gradient}, WORKERS: terms | means}

    def hold(self):
        """Every peer to ours; its norm of the gradient too, where all terms are of one rank."""
        for (title, peer), mode in itertools.product(self.peers.items(), MODES):
            theirs = peer.ask("losses", mode)
            for term, ours in self.expected[peer.world].items():
                limit = GRADIENT_TOLERANCE if term == "gradient" else LOSS_TOLERANCE
                error = abs(theirs[term] / ours - 1)
                check(f"{self.name}, {title}, {mode}: {term} within {limit}", error <= limit, f"({ours:.6f}, {error:.1e})")
        if faults:
            raise SystemExit(f"not the same losses, so not the same work: {len(faults)} faults; nothing was timed")

    def ours(self, precision):
        steps = self.args.steps or self.case.ours_steps
        return train(self.args.program, self.case, self.data, precision, steps, self.folder)

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
        print("\n".join(lines), flush=True)
        rates = [{"program": p, "precision": q, "samples_per_s": median[p, q], "rounds": self.rates[p, q]} for p, q in self.rates]
        out = {"case": self.name, "batch": self.case.batch, "goal": self.case.goal, "ratios": ratios, "rates": rates}
        if self.args.profile or ratios[self.args.precision[0]] < self.case.goal:
            out["kernels_of_the_better_peer"] = self.profile()
        (self.cli.folder / f"{self.name}.json").write_text(json.dumps(out, indent=1) + "\n")

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
    parser.add_argument("--case", choices=CASES, action="append", help="may be given many times; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="timed steps of a round; default: by case")
    parser.add_argument("--precision", type=lambda text: text.split(","), help="bf16, fp32 or both; the first one counts")
    parser.add_argument("--profile", action="store_true", help="the better peer's kernels; also shown where the goal is missed")
    parser.add_argument("--program", default=str(ROOT / "target/debug/pixfleet"))
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench-peer", help="dataset, JSON and logs")
    args = parser.parse_args()
    args.precision = args.precision or precisions()
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        raise SystemExit("torch.compile needs Python.h: on Debian, apt-get install python3-dev")
    folder = args.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cli = Cli(args.program, folder)
    data = Data(cli, folder / "data")
    for name in args.case or CASES:
        bench = Bench(name, args, cli, data)
        try:
            bench.run()
            bench.report()
        finally:
            bench.close()


if __name__ == "__main__":
    main()
