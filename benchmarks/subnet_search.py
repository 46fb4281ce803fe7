"""All searchers on NAS-Bench-Macro, beside random search: ``python -m benchmarks.subnet_search``.

An evaluation is a look-up in the table (Su et al. 2021, arXiv:2103.11922): accuracy on CIFAR-10 of 3**8 archs, which
are 3,969 networks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.multi_trial import TABLE

EVALUATIONS, HALF = 100, 50
# What is searched for: accuracy alone, or beside a cost.
COSTS = (None, "flops", "params")


class Job(NamedTuple):
    searcher: str
    cost: str | None
    seed: int
    path: Path


class Found(NamedTuple):
    """What a search has found.

    Attributes
    ----------
    early, late
        Points of accuracy between the best network of the table and the best that was evaluated, after half of the
        evaluations and after all.
    share
        Of the hypervolume of the whole table; 0 where there is no cost.
    seconds
        For a proposal.
    """

    early: float
    late: float
    share: float
    seconds: float


@cache
def _table(path: Path) -> dict[tuple[int, ...], dict[str, float]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    named = {"accuracy": "mean_acc", "flops": "flops", "params": "params"}
    return {tuple(map(int, code)): {name: row[key] for name, key in named.items()} for code, row in rows.items()}


def search(job: Job) -> Found:
    import numpy as np

    from experiments.costs import Counted
    from experiments.search import Domain, Objective, Search, make_searcher
    from experiments.search.pareto import hypervolume, reference_point
    from spaces import Space

    table, space = _table(job.path), Space("nasbench_macro.yaml")

    def row(arch: Any) -> dict[str, float]:
        return table[tuple(v // 3 for v in arch.values())]  # e of 0, 3 and 6

    class Cost(Counted):
        def __init__(self, name: str) -> None:
            self.name = name
            self.settings: dict[str, Any] = {}

        def __call__(self, archs: Sequence[Any]) -> list[float]:
            return [float(row(arch)[self.name]) for arch in archs]

    domain = Domain(space.decisions, [Cost("flops"), Cost("params")], canonical=space.canonical)
    objectives = [Objective("accuracy", True), *([Objective(job.cost)] if job.cost else [])]
    searcher = make_searcher(job.searcher)
    found = Search(domain, objectives, searcher, budget=EVALUATIONS if job.cost else HALF, seed=job.seed)
    if not job.cost:
        found.budget = EVALUATIONS  # of a budget of 50, and gone on with
    domain.canonical((0,) * len(domain.sizes))
    began = time.perf_counter()
    while (asked := found.ask()) is not None:
        found.tell(asked, {"accuracy": row(asked.arch)["accuracy"]})
    seconds = (time.perf_counter() - began) / EVALUATIONS
    losses = found.losses(found.results())
    best = max(r["accuracy"] for r in table.values())
    early, late = (best + float(losses[:n, 0].min()) for n in (HALF, EVALUATIONS))
    if not job.cost:
        return Found(early, late, 0.0, seconds)
    everything = np.array([(-r["accuracy"], r[job.cost]) for r in table.values()])
    reference = reference_point(everything)
    return Found(early, late, hypervolume(losses, reference) / hypervolume(everything, reference), seconds)


def interval(values: Sequence[float]) -> str:
    """Mean and half of its 95 % confidence interval, by Student's t."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{values[0]:.4f}"
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.4f} ± {half:.4f}"


def main() -> None:
    from experiments.run.registry import names
    from experiments.search import make_searcher

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--table", type=Path, default=TABLE, help="nas-bench-macro_cifar10.json")
    add("--seeds", type=int, default=10, help="searches of each searcher")
    add("--searchers", nargs="+", default=names("searcher"), choices=names("searcher"), help="which ones")
    add("--processes", type=int, default=2, help="searches side by side")
    args = parser.parse_args()
    versions = ", ".join(f"{package} {version(package)}" for package in ("optuna", "scipy", "torch"))
    print(f"{EVALUATIONS} evaluations, {args.seeds} seeds; {versions}\n")
    print(
        f"| searcher | regret at {HALF} | regret at {EVALUATIONS} | hypervolume, FLOPs | hypervolume, parameters | s |"
    )
    print("|" + "---|" * 6, flush=True)
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for name in args.searchers:
            costs = COSTS if make_searcher(name).most_objectives > 1 else COSTS[:1]
            jobs = [Job(name, cost, seed, args.table) for cost in costs for seed in range(args.seeds)]
            results = list(zip(jobs, pool.map(search, jobs, chunksize=1), strict=True))
            of = {cost: [r for job, r in results if job.cost == cost] for cost in COSTS}
            cells = [interval([r.early for r in of[None]]), interval([r.late for r in of[None]])]
            cells += [interval([r.share for r in of[cost]]) if of[cost] else "" for cost in COSTS[1:]]
            seconds = statistics.mean(r.seconds for _, r in results)
            print(f"| {' | '.join([name, *cells, f'{seconds:.3f}'])} |", flush=True)


if __name__ == "__main__":
    main()
