"""Speed-up of a pool of estimator servers on a slow provider: ``python -m benchmarks.estimator_pool``."""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.costs import Remote
from spaces import Space
from spaces.space import Arch

ROOT = Path(__file__).resolve().parents[1]
SPACE = {"backbone": [[-1, 1, "Conv", [{"range": [8, 8000, 8], "label": "width"}, 3, 2]]]}


class Slow:
    """A simulator that takes `seconds` for an arch."""

    name, unit = "latency", "ms"

    def __init__(self, seconds: float) -> None:
        self.seconds, self.settings = seconds, {"seconds": seconds}

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        time.sleep(self.seconds * len(archs))
        return [float(arch["width"]) for arch in archs]


def slow(space: Space, imgsz: int, *, seconds: float) -> Slow:
    """As ``--provider`` wants it."""
    return Slow(seconds)


def main(args: argparse.Namespace) -> None:
    """Print the table."""
    command = [sys.executable, "-m", "experiments.costs.pool.server", "--provider", f"{__file__}:slow"]
    command += ["--hw-config", f"seconds={args.seconds}", "--port", *["0"] * max(args.servers)]
    rng = random.Random(0)
    archs: list[dict[str, Any]] = [{"width": 8 * rng.randint(1, 1000)} for _ in range(args.archs)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ports = [int(process.stdout.readline().split(":")[-1]) for _ in range(max(args.servers))]
        print(f"{args.archs} archs of {1e3 * args.seconds:g} ms, median of {args.repeats}\n")
        print("| servers | s | archs/s | speed-up |\n|---|---|---|---|")
        first = 0.0
        for number in args.servers:
            remote = Remote([{"host": "127.0.0.1", "ports": ports[:number]}], Space(SPACE), 32)
            found = []
            for _ in range(args.repeats):
                start = time.perf_counter()
                assert remote(archs) == [float(arch["width"]) for arch in archs]
                found.append(time.perf_counter() - start)
            seconds = statistics.median(found)
            first = first or seconds
            print(f"| {number} | {seconds:.2f} | {args.archs / seconds:.1f} | {first / seconds:.2f} |", flush=True)
            remote.close()
    finally:
        process.terminate()
        process.wait()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2, 4], help="sizes of the pool")
    parser.add_argument("--archs", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.02, help="of an arch")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse())
