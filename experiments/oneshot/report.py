"""What a one-shot search says at its end: a table, a verdict, and a picture of its probabilities."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import stats

from spaces import Space

from ..run.console import say
from ..run.folder import RunFolder
from ..run.pictures import picture
from ..run.tables import table

if TYPE_CHECKING:
    from .search import Options

_COLUMNS = 4


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
