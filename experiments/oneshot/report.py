"""What a one-shot search says at its end: a table, a verdict, and a picture of its probabilities."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle
from scipy import stats

from spaces import Space

from ..run.console import say
from ..run.folder import RunFolder
from ..run.pictures import picture
from ..run.tables import table

if TYPE_CHECKING:
    from .search import Options

_UNDECIDED = 0.05  # between the two most probable values


_STARTS = {"inherited": "from the supernet", "scratch": "from scratch"}


def report(options: Options, run: RunFolder, result: str, results: Mapping[str, Any]) -> None:
    """What the networks reach and cost; `result` is what the search hands over, such as ``detector``."""
    begins = {**_STARTS, **({"scratch": "from --weights"} if options.weights else {})}
    derived = results["derived"]
    named = [("derived", derived), ("plain", results["plain"])]
    named += [(f"random {i}", other) for i, other in enumerate(results.get("random", []), start=1)]
    trained = [("derived", "in the supernet", derived, [derived["inherited"]])]
    trained += [
        (name, how, network, network[f"from_{start}"])
        for start, how in begins.items()
        for name, network in named
        if f"from_{start}" in network
    ]
    rows = [
        (name, how, _mean(metrics), f"{network['params']:,}", f"{network['flops'] / 1e6:.1f}")
        for name, how, network, metrics in trained
    ]
    columns = ("network", "trained", results["metric"], "parameters", f"MFLOPs at {options.imgsz}")
    title = f"{options.strategy} on {options.data}, {results['steps']} steps"
    if "retrained" in results:
        title += f"; trained afterwards for {results['retrained']['steps']}"
    params, flops = results[result]["params"], results[result][f"flops_{options.cost_imgsz}"]
    say(
        table(columns, rows, title, left=columns[:2]),
        *verdicts(results, begins),
        f"{result}: {params:,} parameters, {flops / 1e9:.2f} GFLOPs at {options.cost_imgsz}",
        f"results in {run.path}",
    )


def _mean(metrics: Sequence[float]) -> str:
    mean = f"{statistics.fmean(metrics):.4f}"
    return mean if len(metrics) == 1 else f"{mean} ± {statistics.stdev(metrics):.4f}"


def metric_of(results: Mapping[str, Any]) -> float:
    """What a search is worth beside others: its result as it was trained, or as it is."""
    derived = results["derived"]
    given = derived.get("from_inherited", derived.get("from_scratch", [derived["inherited"]]))
    return statistics.fmean(given)


def verdicts(results: Mapping[str, Any], begins: Mapping[str, str] = _STARTS) -> list[str]:
    """Whether the search beat the plain network and random archs of its cost, all trained alike: a line for each."""
    lines = []
    for start, how in begins.items():
        found = results["derived"].get(f"from_{start}")
        plain = results["plain"].get(f"from_{start}")
        others = [r[f"from_{start}"] for r in results.get("random", []) if f"from_{start}" in r]
        if found is None or plain is None:
            continue
        lines.append(f"{how}: {difference(found, plain)} than the plain network")
        if others:
            means = [statistics.fmean(by_seed) for by_seed in zip(*others, strict=True)]
            best = max(statistics.fmean(metrics) for metrics in others)
            lines[-1] += (
                f", {difference(found, means)} than the mean of {len(others)} random archs of its cost "
                f"(the best of them {best:.4f})"
            )
    if lines and results["retrained"]["seeds"] == 1:
        lines.append("one training of each: by --seeds 2 and more these differences get intervals")
    return lines


def difference(found: Sequence[float], other: Sequence[float]) -> str:
    """Of paired trainings, in words; from two on with its 95 % interval by Student's t."""
    gains = [a - b for a, b in zip(found, other, strict=True)]
    mean = statistics.fmean(gains)
    words = f"{abs(mean):.4f} {'better' if mean >= 0 else 'worse'}"
    if len(gains) == 1:
        return words
    half = stats.t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / math.sqrt(len(gains))
    sure = "" if abs(mean) > half else ", which may be chance,"
    return f"{words} [{mean - half:+.4f}, {mean + half:+.4f}]{sure}"


def plot_probabilities(
    probabilities: Sequence[Mapping[str, Mapping[str, float]]], path: str | Path, space: Space, arch: Mapping[str, Any]
) -> None:
    """Probability of every value of every decision at the end, and how undecided the search was by epoch.

    A row a decision. The value of `arch` has a frame; where the two most probable values are within 5 points of one
    another, nothing was decided, and the row is hatched. The entropy is in shares of what it is at first.
    """
    last = probabilities[-1]
    labels = list(last)
    most = max(len(values) for values in last.values())
    height = max(0.22 * len(labels), 2.0)
    with picture(path, figsize=(9, height + 2.6), layout="constrained") as figure:
        above, below = figure.subplots(2, 1, height_ratios=[height, 1.6])
        grid = [[*last[label].values()] + [math.nan] * (most - len(last[label])) for label in labels]
        image = above.imshow(grid, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        figure.colorbar(image, ax=above, label="probability")
        above.set_yticks(range(len(labels)), labels, fontsize=7)
        above.set_xticks([])
        for row, label in enumerate(labels):
            decision, values = space.decisions[label], last[label]
            ranked = sorted(values.values(), reverse=True)
            undecided = len(ranked) > 1 and ranked[0] - ranked[1] < _UNDECIDED
            for column, (value, name) in enumerate(zip(decision.values, values, strict=True)):
                colour = "white" if values[name] > 0.6 else "black"
                above.text(column, row, decision.name(value), ha="center", va="center", fontsize=6, color=colour)
                place = (column - 0.48, row - 0.46)
                if undecided:
                    above.add_patch(Rectangle(place, 0.96, 0.92, fill=False, hatch="///", lw=0, alpha=0.25))
                if value == arch[label]:
                    above.add_patch(Rectangle(place, 0.96, 0.92, fill=False, ec="darkorange", lw=1.5))
        above.set_title("framed: chosen; hatched: undecided", fontsize=9)
        below.plot(range(1, len(probabilities) + 1), [_entropy(p) for p in probabilities], marker=".", color="black")
        below.set(xlabel="epoch", ylabel="mean entropy", ylim=(0, 1.05))
        below.xaxis.get_major_locator().set_params(integer=True)
        below.grid(alpha=0.3)


def _entropy(probabilities: Mapping[str, Mapping[str, float]]) -> float:
    """Mean over the decisions, 1 where nothing is decided and 0 where everything is."""
    shares = [
        -sum(p * math.log(p) for p in values.values() if p > 0) / math.log(len(values))
        for values in probabilities.values()
        if len(values) > 1
    ]
    return sum(shares) / max(len(shares), 1)
