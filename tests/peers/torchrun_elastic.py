"""How long torchrun takes to heal: one of its workers is killed with kill -9 at a random moment, again and again.

Timed as pixfleet is timed by `healing` (see README.md): from the signal to the first step that the restarted group
commits (its optimizer has run), less the median time of a step. Prints a table, and JSON with --out.
"""
import argparse
import collections
import contextlib
import ctypes
import json
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SETTLED_STEPS = 3  # steps that every rank has committed before the next kill
START_S = 120  # how long the first step of a fresh group may take
POLL_S = 0.005
GENERATIONS_OF_A_LIFE = 1_000_000  # above torchrun's restarts; lives are counted here, restarts by torchrun

Commit = collections.namedtuple("Commit", "at step generation rank pid")


class StepLogs:
    """What the ranks wrote about their committed steps, read as it grows."""

    def __init__(self, folder):
        self.folder, self.offsets, self.commits = folder, {}, []

    def refresh(self):
        for path in self.folder.glob("*.log"):
            _, rank, pid = path.stem.split("-")
            with open(path, "rb") as log:
                log.seek(self.offsets.get(path, 0))
                text = log.read()
            whole = text[: text.rfind(b"\n") + 1]
            self.offsets[path] = self.offsets.get(path, 0) + len(whole)
            for line in whole.splitlines():
                at, step, generation = map(int, line.split())
                self.commits.append(Commit(at, step, generation, int(rank), int(pid)))
        return self.commits

    def newest(self):
        """The newest generation with a commit and, of it, the committed steps by (rank, pid)."""
        generation = max((c.generation for c in self.commits), default=-1)
        members = collections.Counter((c.rank, c.pid) for c in self.commits if c.generation == generation)
        return generation, members


class Group:
    """torchrun and its workers; started anew by hand it is another life on the same checkpoint."""

    def __init__(self, args, folder):
        self.args, self.folder, self.life, self.agent = args, folder, -1, None

    def start(self):
        self.life += 1
        first = str(self.life * GENERATIONS_OF_A_LIFE)
        env = dict(os.environ, PEER_GENERATION=first, OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")
        env.pop("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", None)
        if not self.args.defaults:
            env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.args.workers}"]
        command += ["--max-restarts=100000", str(HERE / "train_ddp.py"), str(self.folder)]
        with open(self.folder / "torchrun.log", "ab") as log:
            self.agent = subprocess.Popen(command, env=env, stdout=log, stderr=log, preexec_fn=end_with_parent)

    def stop(self):
        """torchrun ends its workers when told to; those of a torchrun that had to be killed end at their next step."""
        if self.agent is None:
            return
        self.agent.terminate()
        try:
            self.agent.wait(timeout=40)  # torchrun gives its workers 30 s
        except subprocess.TimeoutExpired:
            self.agent.kill()
            self.agent.wait()
        for path in (self.folder / "steps").glob("*.log"):
            pid = int(path.stem.split("-")[2])
            if is_ours(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.agent = None


def end_with_parent():
    """In torchrun, before it is one: SIGTERM when the harness dies, however it dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def is_ours(pid):
    with contextlib.suppress(OSError):
        return b"train_ddp.py" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def until(met, limit_s, every_s=POLL_S):
    """What `met` returns once it is true, or None after the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := met():
            return found
        time.sleep(every_s)
    return None


def step_times(commits):
    """Seconds from commit to commit of rank 0 within a generation, its checkpoint included."""
    first_ranks = sorted(c for c in commits if c.rank == 0)
    pairs = zip(first_ranks, first_ranks[1:])
    return sorted((b.at - a.at) / 1e9 for a, b in pairs if a.generation == b.generation and b.step == a.step + 1)


def percentile(ordered, q):
    """Nearest rank."""
    return ordered[max(math.ceil(q * len(ordered)), 1) - 1]


class Harness:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        (folder / "steps").mkdir(parents=True)
        self.logs, self.group = StepLogs(folder / "steps"), Group(args, folder)
        self.random = random.Random(args.seed)
        self.events = []

    def run(self):
        self.group.start()
        try:
            for number in range(self.args.kills):
                self.settle()
                self.kill()
                print(f"kill {number + 1}: {self.events[-1]}", file=sys.stderr, flush=True)
        finally:
            self.group.stop()

    def settle(self):
        """Until every rank of the newest generation has committed a few steps."""

        def settled():
            self.logs.refresh()
            generation, members = self.logs.newest()
            lives = generation >= self.group.life * GENERATIONS_OF_A_LIFE
            return lives and len(members) == self.args.workers and min(members.values()) >= SETTLED_STEPS

        if not until(settled, START_S):
            raise SystemExit(f"the group does not train; see {self.folder}/torchrun.log")

    def kill(self):
        time.sleep(self.random.uniform(0, 2 * percentile(step_times(self.logs.commits), 0.5)))
        self.logs.refresh()
        generation, members = self.logs.newest()
        rank, pid = self.random.choice(sorted(members))
        killed = time.time_ns()
        os.kill(pid, signal.SIGKILL)
        if not until(lambda: not is_ours(pid), 10):
            raise SystemExit(f"process {pid} lives after kill -9")
        first = until(lambda: self.first_after(generation), self.args.limit)
        event = {"rank": rank, "pid": pid, "generation": generation, "from_signal_s": None, "steps_redone": 0}
        if first:
            event["from_signal_s"] = (first.at - killed) / 1e9
            last = max(c.step for c in self.logs.commits if c.generation <= generation)
            event["steps_redone"] = max(last + 1 - first.step, 0)
        else:
            self.group.stop()
            self.group.start()
        self.events.append(event)

    def first_after(self, generation):
        later = [c for c in self.logs.refresh() if c.generation > generation]
        return min(later, default=None)

    def report(self):
        step = percentile(step_times(self.logs.commits), 0.5)
        back = sorted(e["from_signal_s"] - step for e in self.events if e["from_signal_s"] is not None)
        spread = {"p50_s": percentile(back, 0.5), "p99_s": percentile(back, 0.99), "max_s": back[-1]} if back else None
        return {
            "program": "torchrun, defaults" if self.args.defaults else "torchrun",
            "mode": "kill",
            "workers": self.args.workers,
            "faults": len(self.events),
            "never_back": len(self.events) - len(back),
            "step_median_s": step,
            "next_commit": spread,
            "steps_redone": sum(e["steps_redone"] for e in self.events),
            "limit_s": self.args.limit,
            "events": self.events,
        }


def table(report):
    spread = report["next_commit"] or {}
    rows = [("kills", report["faults"]), (f"never back within {report['limit_s']:g} s", report["never_back"])]
    rows.append(("median step", f"{report['step_median_s']:.3f} s"))
    rows += [(f"signal to next commit, less a step, {key[:-2]}", f"{value:.3f} s") for key, value in spread.items()]
    rows.append(("steps redone", report["steps_redone"]))
    width = max(len(name) for name, _ in rows)
    return "\n".join([report["program"]] + [f"  {name:<{width}}  {value}" for name, value in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3, help="divides 24")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a group counts as never back")
    parser.add_argument("--seed", type=int, default=1, help="of victims and moments")
    parser.add_argument("--defaults", action="store_true", help="leave TORCH_DISABLE_SHARE_RDZV_TCP_STORE unset")
    parser.add_argument("--out", type=pathlib.Path, help="file for the JSON")
    parser.add_argument("--work", type=pathlib.Path, help="folder for logs and checkpoint, kept; default: a temporary one")
    args = parser.parse_args()
    folder = args.work or pathlib.Path(tempfile.mkdtemp(prefix="torchrun-elastic-"))
    # SIGTERM must not leave torchrun behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    harness = Harness(args, folder)
    harness.run()
    report = harness.report()
    print(table(report))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    if not args.work:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
