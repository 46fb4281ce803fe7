"""How many archs a second the analytic providers tell: ``python -m benchmarks.cost_model``."""

from __future__ import annotations

import argparse
import random
import statistics
import time

import numpy as np

from experiments.costs import Counted, Roofline
from spaces import CostModel, Space


def main(args: argparse.Namespace) -> None:
    """Print the table."""
    space = Space(args.cfg)
    rng = random.Random(0)
    archs = [space.sample(rng) for _ in range(args.archs)]
    model = CostModel(space, args.imgsz)
    sizes = [len(model.values[label]) for label in model.labels]
    indices = np.column_stack([np.random.default_rng(0).integers(n, size=args.archs) for n in sizes])
    roofline = Roofline(space, args.imgsz, "latency", peak=1e12, bandwidth=5e10)
    asked = {
        "cost model, archs as indices (params, FLOPs and activations at once)": lambda: model.batch(indices),
        "provider `flops`, archs as mappings": lambda: Counted(model, "flops")(archs),
        "provider `roofline`, archs as mappings": lambda: roofline(archs),
    }
    print(f"{args.cfg} at {args.imgsz}, {args.archs:,} archs, median of {args.repeats}\n")
    print("| | archs/s |\n|---|---|")
    for name, ask in asked.items():
        found = []
        for _ in range(args.repeats):
            start = time.perf_counter()
            ask()
            found.append(time.perf_counter() - start)
        print(f"| {name} | {args.archs / statistics.median(found):,.0f} |", flush=True)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--cfg", default="models/yolov5n_bignas.yaml", help="YAML of the space")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--archs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse())
