"""Multi-trial strategies on NAS-Bench-Macro, beside NNI's own and plain Optuna: ``python -m benchmarks.multi_trial``.

A trial is a look-up in the table (Su et al. 2021, arXiv:2103.11922): accuracy on CIFAR-10 of 3**8 networks, each
trained three times. Those of NNI's interface run through NNI's sequential engine, plain Optuna runs on its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast
from unittest import mock

Table = dict[str, tuple[float, float]]  # arch to accuracy (0 to 1) and FLOPs
Search = Callable[[Table, int, int], list[str]]  # table, trials, seed -> the archs tried

DECISIONS = [f"block{i}" for i in range(8)]
TABLE = Path(__file__).resolve().parents[2] / "shared/data/nas-bench-macro/data/nas-bench-macro_cifar10.json"
RATE_TRIALS = 15  # NNI's TPE sleeps a second a trial; its rate is measured over so many, its regret without the sleep


def read_table(path: Path) -> Table:
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {arch: (row["mean_acc"] / 100, float(row["flops"])) for arch, row in rows.items()}


def through_nni(make: Callable[[int], Any]) -> Search:
    """The archs that a strategy of NNI's interface tries, by NNI's sequential engine."""

    def search(table: Table, num_trials: int, seed: int) -> list[str]:
        from spaces.nni_compat import (
            FunctionalEvaluator,
            ModelSpace,
            SequentialExecutionEngine,
            SimplifiedModelSpace,
            ensure_frozen,
            nni,
        )

        class Macro(ModelSpace):
            def __init__(self) -> None:
                super().__init__()
                chosen = [ensure_frozen(self.add_mutable(nni.choice(label, [0, 1, 2]))) for label in DECISIONS]
                self.arch = "".join(map(str, chosen))

        tried = []

        def look_up(model: Any) -> None:
            tried.append(model.arch)
            accuracy, flops = table[model.arch]
            nni.report_final_result({"default": accuracy, "flops": flops})

        space = SimplifiedModelSpace.from_model(Macro(), FunctionalEvaluator(look_up))
        make(seed)(space, SequentialExecutionEngine(num_trials))
        return tried

    return search


def through_optuna(make: Callable[[int], Any], directions: tuple[str, ...] = ("maximize",)) -> Search:
    """The archs that a sampler of Optuna tries, by ``study.optimize``."""

    def search(table: Table, num_trials: int, seed: int) -> list[str]:
        import optuna

        tried = []

        def objective(trial: Any) -> Any:
            tried.append("".join(str(trial.suggest_categorical(label, [0, 1, 2])) for label in DECISIONS))
            return table[tried[-1]][: len(directions)]

        study = optuna.create_study(sampler=make(seed), directions=cast(Any, directions))
        study.optimize(objective, n_trials=num_trials)
        return tried

    return search


def contenders() -> dict[tuple[str, str], Search]:
    """(Strategy, whose) to what runs it."""
    import optuna

    from experiments import strategy as ours
    from spaces.nni_compat import nni

    theirs = nni.nas.strategy
    both = ("metric", "flops")
    samplers = optuna.samplers
    nni_s: dict[str, Callable[[int], Any]] = {
        "random": lambda seed: theirs.Random(seed=seed),
        "evolution": lambda seed: theirs.RegularizedEvolution(seed=seed),
        "TPE": lambda seed: theirs.TPE(optimize_mode="maximize", seed=seed),
        "TPE, no arguments": lambda seed: theirs.TPE(seed=seed),
    }
    own: dict[str, Callable[[int], Any]] = {
        "random": lambda seed: ours.Random(seed=seed),
        "grid": lambda seed: ours.GridSearch(seed=seed),
        "evolution": lambda seed: ours.RegularizedEvolution(seed=seed),
        "TPE": lambda seed: ours.TPE(seed=seed),
        "policy-based RL": lambda seed: ours.PolicyBasedRL(seed=seed),
        "NSGA-III, accuracy and FLOPs": lambda seed: ours.NSGA3(seed=seed),
        "TPE, accuracy and FLOPs": lambda seed: ours.TPE(objectives=both, seed=seed),
    }
    plain: dict[str, Search] = {
        "random": through_optuna(lambda seed: samplers.RandomSampler(seed=seed)),
        "TPE": through_optuna(lambda seed: samplers.TPESampler(seed=seed)),
        "NSGA-III, accuracy and FLOPs": through_optuna(
            lambda seed: samplers.NSGAIIISampler(seed=seed), ("maximize", "minimize")
        ),
        "TPE, accuracy and FLOPs": through_optuna(
            lambda seed: samplers.TPESampler(seed=seed), ("maximize", "minimize")
        ),
    }
    found: dict[tuple[str, str], Search] = {(name, "this project"): through_nni(make) for name, make in own.items()}
    found.update({(name, "NNI"): through_nni(make) for name, make in nni_s.items()})
    found.update({(name, "Optuna"): search for name, search in plain.items()})
    return found


def hypervolume(points: Iterable[tuple[float, float]], worst: tuple[float, float]) -> float:
    """Area that (accuracy, FLOPs) dominate, down to the worst accuracy and up to the worst FLOPs."""
    area, ceiling = 0.0, worst[1]
    for accuracy, flops in sorted(points, reverse=True):
        if flops < ceiling:
            area += (accuracy - worst[0]) * (ceiling - flops)
            ceiling = flops
    return area


def measure(search: Search, table: Table, num_trials: int, seeds: Iterable[int]) -> dict[str, float]:
    """Means over the seeds: regret (fraction of accuracy), the worst one, different archs, share of the table's
    hypervolume, and trials per second."""
    best = max(accuracy for accuracy, _ in table.values())
    worst = (min(accuracy for accuracy, _ in table.values()), max(flops for _, flops in table.values()))
    whole = hypervolume(table.values(), worst)
    regrets, volumes, different, seconds = [], [], [], 0.0
    for seed in seeds:
        begin = time.perf_counter()
        tried = search(table, num_trials, seed)
        seconds += time.perf_counter() - begin
        if len(tried) != num_trials:
            raise RuntimeError(f"{len(tried)} trials in place of {num_trials}")
        regrets.append(best - max(table[arch][0] for arch in tried))
        volumes.append(hypervolume((table[arch] for arch in tried), worst) / whole)
        different.append(len(set(tried)))
    return {
        "regret": statistics.fmean(regrets),
        "worst": max(regrets),
        "different": statistics.fmean(different),
        "hypervolume": statistics.fmean(volumes),
        "rate": num_trials * len(regrets) / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE, help="nas-bench-macro_cifar10.json")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10, help="runs of each")
    parser.add_argument("--first-seed", type=int, default=100)
    args = parser.parse_args()

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    table = read_table(args.table)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    searches = contenders()
    next(iter(searches.values()))(table, 1, 0)  # imports are nobody's time
    versions = ", ".join(f"{package} {version(package)}" for package in ("nni", "optuna", "torch"))
    print(f"{args.trials} trials, {args.seeds} seeds from {args.first_seed}; {versions}\n")
    print("| strategy | of | mean regret, points | as a fraction | worst, points | archs | hypervolume | trials/s |")
    print("|" + "---|" * 8)
    for (name, whose), search in searches.items():
        sleeps = whose == "NNI" and "TPE" in name
        with mock.patch("nni.nas.strategy.hpo.time.sleep") if sleeps else nullcontext():
            m = measure(search, table, args.trials, seeds)
        if sleeps:
            m["rate"] = measure(search, table, min(RATE_TRIALS, args.trials), seeds[:1])["rate"]
        print(
            f"| {name} | {whose} | {100 * m['regret']:.4f} | {m['regret']:.6f} | {100 * m['worst']:.3f}"
            f" | {m['different']:.0f} | {m['hypervolume']:.4f} | {m['rate']:.{1 if m['rate'] < 10 else 0}f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
