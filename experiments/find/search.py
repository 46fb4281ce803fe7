"""The front of mAP and cost over the archs of the supernet, and the archs that are finetuned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spaces import Space

from ..run.tables import read_csv
from ..supernets.options import Options as Subnets
from ..supernets.search import search_subnets
from .costs import costs_file
from .measure import aimed_at, search_cost
from .phases import Job
from .plan import plan_of

# So much of a plain network's time a FLOP another network of its space takes at least.
_FASTER = 0.8


def search(job: Job) -> dict[str, Any]:
    """Search the supernet, and pick the finalists."""
    options, found = job.options, job.results["measure"]
    trials = plan_of(job).decide("search")
    cost = search_cost(options)
    run = job.folder("search")
    base = job.results["baselines"]["chosen"]
    plain = plain_archs(job.path / "spaces" / f"{base}.yaml")
    first = [f"first/{number}.json" for number in range(len(plain))]
    for name, arch in zip(first, plain, strict=True):
        run.write_json(name, arch)
    given = Subnets(
        supernet=str(job.path / "supernet"),
        objectives=["metric", cost],
        trials=trials,
        # Repr: no digit of a limit is lost.
        range=[
            f"{name}=:{limit!r}"
            for name, limit in ranges(found["limits"], found["costs"][base] if options.costs is None else {}).items()
        ],
        first=[str(run.path / name) for name in first],
        costs=costs_file(job) if "latency" in (cost, *found["limits"]) else None,
        baseline=False,
        seed=options.seed,
        device=options.device,
        plugin=options.plugin,
    )
    results = search_subnets(given, run)
    told = read_csv(run.path / "subnets.csv")
    rows = [_row(r, results["metric"]) for r in told if r[results["metric"]]]
    number = min(options.finalists, 2) if options.quick else options.finalists
    return {
        "metric": results["metric"],
        "cost": cost,
        "rows": rows,
        "finalists": finalists([r for r in rows if r["arch"] not in plain], number, cost, options.min_map),
    }


def ranges(limits: Mapping[str, float], plain: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What archs may cost at most. Those with so many FLOPs that they cannot be fast enough are not timed.

    Parameters
    ----------
    plain
        Costs of the plain network, by side of the images, on this machine's CPU, where time follows FLOPs; of other
        devices, where it need not, empty.
    """
    found = aimed_at(limits)
    if "latency" in found and plain:
        # Timing an arch takes as long as rating it; nearly all that are drawn of a wide space are too slow.
        fastest = min(costs["latency"] / costs["flops"] for costs in plain.values())
        most = found["latency"] / (_FASTER * fastest)
        found["flops"] = min(found.get("flops", most), most)
    return found


def _row(r: Mapping[str, str], metric: str) -> dict[str, Any]:
    """Of ``subnets.csv``."""
    costs = {name: float(r[name]) for name in ("params", "flops", "latency") if r.get(name)}
    front = r["front"] == "True"
    return {"trial": int(r["trial"]), "rated": float(r[metric]), **costs, "front": front, "arch": json.loads(r["arch"])}


def finalists(rows: Sequence[Mapping[str, Any]], number: int, cost: str, min_map: float | None) -> list[dict[str, Any]]:
    """The archs that are finetuned: the best; or around the fastest that is good enough, where that is asked for.

    A rating in the supernet is a lower estimate of what finetuning makes of an arch, so that some that are rated
    somewhat lower are among them: the best at each side of the images first, then of those that are left.
    """
    front = sorted((r for r in rows if r["front"]), key=lambda r: -r["rated"])
    others = sorted((r for r in rows if not r["front"]), key=lambda r: -r["rated"])
    if min_map is not None:
        by_cost = sorted(front, key=lambda r: r[cost])
        first = next((i for i, r in enumerate(by_cost) if r["rated"] >= min_map), len(by_cost) - 1)
        front = by_cost[max(first - number + 1, 0) : first + 1][::-1]
    ranked = front + others
    if min_map is None:
        best = {r["arch"].get("resolution"): r for r in sorted(ranked, key=lambda r: r["rated"])}
        of_sides = sorted(best.values(), key=lambda r: -r["rated"])
        ranked = of_sides + [r for r in ranked if r not in of_sides]
    return [dict(r) for r in ranked[:number]]


def plain_archs(space: Path) -> list[dict[str, Any]]:
    """The plain network that a space is around, at every side of the images that is open: what a search begins with."""
    found = Space(space)
    sides = found.decisions["resolution"].values if "resolution" in found.decisions else (None,)
    return [found.upstream() | ({} if side is None else {"resolution": side}) for side in sides]
