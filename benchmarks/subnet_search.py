"""Searchers on NAS-Bench-Macro, accuracy up and FLOPs down: ``python -m benchmarks.subnet_search``.

An evaluation is a look-up in the table (Su et al. 2021, arXiv:2103.11922): accuracy on CIFAR-10 of 3**8 networks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.multi_trial import DECISIONS, TABLE, read_table


class Flops:
    """FLOPs as the table has them."""

    name, unit = "flops", ""

    def __init__(self, table: Any) -> None:
        self.table, self.settings = table, {"table": "nas-bench-macro"}

    def __call__(self, archs: Any) -> list[float]:
        return [self.table[_key(arch)][1] for arch in archs]


def _key(arch: Any) -> str:
    return "".join(str(arch[label]) for label in DECISIONS)


@cache
def _whole(path: Path) -> Any:
    """Table, reference point and hypervolume of all of it."""
    import numpy as np

    from experiments.search.pareto import hypervolume, reference_point

    table = read_table(path)
    losses = np.array([(-accuracy, flops) for accuracy, flops in table.values()])
    reference = reference_point(losses)
    return table, reference, hypervolume(losses, reference)


def search(job: tuple[str, int, int, Path]) -> tuple[float, float, float]:
    """Share of the hypervolume of the whole table, regret of the best accuracy (points), and seconds."""
    from experiments.search import Domain, Objective, Search, make_searcher
    from experiments.search.pareto import hypervolume
    from spaces.choices import Decision

    name, seed, trials, path = job
    table, reference, whole = _whole(path)
    # Identity and two widths of a block are names, not numbers.
    decisions = {label: Decision(label, (0, 1, 2), names=("identity", "MB3-k3", "MB6-k5")) for label in DECISIONS}
    objectives = [Objective("accuracy", True), Objective("flops")]
    searcher = make_searcher(name)
    found = Search(Domain(decisions, [Flops(table)]), objectives, searcher, budget=trials, seed=seed)
    began = time.perf_counter()
    while (asked := found.ask()) is not None:
        found.tell(asked, {"accuracy": table[_key(asked.arch)][0]})
    took = time.perf_counter() - began
    losses = found.losses(found.results())
    best = max(accuracy for accuracy, _ in table.values())
    return hypervolume(losses, reference) / whole, 100 * (best + float(losses[:, 0].min())), took


def main() -> None:
    from experiments.run.registry import names
    from experiments.search import make_searcher

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--table", type=Path, default=TABLE, help="the benchmark's JSON")
    add("--trials", type=int, default=300, help="evaluations of a search")
    add("--seeds", type=int, default=10, help="searches of each searcher")
    of_two = [name for name in names("searcher") if make_searcher(name).most_objectives > 1]
    add("--searchers", nargs="+", default=of_two, choices=of_two, help="which ones")
    add("--processes", type=int, default=2, help="searches side by side")
    args = parser.parse_args()
    jobs = [(name, seed, args.trials, args.table) for name in args.searchers for seed in range(args.seeds)]
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        results = pool.map(search, jobs, chunksize=1)
    print(f"{args.trials} evaluations, {args.seeds} seeds, optuna {version('optuna')}\n")
    print("| searcher | hypervolume, mean ± sd | worst | regret, points | seconds a search |")
    print("|---|---|---|---|---|")
    for name in args.searchers:
        rows = [r for job, r in zip(jobs, results, strict=True) if job[0] == name]
        shares, regrets, seconds = zip(*rows, strict=True)
        spread = statistics.stdev(shares) if len(shares) > 1 else 0.0
        print(
            f"| {name} | {statistics.mean(shares):.4f} ± {spread:.4f} | {min(shares):.4f} "
            f"| {statistics.mean(regrets):.3f} | {statistics.mean(seconds):.1f} |"
        )


if __name__ == "__main__":
    main()
