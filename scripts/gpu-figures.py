"""Figures of a GPU that `gpu-check.sh` puts into its table, from runs of EVA02-B/16 on a dataset with vectors: one line for
each, `NAME<TAB>ok|FAILED<TAB>VALUE`. What each figure is stands beside the function that takes it.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WARM = 4
TOLD = "called a synchronizing CUDA operation"


class Runs:
    def __init__(self, given):
        self.given = given

    def command(self, name, **sets):
        shutil.rmtree(f"{self.given.out}/figures/{name}", ignore_errors=True)
        values = {
            "run.name": name,
            "run.store": f"file://{self.given.out}/figures",
            "data.url": self.given.data,
            "data.vectors": self.given.vectors,
            "model.text_proj.width": 384,
            "model.text_proj.hidden": 768,
            "model.text_proj.layers": 1,
            "model.weights": "",
            "schedule.warmup": 1,
            "schedule.steps": 12,
            "checkpoint.every_steps": 1_000_000,
        } | {key.replace("__", "."): value for key, value in sets.items()}
        command = [self.given.program, "train", str(ROOT / "recipes/pixclip-b16.toml"), "--workers", "1", "--device", "cuda"]
        return [*command, "--fresh", "--respawn", "9", "--log", "json", *(word for key, value in values.items() for word in ("--set", f"{key}={value}"))]

    def steps(self, name, env=(), **sets):
        """The lines of a run's steps, after the first few."""
        log = open(f"{self.given.out}/{name}.err", "wb")
        ran = subprocess.run(self.command(name, **sets), stdout=subprocess.PIPE, stderr=log, env=os.environ | dict(env))
        if ran.returncode:
            raise RuntimeError(f"`train` ended with {ran.returncode}: see {log.name}")
        return [line for line in map(json.loads, ran.stdout.splitlines()) if "losses" in line][WARM:]

    def worker_log(self, name):
        return "".join(path.read_text(errors="replace") for path in Path(f"{self.given.out}/figures/{name}/logs").glob("w*.log"))


def median(steps, key):
    return statistics.median(step["metrics"][key] if key in step["metrics"] else step[key] for step in steps)


def told(steps):
    memory = max(step["metrics"]["peak_memory_bytes"] for step in steps) / 2**30
    rate = median(steps, "samples") / median(steps, "seconds")
    return f"{memory:.2f} GiB, {rate:.0f} samples/s, MFU {100 * median(steps, 'mfu'):.1f} %"


def memory(runs):
    """Peak memory by what is kept for backward: 8 lanes of 32 rows, beside one lane of 32."""
    one = runs.steps("one-lane", train__global_batch=32, train__lanes=1)
    yield "one lane of 32", True, told(one)
    kept = {"graphs": "none", "features": "none", "features, blocks again": "blocks"}
    for title, recompute in kept.items():
        steps = runs.steps(
            f"cache-{len(title)}", train__global_batch=256, train__lanes=8, train__cache=title.split(",")[0], train__recompute=recompute
        )
        ratio = max(s["metrics"]["peak_memory_bytes"] for s in steps) / max(s["metrics"]["peak_memory_bytes"] for s in one)
        yield f"8 lanes of 32, cache: {title}", title == "graphs" or ratio <= 1.15, f"{told(steps)}, memory {ratio:.2f} x one lane's"


def waits(runs):
    """How often a step reads the device, and how often libtorch itself says that the host waited for it."""
    count, steps = 12, runs.steps("waits", {"PIXFLEET_TELL_WAITS": "1"}, train__global_batch=64, train__lanes=4)
    reads = max(step["metrics"]["device_reads"] for step in steps)
    long = runs.steps("waits-long", {"PIXFLEET_TELL_WAITS": "1"}, train__global_batch=64, train__lanes=4, schedule__steps=2 * count)
    assert long, "no step was told"
    waited = runs.worker_log("waits-long").count(TOLD) - runs.worker_log("waits").count(TOLD)
    yield "reads of the device per step, 4 lanes", reads <= 2, f"{reads:.0f}; the host waits {waited / count:.1f} times by libtorch's count"


def snapshot(runs):
    """How long a checkpoint keeps the device from its next step."""
    steps = runs.steps("snapshot", train__global_batch=64, train__lanes=1, checkpoint__every_steps=4, schedule__steps=20)
    stalls = [step["metrics"]["snapshot_s"] for step in steps if "snapshot_s" in step["metrics"]]
    size = sum(path.stat().st_size for path in Path(f"{runs.given.out}/figures/snapshot").rglob("*") if path.is_file())
    if not stalls:
        yield "snapshot", False, "no step told of one"
        return
    usual = median([step for step in steps if "snapshot_s" not in step["metrics"]], "seconds")
    yield "snapshot", True, f"{1e3 * statistics.median(stalls):.0f} ms beside a step of {1e3 * usual:.0f} ms; run folder {size / 2**30:.2f} GiB"


def worker():
    """The process of the only worker of this machine."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and "pixfleet-worker" in (folder / "comm").read_text():
                return int(folder.name)
    raise RuntimeError("no worker runs")


def healing(runs):
    """From kill -9 of the only worker to its next committed step: a new process, its GPU, the checkpoint, the step."""
    times = []
    for turn in range(2):
        name = f"healing-{turn}"
        command = runs.command(name, train__global_batch=64, train__lanes=1, checkpoint__every_steps=5, schedule__steps=100_000)
        with open(f"{runs.given.out}/{name}.err", "wb") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as run:
            lines = (json.loads(line) for line in run.stdout)
            steps = (line for line in lines if "losses" in line)
            try:
                before = next(step for step in steps if step["step"] >= 12)
                os.kill(worker(), signal.SIGKILL)
                killed = time.monotonic()
                next(step for step in steps if step["generation"] > before["generation"])
                times.append(time.monotonic() - killed)
            finally:
                run.send_signal(signal.SIGINT)
                for _ in lines:
                    pass
    yield "kill -9 of the only worker to its next step", bool(times), ", ".join(f"{seconds:.1f} s" for seconds in times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="pixfleet")
    parser.add_argument("--data", required=True, help="URL of the dataset")
    parser.add_argument("--vectors", required=True, help="the key of its text vectors, of 384 numbers")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and logs")
    parser.add_argument("figures", nargs="*", default=["waits", "memory", "snapshot", "healing"])
    given = parser.parse_args()
    runs = Runs(given)
    for name in given.figures:
        try:
            for title, good, value in globals()[name](runs):
                print(title, "ok" if good else "FAILED", value, sep="\t", flush=True)
        except (RuntimeError, StopIteration, KeyError, TypeError) as error:
            print(name, "FAILED", f"{type(error).__name__}: {error}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
