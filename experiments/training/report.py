"""What a training says at its end: a table, a picture, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..run.commands import command
from ..run.console import say
from ..run.pictures import picture
from ..tasks.metrics import score_table

# Parts of a head's loss, as they are called in a picture.
_LOSSES = {
    "box": "box loss",
    "obj": "objectness loss",
    "cls": "class loss",
    "dfl": "distribution loss",
    "mask": "mask loss",
    "pixels": "cross entropy of pixels",
}


def print_report(measured: Mapping[str, Any], title: str, run: Path, *data: str) -> None:
    """The best epoch's AP, over all classes and each, and the next commands; `data` are the words that say the data."""
    weights = run / "detector.pt"
    say(
        title,
        score_table(measured),
        f"results in {run}; next:",
        f"  {command('val.py', '--weights', weights, *data)}",
        f"  {command('detect.py', '--weights', weights, '--source', 'IMAGES')}",
        f"  {command('export.py', '--weights', weights)}",
    )


def plot_training(
    rows: Sequence[Mapping[str, float]], path: str | Path, parts: Sequence[str], maps: Sequence[str]
) -> None:
    """Losses, of the `parts` of the head's, and by epoch what `maps` names of what was measured; a panel each."""
    panels: list[tuple[str, tuple[str, ...]]] = [
        (_LOSSES.get(part, part), (f"train_{part}", f"val_{part}")) for part in parts
    ]
    panels.append(("mIoU of validation" if "miou" in maps else "mAP of validation", (*maps,)))
    epochs = [row["epoch"] + 1 for row in rows]
    with picture(path, figsize=(14, 3.4), layout="constrained") as figure:
        for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for name in names:
                axes.plot(epochs, [row.get(name, float("nan")) for row in rows], marker=".", label=name)
            axes.set(title=title, xlabel="epoch")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.legend()
