"""The front: every network that was rated or trained, as a table and as a picture to look into."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..run.amounts import titled, written
from ..run.tables import write_csv
from .phases import Job


def front_rows(job: Job) -> list[dict[str, Any]]:
    """A row a network: archs as rated in the supernet, plain networks at every side, and all that was finetuned."""
    found: list[dict[str, Any]] = []
    decided, tested = job.results["decide"], job.results["test"]["scores"]
    for row in job.results["search"]["rows"]:
        costs = {k: row.get(k) for k in ("latency", "flops", "params")}
        about = {"name": f"trial {row['trial']}", "kind": "rated in the supernet", "front": row["front"]}
        found.append({**about, "map_rated": row["rated"], **costs, "arch": json.dumps(row["arch"])})
    costs_of = job.results["measure"]["costs"]
    for name, network in job.results["baselines"]["networks"].items():
        for side, score in network["at"].items():
            about = {"name": f"{name} at {side}", "kind": "plain", "side": int(side), "map_val": score}
            found.append({**about, **costs_of[name][side], "file": network["weights"]})
    for name, c in decided["candidates"].items():
        about = {"name": name, "kind": f"{c['kind']}, finetuned", "side": c["side"], "map_val": c["map50_95"]}
        costs = {k: c[k] for k in ("latency", "flops", "params")}
        more = {"map_test": tested[name]["map50_95"]} if name in tested else {}
        file = {"file": c["weights"], "arch": json.dumps(c["arch"]) if "arch" in c else None}
        found.append({**about, **more, **costs, **file, "chosen": name == decided["chosen"]})
    return found


_COLUMNS = (
    *("name", "kind", "chosen", "side", "latency", "flops", "params", "map_rated", "map_val", "map_test", "front"),
    *("file", "arch"),
)


def write_front(job: Job, rows: Sequence[Mapping[str, Any]]) -> None:
    """``front.csv``."""
    write_csv(job.path / "front.csv", rows, _COLUMNS)


def front_html(job: Job, rows: Sequence[Mapping[str, Any]]) -> str:
    """A part of a page: mAP beside the cost, every network under the pointer, files behind a click."""
    import plotly.graph_objects as go

    cost = job.results["search"]["cost"]
    figure = go.Figure()
    rated = [r for r in rows if "map_rated" in r]
    groups = (
        ("rated in the supernet", [r for r in rated if not r["front"]], "map_rated", "#b8c4d4", "circle", 7, "markers"),
        (
            "front in the supernet",
            [r for r in rated if r["front"]],
            "map_rated",
            "#2b6cb0",
            "circle",
            8,
            "lines+markers",
        ),
        (
            "plain, by side",
            [r for r in rows if r["kind"] == "plain"],
            "map_val",
            "#8a94a3",
            "square",
            9,
            "lines+markers",
        ),
        ("plain, finetuned", _finetuned(rows, "plain"), "map_val", "#4a5568", "square", 13, "markers"),
        ("searched, finetuned", _finetuned(rows, "searched"), "map_val", "#dd6b20", "diamond", 13, "markers"),
        ("handed over", [r for r in rows if r.get("chosen")], "map_val", "#000000", "star", 18, "markers"),
    )
    for name, points, metric, colour, symbol, size, mode in groups:
        points = sorted((p for p in points if p.get(cost) is not None), key=lambda p: p[cost])
        if points:
            figure.add_scatter(
                x=[p[cost] for p in points],
                y=[p[metric] for p in points],
                mode=mode,
                name=name,
                text=[_hover(p) for p in points],
                customdata=[p.get("file") or "" for p in points],
                hovertemplate="%{text}<extra></extra>",
                marker={"color": colour, "symbol": symbol, "size": size},
                line={"color": colour, "width": 1.5},
            )
    limit = job.results["measure"]["limits"].get(cost)
    if limit is not None:
        figure.add_vline(
            x=limit,
            line_dash="dash",
            line_color="#c53030",
            annotation_text=f"limit {written(cost, limit)}",
            annotation_position="top left",
        )
    if job.options.min_map is not None:
        figure.add_hline(y=job.options.min_map, line_dash="dash", line_color="#c53030")
    figure.update_xaxes(title=titled(cost))
    figure.update_yaxes(title="mAP50-95 (in the supernet, or of validation)", range=_interesting(rows))
    figure.update_layout(
        template="plotly_white",
        height=520,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "y": -0.16},
    )
    opens = (
        "document.getElementById('{plot_id}').on('plotly_click', function(e) {"
        "const file = e.points[0].customdata; if (file) { window.open(file); } });"
    )
    quiet = {"displaylogo": False, "displayModeBar": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=True, div_id="front", post_script=opens, config=quiet))


def _finetuned(rows: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [r for r in rows if r["kind"] == f"{kind}, finetuned"]


def _interesting(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The range of mAP of the front and of what was trained; other archs may lie far below."""
    shown = [r.get("map_val", r.get("map_rated")) for r in rows if "map_val" in r or r["front"]]
    low, high = min(shown), max(shown)
    margin = max(0.06 * (high - low), 0.005)
    return [max(low - margin, -0.005), high + margin]


def _hover(row: Mapping[str, Any]) -> str:
    lines = [f"<b>{html.escape(str(row['name']))}</b>"]
    lines += [f"{k}: {row[k]:.4f}" for k in ("map_rated", "map_val", "map_test") if row.get(k) is not None]
    lines += [f"{k}: {written(k, row[k])}" for k in ("latency", "flops", "params") if row.get(k) is not None]
    arch = json.loads(row["arch"]) if row.get("arch") else {}
    pairs = [f"{html.escape(str(k))} = {html.escape(str(v))}" for k, v in arch.items()]
    lines += ["  ".join(pairs[i : i + 3]) for i in range(0, len(pairs), 3)]
    return "<br>".join(lines + ([f"click: {html.escape(row['file'])}"] if row.get("file") else []))
