"""What a one-shot search says at its end: a table, a verdict, and a picture of its probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces import Space

from ..run.console import say
from ..run.folder import RunFolder
from ..run.pictures import picture
from ..run.tables import table

if TYPE_CHECKING:
    from .search import Options

_COLUMNS = 4


def report(options: Options, run: RunFolder, result: str, results: Mapping[str, Any]) -> None:
    """What the networks reach and cost; `result` is what the search hands over, such as ``detector``."""
    derived, plain, others = results["derived"], results["plain"], results.get("random", [])
    trained = [
        ("derived", "in the supernet", derived, derived["inherited"]),
        ("derived", "from inherited weights", derived, derived.get("from_inherited")),
        ("derived", "from scratch", derived, derived.get("from_scratch")),
        ("plain", "from scratch", plain, plain.get("from_scratch")),
        *((f"random {i}", "from scratch", other, other["from_scratch"]) for i, other in enumerate(others, start=1)),
    ]
    rows = [
        (name, how, f"{metric:.4f}", f"{costs['params']:,}", f"{costs['flops'] / 1e6:.1f}")
        for name, how, costs, metric in trained
        if metric is not None
    ]
    columns = ("network", "trained", results["metric"], "parameters", f"MFLOPs at {options.imgsz}")
    title = f"{options.strategy} on {options.data}, {results['steps']} steps"
    params, flops = results[result]["params"], results[result][f"flops_{options.cost_imgsz}"]
    say(
        table(columns, rows, title, left=columns[:2]),
        verdict(results),
        f"{result}: {params:,} parameters, {flops / 1e9:.2f} GFLOPs at {options.cost_imgsz}",
        f"results in {run.path}",
    )


def metric_of(results: Mapping[str, Any]) -> float:
    """What a search is worth beside others: its result trained from scratch, where it was, or as it is."""
    derived = results["derived"]
    return float(derived.get("from_scratch", derived.get("from_inherited", derived["inherited"])))


def verdict(results: Mapping[str, Any]) -> str:
    """Whether the search beat random archs trained for the same steps; empty where there is nothing to compare."""
    others = [r["from_scratch"] for r in results.get("random", [])]
    if not others or "from_scratch" not in results["derived"]:
        return ""
    found, mean, best = results["derived"]["from_scratch"], sum(others) / len(others), max(others)
    says = "beats" if found > best else "beats the mean of, but not the best of," if found > mean else "does not beat"
    return (
        f"the search {says} {len(others)} random archs trained for the same steps: "
        f"{found:.4f} against {mean:.4f} on average and {best:.4f} at best"
    )


def plot_probabilities(
    probabilities: Sequence[Mapping[str, Mapping[str, float]]], path: str | Path, space: Space
) -> None:
    """Probability of every value of every decision by epoch, a panel a label; the first panel is the mean entropy.

    The entropy is in shares of what it is when nothing is decided.
    """
    labels = list(probabilities[-1])
    rows = -(-(len(labels) + 1) // _COLUMNS)
    epochs = range(1, len(probabilities) + 1)
    with picture(path, figsize=(3.2 * _COLUMNS, 1.7 * rows + 0.6), layout="tight") as figure:
        entropy, *panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).flat
        entropy.plot(epochs, [_entropy(p) for p in probabilities], marker=".", color="black")
        entropy.set_title("mean entropy", fontsize=9)
        entropy.grid(alpha=0.3)
        for axis, label in zip(panels, labels, strict=False):
            names = {str(value): space.decisions[label].name(value) for value in space.decisions[label].values}
            for value in probabilities[-1][label]:
                axis.plot(epochs, [p[label][value] for p in probabilities], marker=".", label=names[value])
            axis.set_title(label, fontsize=9)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=6, loc="upper left", ncols=3)
        for axis in panels[len(labels) :]:
            axis.set_axis_off()
        figure.supxlabel("epoch")
        figure.supylabel("probability")


def _entropy(probabilities: Mapping[str, Mapping[str, float]]) -> float:
    """Mean over the decisions, 1 where nothing is decided and 0 where everything is."""
    shares = [
        -sum(p * math.log(p) for p in values.values() if p > 0) / math.log(len(values))
        for values in probabilities.values()
        if len(values) > 1
    ]
    return sum(shares) / max(len(shares), 1)
