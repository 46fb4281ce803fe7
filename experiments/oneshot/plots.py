"""Pictures of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.files import atomic
from spaces import Space

_COLUMNS = 4


def plot_probabilities(
    probabilities: Sequence[Mapping[str, Mapping[str, float]]], path: str | Path, space: Space
) -> None:
    """Probability of every value of every decision by epoch, a panel a label; the first panel is the mean entropy.

    The entropy is in shares of what it is when nothing is decided.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = list(probabilities[-1])
    rows = -(-(len(labels) + 1) // _COLUMNS)
    figure, axes = plt.subplots(
        rows, _COLUMNS, figsize=(3.2 * _COLUMNS, 1.7 * rows + 0.6), sharex=True, sharey=True, squeeze=False
    )
    epochs = range(1, len(probabilities) + 1)
    entropy, *panels = axes.flat
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
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _entropy(probabilities: Mapping[str, Mapping[str, float]]) -> float:
    """Mean over the decisions, 1 where nothing is decided and 0 where everything is."""
    shares = [
        -sum(p * math.log(p) for p in values.values() if p > 0) / math.log(len(values))
        for values in probabilities.values()
        if len(values) > 1
    ]
    return sum(shares) / max(len(shares), 1)
