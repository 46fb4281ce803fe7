"""What a training says at its end: a table, a picture, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from models.files import atomic

from ..run.console import console

_PANELS = (
    ("box loss", ("train_box", "val_box")),
    ("objectness loss", ("train_obj", "val_obj")),
    ("class loss", ("train_cls", "val_cls")),
    ("mAP of validation", ("map50", "map50_95")),
)


def print_report(measured: Mapping[str, Any], title: str, run: Path, data: str) -> None:
    """The best epoch's AP, over all classes and each, and the next commands."""
    table = Table()
    table.add_column("class")
    for column in ("objects", "mAP50-95", "mAP50", "mAP75", "precision", "recall"):
        table.add_column(column, justify="right")

    def add(name: str, objects: int, *scores: float | None) -> None:
        table.add_row(name, str(objects), *("" if s is None else f"{s:.3f}" for s in scores))

    m = measured
    add("all", m["instances"], m["map50_95"], m["map50"], m["map75"], m["precision"], m["recall"])
    for name, c in m["classes"].items():
        add(name, c["instances"], c["ap50_95"], c["ap50"], c.get("ap75"), c["precision"], c["recall"])
    say = console().print
    say(title, soft_wrap=True)
    say(table)
    weights = run / "detector.pt"
    for line in (
        f"results in {run}; next:",
        f"  val.py --weights {weights} --data {data}",
        f"  detect.py --weights {weights} --source IMAGES",
        f"  export.py --weights {weights}",
    ):
        say(line, soft_wrap=True)


def plot_training(rows: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """Losses and mAP by epoch; a panel each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.4), layout="constrained")
    epochs = [row["epoch"] + 1 for row in rows]
    for axes, (title, names) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for name in names:
            axes.plot(epochs, [row.get(name, float("nan")) for row in rows], marker=".", label=name)
        axes.set(title=title, xlabel="epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
