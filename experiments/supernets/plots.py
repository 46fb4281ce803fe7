"""The front of a search as pictures: one to look into, two to print."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.files import atomic

from ..run.amounts import titled, written
from ..run.pictures import picture


class Shown(NamedTuple):
    """What both pictures show.

    Attributes
    ----------
    metric, cost
        What the axes are.
    searches
        Name of a search to its rows, as in ``subnets.csv``; the first one is the search, the others stand beside it.
    hypervolumes
        Name of a search to (n,), the share of the largest one after 1, 2, … evaluations.
    picked
        The trial of the first search that was picked.
    units
        Name of a cost to its unit, where that does not follow from the name.
    """

    metric: str
    cost: str
    searches: Mapping[str, Sequence[Mapping[str, Any]]]
    hypervolumes: Mapping[str, np.ndarray]
    picked: int | None = None
    units: Mapping[str, str] = {}

    @property
    def unit(self) -> str:
        """Of the cost; a count has none."""
        return self.units.get(self.cost) or ("ms" if self.cost == "latency" else "")

    @property
    def cost_title(self) -> str:
        """What the axis of the cost is called."""
        return titled(self.cost, self.unit)


def plot_front(path: Path, shown: Shown) -> None:
    """Write `path` (.html, self-contained, the arch of a point under the pointer) and a .png beside it."""
    _html(path, shown)
    _png(path.with_suffix(".png"), shown)


def _html(path: Path, shown: Shown) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    metric, cost, searches, hypervolumes, picked, units = shown
    y_title, x_title = html.escape(metric), html.escape(shown.cost_title)
    titles = [f"{y_title} against {x_title}", "hypervolume"]
    figure = make_subplots(1, 2, column_widths=[0.65, 0.35], subplot_titles=titles)
    for number, (name, rows) in enumerate(searches.items()):
        front = sorted((r for r in rows if r["front"]), key=lambda r: r[cost])
        for label, points, mode in ((name, rows, "markers"), (f"front of {name}", front, "lines+markers")):
            on_front = mode != "markers"
            figure.add_scatter(
                x=[r[cost] for r in points],
                y=[r[metric] for r in points],
                mode=mode,
                name=html.escape(label),
                text=[_hover(r, units) for r in points],
                hovertemplate="%{text}<extra></extra>",
                marker={"size": 9 if on_front else 6, "color": _COLOURS[number % len(_COLOURS)]},
                opacity=1.0 if on_front else 0.4,
                row=1,
                col=1,
            )
        if name in hypervolumes:
            history = hypervolumes[name]
            steps = list(range(1, len(history) + 1))
            line = go.Scatter(
                x=steps,
                y=history.tolist(),
                name=html.escape(name),
                line={"color": _COLOURS[number % len(_COLOURS)]},
                showlegend=False,
            )
            figure.add_trace(line, 1, 2)
    for r in next(iter(searches.values())):
        if r["trial"] == picked:
            figure.add_scatter(
                x=[r[cost]],
                y=[r[metric]],
                mode="markers",
                name="picked",
                text=[_hover(r, units)],
                hovertemplate="%{text}<extra></extra>",
                marker={"symbol": "star", "size": 16, "color": "black"},
                row=1,
                col=1,
            )
    figure.update_xaxes(title=x_title, row=1, col=1).update_yaxes(title=y_title, row=1, col=1)
    figure.update_xaxes(title="evaluations", row=1, col=2).update_yaxes(title="share of the largest", row=1, col=2)
    figure.update_layout(template="plotly_white", height=620, hoverlabel={"align": "left"})
    with atomic(path) as temporary:
        figure.write_html(temporary, include_plotlyjs=True, full_html=True)


_COLOURS = ("#1f77b4", "#999999", "#2ca02c", "#d62728")


def _hover(row: Mapping[str, Any], units: Mapping[str, str]) -> str:
    lines = [f"trial {row['trial']}"]
    for name, value in _numbers(row):
        unit = "" if name == "latency" else units.get(name, "")
        is_share = not unit and name != "latency" and isinstance(value, float) and value < 10
        said = f"{value:.4f}" if is_share else f"{value:.4g} {unit}" if unit else written(name, value)
        lines.append(f"{html.escape(name)}: {html.escape(said)}")
    archs = [f"{html.escape(str(k))} = {html.escape(str(v))}" for k, v in row["arch"].items()]
    pairs = ["  ".join(archs[i : i + 3]) for i in range(0, len(archs), 3)]
    return "<br>".join(lines + pairs)


def _numbers(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    left = ("trial", "seed", "seconds")
    return [(k, v) for k, v in row.items() if type(v) in (int, float) and k not in left]


def _png(path: Path, shown: Shown) -> None:
    from matplotlib.ticker import EngFormatter

    metric, cost, searches, hypervolumes, picked, _ = shown
    with picture(path, figsize=(11, 4.6), layout="tight") as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
        for number, (name, rows) in enumerate(searches.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            left.scatter([r[cost] for r in rows], [r[metric] for r in rows], s=12, color=colour, alpha=0.35)
            front = sorted((r for r in rows if r["front"]), key=lambda r: r[cost])
            left.plot([r[cost] for r in front], [r[metric] for r in front], marker=".", color=colour, label=name)
            if name in hypervolumes:
                right.plot(range(1, len(hypervolumes[name]) + 1), hypervolumes[name], color=colour, label=name)
        for r in next(iter(searches.values())):
            if r["trial"] == picked:
                left.plot(r[cost], r[metric], marker="*", markersize=15, color="black", linestyle="", label="picked")
        left.set_xlabel(shown.cost_title)
        left.set_ylabel(metric)
        if not shown.unit:  # 500 m of milliseconds would be read as metres
            left.xaxis.set_major_formatter(EngFormatter())
        left.legend()
        right.set_xlabel("evaluations")
        right.set_ylabel("hypervolume, share of the largest")
        for axis in (left, right):
            axis.grid(alpha=0.3)
