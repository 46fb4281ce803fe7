"""What the archs of a space cost, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InputError
from models.grammar import read_config

from ..costs.ranges import Range, parse_range
from ..run.amounts import titled, written
from ..run.console import say
from ..run.folder import RunFolder
from ..run.pictures import picture
from ..run.tables import table, write_csv

# What counts as near a baseline.
_NEAR = 0.05
_DRAWS = 100_000
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def report_costs(args: Any, run: RunFolder | None = None) -> dict[str, Any]:
    """Costs of random archs of ``--cfg``, or of a supernet's space: ``costs.csv``, ``costs.png``, ``costs.json``.

    Returns
    -------
    The content of ``costs.json``.
    """
    from spaces import CostModel, Space

    if args.costs is not None:
        raise InputError("--costs: --sample-cost is of what is counted (params, flops, activations)")
    cfg = args.cfg
    if cfg is None:
        from .folder import supernet_folder
        from .subnets import open_supernet

        folder = supernet_folder(args.supernet)
        _, task, trained = open_supernet(folder)
        cfg, model = trained.cfg, task.costs(args.cost_imgsz or trained.cost_imgsz)
        space = model.space
    else:
        space = Space(read_config(cfg, scale=args.scale))
        model = CostModel(space, args.cost_imgsz or 640, classifier=space.config.is_classifier)
    if not space.decisions:
        raise InputError(
            f"{cfg}: has no choices, so there is one arch alone; right would be a space's YAML, such as "
            "yolov5n_nas.yaml, or the run of oneshot_nas.py --space elastic, as --supernet"
        )
    sampled = sample_costs(model, args.sample_cost, args.seed, [parse_range(text) for text in args.range])
    run = run or RunFolder(args.project, args.name, args.exist_ok)
    rows = zip(*(v.tolist() for v in sampled.values()), strict=True)
    write_csv(run.path / "costs.csv", ({n: f"{v:.10g}" for n, v in zip(sampled, row, strict=True)} for row in rows))
    upstream = model.of(space.upstream())
    results: dict[str, Any] = {
        "archs": space.size(),
        "sampled": len(sampled["flops"]),
        "imgsz": model.imgsz,
        "quantiles": {
            name: dict(zip(_QUANTILES, np.quantile(v, _QUANTILES).tolist(), strict=True)) for name, v in sampled.items()
        },
        "upstream": upstream,
    }
    if args.baseline_flops:
        near = np.abs(sampled["flops"] / args.baseline_flops - 1) <= _NEAR
        results["near_baseline"] = {"flops": args.baseline_flops, "within": _NEAR, "share": float(near.mean())}
    run.write_json("costs.json", results)
    _plot_costs(sampled, upstream, args.baseline_flops, run.path / "costs.png")
    _say_costs(cfg, results, run)
    return results


def sample_costs(model: Any, number: int, seed: int, ranges: Sequence[Range] = ()) -> dict[str, np.ndarray]:
    """Costs of random archs of a `spaces.CostModel`, each drawn uniformly from those within the ranges.

    Returns
    -------
    Name to (number,).

    Raises
    ------
    InputError
        If archs within the ranges are so rare that 100,000 draws do not give them.
    """
    rng = np.random.default_rng(seed)
    sizes = [len(model.values[label]) for label in model.labels]
    found: dict[str, list[np.ndarray]] = {name: [] for name in model.names}
    for r in ranges:
        if r.name not in found:
            raise InputError(f"--range {r.name}: no such cost; there are {', '.join(found)}")
    have = drawn = 0
    while have < number and drawn < max(_DRAWS, 10 * number):
        indices = np.column_stack([rng.integers(n, size=number) for n in sizes])
        costs = model.batch(indices)
        inside = np.ones(number, bool)
        for r in ranges:
            inside &= (costs[r.name] >= r.low) & (costs[r.name] <= r.high)
        for name, values in costs.items():
            found[name].append(values[inside])
        have, drawn = have + int(inside.sum()), drawn + number
    if have < number:
        raise InputError(f"--range: {drawn:,} random archs gave only {have} within; wider ranges would be right")
    return {name: np.concatenate(parts)[:number] for name, parts in found.items()}


def _plot_costs(
    sampled: Mapping[str, np.ndarray], upstream: Mapping[str, float], baseline: float | None, path: Path
) -> None:
    from matplotlib.ticker import EngFormatter

    with picture(path, figsize=(4 * len(sampled), 3.4), layout="tight") as figure:
        axes = figure.subplots(1, len(sampled), squeeze=False)
        for axis, (name, values) in zip(axes.flat, sampled.items(), strict=True):
            axis.hist(values, bins=60, color="#1f77b4")
            axis.axvline(upstream[name], color="black", linestyle="--", label="as upstream builds it")
            if name == "flops" and baseline:
                low, high = baseline * (1 - _NEAR), baseline * (1 + _NEAR)
                axis.axvspan(low, high, color="#d62728", alpha=0.3, label="baseline")
            axis.set_title(titled(name))
            axis.xaxis.set_major_formatter(EngFormatter())
            axis.legend(fontsize=7)
        axes.flat[0].set_ylabel("archs")


def _say_costs(cfg: Any, results: Mapping[str, Any], run: RunFolder) -> None:
    columns = ("cost", "least", "5 %", "25 %", "median", "75 %", "95 %", "most", "upstream")
    rows = [
        (name, *(written(name, v) for v in (*quantiles.values(), results["upstream"][name])))
        for name, quantiles in results["quantiles"].items()
    ]
    title = f"{cfg}: {results['sampled']:,} of {results['archs']:.3g} archs, at {results['imgsz']}"
    near, share = results.get("near_baseline"), ""
    if near:
        share = f"{near['share']:.1%} of the archs lie within {near['within']:.0%} of {written('flops', near['flops'])}"
        share += " FLOPs"
    say(table(columns, rows, title, left=["cost"]), share, f"results in {run.path}", width=110)
