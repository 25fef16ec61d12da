"""The two sides of `bench_peer.py`: pixfleet's runs on a dataset of its own, and PyTorch's ranks."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
from torchrun_elastic import HERE, end_with_parent

ROOT = HERE.parents[1]
WORKERS = 2
SCENES = 1600


def workers_on(device):
    """One GPU has one rank; two cores have two."""
    return 1 if device == "cuda" else WORKERS


class Data:
    """mini-LongGRIT with MiniLM's vectors, built once, by pixfleet; or a local dataset that is there."""

    def __init__(self, cli, folder, url, vectors):
        self.vectors = vectors
        if url:
            self.folder, self.url = Path(url.removeprefix("file://")), url
            return
        self.folder, self.url = folder, f"file://{folder}"
        done = folder.with_suffix(".complete")
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            size = ("--scenes", SCENES, "--test-scenes", 1, "--heldout-scenes", 0)
            cli.run("shards", "build", "mini", *size, "--drawings", ROOT / ".cache/drawings", "--out", self.url)
            cli.run("shards", "index", self.url)
            cli.run("shards", "embed", self.url, "--split", "train", "--weights", ROOT / ".cache/minilm")
            done.touch()

    def regions(self, most=4):
        """Regions of a row that a run trains on, on average."""
        files = sorted((self.folder / "train").glob("*.parquet"))
        rows = [row for file in files for row in pyarrow.parquet.read_table(file, columns=["regions"])["regions"]]
        return statistics.mean(min(most, len(row)) for row in rows)


def train(program, case, data, precision, steps, folder, device):
    """Seconds of each of `steps` steps of a new run, after its first ones, by the step log of a worker; and their lines."""
    logs, store = folder / "steps", folder / "runs"
    for old in (logs, store):
        shutil.rmtree(old, ignore_errors=True)
    logs.mkdir()
    vectors = {"data.vectors": data.vectors} if "data.vectors" in case.sets else {}
    sets = case.sets | vectors | {
        "data.url": data.url,
        "run.store": f"file://{store}",
        "schedule.steps": case.ours_warm + steps,
        "schedule.warmup": 1,
        "train.global_batch": case.batch,
        "train.precision": precision,
        "checkpoint.every_steps": 1_000_000,
    }
    command = [program, "train", ROOT / case.recipe, "--fresh", "--log", "json", "--device", device]
    command += ["--workers", str(workers_on(device))]
    command += [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    env = dict(os.environ, PIXFLEET_STEP_LOG=str(logs / "steps"), OMP_WAIT_POLICY="passive")
    with open(folder / "pixfleet.log", "wb") as log:
        ran = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=log, preexec_fn=end_with_parent)
    if ran.returncode:
        raise SystemExit(f"pixfleet train failed; see {log.name}")
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    lines = [line for line in lines if "losses" in line][-steps:]
    shutil.rmtree(store)
    commits = [line.split() for line in (logs / "steps-w0.log").read_text().splitlines()]
    if len(commits) != case.ours_warm + steps or len({generation for _, _, generation in commits}) != 1:
        raise SystemExit(f"not {case.ours_warm + steps} steps of one generation: see {logs} and {folder}/pixfleet.log")
    at = [int(nanoseconds) / 1e9 for nanoseconds, _, _ in commits]
    return [after - before for before, after in zip(at, at[1:])][-steps:], lines


class Peer:
    """Ranks of `bench_rank.py`, alive until closed; idle between questions."""

    def __init__(self, name, world, threads, folder, device):
        meet = folder / f"meet-{world}"
        meet.unlink(missing_ok=True)
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="passive", GLOO_SOCKET_IFNAME="lo")
        env |= {"TORCHINDUCTOR_CACHE_DIR": str(folder.parent / "inductor"), "TORCHINDUCTOR_COMPILE_THREADS": str(threads)}
        command = [sys.executable, HERE / "bench_rank.py", "--case", name, "--device", device, "--world", world, "--threads", threads, "--meet", meet]
        command += ["--weights", folder / "weights.safetensors", "--inputs", folder / "inputs.safetensors", "--rank"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.world = world
        self.ranks = [
            subprocess.Popen([str(word) for word in [*command, rank]], env=env, preexec_fn=end_with_parent, **pipes)
            for rank in range(world)
        ]

    def ask(self, *words):
        """The first rank's answer; all ranks have answered."""
        question = " ".join(map(str, words))
        for rank in self.ranks:
            rank.stdin.write(f"{question}\n")
            rank.stdin.flush()
        answers = [rank.stdout.readline() for rank in self.ranks]
        if not all(answers):
            raise SystemExit(f"a rank of the peer ended at `{question}`; its message stands above")
        return json.loads(answers[0])

    def close(self):
        for rank in self.ranks:
            rank.stdin.close()
        for rank in self.ranks:
            rank.wait(timeout=60)
