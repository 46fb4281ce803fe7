"""Pictures of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.files import atomic

_COLUMNS = 4


def plot_probabilities(probabilities: Sequence[Mapping[str, Mapping[str, float]]], path: str | Path) -> None:
    """Probability of every value of every decision by epoch, a panel a label."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = list(probabilities[-1])
    rows = -(-len(labels) // _COLUMNS)
    figure, axes = plt.subplots(
        rows, _COLUMNS, figsize=(3.2 * _COLUMNS, 1.7 * rows + 0.6), sharex=True, sharey=True, squeeze=False
    )
    epochs = range(1, len(probabilities) + 1)
    for axis, label in zip(axes.flat, labels, strict=False):
        for value in probabilities[-1][label]:
            axis.plot(epochs, [p[label][value] for p in probabilities], marker=".", label=value)
        axis.set_title(label, fontsize=9)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6, loc="upper left", ncols=3)
    for axis in list(axes.flat)[len(labels) :]:
        axis.set_axis_off()
    figure.supxlabel("epoch")
    figure.supylabel("probability")
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
