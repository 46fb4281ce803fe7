"""Zero-cost proxies on NAS-Bench-Macro, beside what costs nothing to know: ``python -m benchmarks.proxies``.

The truth is the table (Su et al. 2021, arXiv:2103.11922): accuracy on CIFAR-10 of 3**8 networks. The proxies see the
networks untrained, and a batch of scikit-learn's digits in place of CIFAR-10.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.multi_trial import TABLE, read_table

_VALUES = (0, 3, 6)  # of the YAML's expand ratios, by the table's digit


@cache
def _probe(batch: int, seed: int) -> Any:
    """Space, and a probe of its task."""
    import torch

    from experiments.proxies.probe import Probe
    from experiments.tasks.task import open_task

    torch.set_num_threads(1)
    given = {"cfg": "models/nasbench_macro.yaml", "task": "classify", "data": "digits", "imgsz": 32, "batch": batch}
    given |= {"seed": seed, "data_root": None, "detector": None, "lr": 0.001, "device": "cpu", "plugin": []}
    space, task, _ = open_task(argparse.Namespace(**given))
    return space, Probe(task)


def score(job: tuple[str, list[str], int, int]) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of a network by each proxy, and seconds."""
    import torch

    key, names, batch, seed = job
    space, probe = _probe(batch, seed)
    cfg = space.freeze({f"layer{i}": _VALUES[int(digit)] for i, digit in enumerate(key)})
    scores, seconds = {}, {}
    for name in names:
        torch.manual_seed(seed)
        began = time.perf_counter()
        scores[name] = probe.score(name, cfg)
        seconds[name] = time.perf_counter() - began
    return scores, seconds


def main() -> None:
    import numpy as np

    from experiments.run.registry import names
    from experiments.search.fidelity import BANDS, cost_bands, tau_interval, tau_within

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--table", type=Path, default=TABLE, help="the benchmark's JSON")
    add("--proxies", nargs="+", default=names("proxy"), choices=names("proxy"), help="which ones")
    add("--scored", type=int, default=1000, help="random archs that are scored, and picked from")
    add("--archs", type=int, default=300, help="the first of those are for rank correlations")
    add("--picks", type=int, default=10, help="archs that are picked by score")
    add("--batch", type=int, default=32, help="images that a proxy sees")
    add("--seed", type=int, default=0, help="of archs, weights and images")
    add("--processes", type=int, default=1, help="that score side by side")
    add("--scores", type=Path, help="file that scores are kept in; one that is there is gone on with")
    args = parser.parse_args()

    table = read_table(args.table)
    rng = np.random.default_rng(args.seed)
    keys = [sorted(table)[i] for i in rng.permutation(len(table))[: args.scored]]
    done: dict[str, Any] = {}
    if args.scores and args.scores.exists():
        done = dict(map(json.loads, args.scores.read_text(encoding="utf-8").splitlines()))
    jobs = [(k, args.proxies, args.batch, args.seed) for k in keys if k not in done]
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for job, pair in zip(jobs, pool.imap(score, jobs, chunksize=2), strict=True):
            done[job[0]] = pair
            if args.scores:
                with args.scores.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([job[0], pair]) + "\n")
    found = [done[k] for k in keys]

    truth, flops = (np.array([table[k][i] for k in keys]) for i in (0, 1))
    best, few = max(accuracy for accuracy, _ in table.values()), slice(args.archs)
    ties = np.random.default_rng(args.seed).random(len(keys))  # equal scores are picked by chance
    print(f"{args.archs} of {args.scored} archs, {args.batch} images, torch {version('torch')}\n")
    print(f"| proxy | tau | tau in {BANDS} bands of FLOPs | regret of {args.picks} picks, points | seconds an arch |")
    print("|---|---|---|---|---|")
    for name in args.proxies:
        scores = np.array([s[name] for s, _ in found])
        cells = []
        for bands in ([np.arange(len(flops[few]))], cost_bands(flops[few])):
            low, high = tau_interval(truth[few], scores[few], bands)
            cells.append(f"{tau_within(truth[few], scores[few], bands):.3f} ({low:.3f} to {high:.3f})")
        picked = np.lexsort((ties, -scores))[: args.picks]
        regret = 100 * (best - truth[picked].max())
        seconds = sum(s[name] for _, s in found) / len(found)
        print(f"| {name} | {cells[0]} | {cells[1]} | {regret:.2f} | {seconds:.2f} |")
    print(f"\nthe best of all scored: {100 * (best - truth.max()):.2f} points behind the best of the table")


if __name__ == "__main__":
    main()
