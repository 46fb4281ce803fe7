"""How good archs of a space are: the distribution of their errors, and the values that good ones have."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.documents import parse_json
from models.errors import InputError
from models.files import write_text

from ..costs.ranges import Range, parse_range
from ..run.amounts import written
from ..run.console import say
from ..run.folder import RunFolder
from ..run.pictures import picture
from ..run.tables import read_csv, table, write_csv

# Radosavovic et al. 2020, section 3.2: the best of a quarter of the archs, 95 % of the times.
_BOOTSTRAP_SHARE, _INTERVAL = 0.25, (0.025, 0.975)
_KEYS = ("arch", "error_rate", "searcher")
_SUBSETS = ("subset", "archs", "least", "median", "mean")
_VALUES = ("dimension", "95 %", "median", "how often the best has it")
_NO_METRIC = ("trial", "searcher", "seed", "front", "bn", "seconds", "error", "arch")


@dataclass(frozen=True)
class Subset:
    """Archs whose decisions have some of their values (label to values, as text)."""

    name: str
    values: Mapping[str, frozenset[str]]

    @classmethod
    def read(cls, text: str) -> Subset:
        """``NAME:LABEL=VALUE|VALUE,LABEL=VALUE``.

        Raises
        ------
        InputError
            Says what it should look like.
        """
        name, _, rest = text.partition(":")
        values = {}
        for part in filter(None, rest.split(",")):
            label, equals, given = part.partition("=")
            if not equals or not given:
                break
            values[label.strip()] = frozenset(v.strip() for v in given.split("|"))
        else:
            if name and values:
                return cls(name, values)
        raise InputError(f"--subset {text!r}: right would be small:row2.0=16|24,row4.number=1")

    def holds(self, arch: Mapping[str, Any]) -> bool:
        return all(str(arch.get(label)) in values for label, values in self.values.items())


def report_edf(args: Any, run: RunFolder | None = None) -> dict[str, Any]:
    """Share of archs with an error of e or less, by subset, and the values that good archs have.

    Of the files of ``--edf``, or of ``subnets.csv`` of `run`: ``edf.csv``, ``edf.html``, ``edf.png``, ``edf.json``.

    Returns
    -------
    The content of ``edf.json``.
    """
    files = args.edf or ([str(run.path / "subnets.csv")] if run else [])
    run = run or RunFolder(args.project, args.name, args.exist_ok)
    ranges = [parse_range(text) for text in args.range]
    groups: dict[str, list[dict[str, Any]]] = {}
    metric = ""
    for given in files:
        name, path = _named(given)
        own, rows = read_rows(path)
        if metric and own != metric:
            raise InputError(f"--edf {path}: its metric is {own}, that of the files before {metric}")
        metric = own
        if name in groups:
            raise InputError(f"--edf {path}: another file is called '{name}' as well; right would be NAME={path}")
        groups[name] = _within(rows, ranges)
    whole = [row for rows in groups.values() for row in rows]
    if not whole:
        raise InputError("there are no archs to report on: none was evaluated within the ranges")
    groups = _by_searcher(groups)
    for text in args.subset:
        subset = Subset.read(text)
        for label in subset.values:
            if not any(label in row["arch"] for row in whole):
                raise InputError(f"--subset {subset.name}: no decision is called '{label}'")
        if subset.name in groups:
            raise InputError(f"--subset {subset.name}: a file is called so as well")
        groups[subset.name] = [row for row in whole if subset.holds(row["arch"])]
        if not groups[subset.name]:
            raise InputError(f"--subset {subset.name}: none of the {len(whole)} archs is in it")
    errors = {name: np.sort([row["error_rate"] for row in rows]) for name, rows in groups.items() if rows}
    results: dict[str, Any] = {
        "metric": metric,
        "subsets": {
            name: {"archs": len(e), "least": float(e[0]), "median": float(np.median(e)), "mean": float(e.mean())}
            for name, e in errors.items()
        },
        "good_values": good_values(whole, args.samples, args.seed),
    }
    points = [
        {"subset": name, "error": f"{e:.6g}", "share": f"{share:.6g}"}
        for name, given in errors.items()
        for e, share in zip(*edf(given), strict=True)
    ]
    write_csv(run.path / "edf.csv", points)
    run.write_json("edf.json", results)
    _plot_edf(errors, metric, run.path / "edf.png")
    _html_edf(errors, results, run.path / "edf.html")
    _say_edf(results, run)
    return results


def _named(given: str) -> tuple[str, Path]:
    """Of ``NAME=FILE``, or of a file alone: by its folder."""
    named, equals, file = given.partition("=")
    path = Path(given)
    if equals and not path.exists():
        return named, Path(file)
    return path.parent.name or path.stem, path


def _by_searcher(groups: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Apart, where a file has archs of several searchers: what a search has chosen is no sample of the space."""
    apart: dict[str, list[dict[str, Any]]] = {}
    for name, rows in groups.items():
        searchers = list(dict.fromkeys(row["searcher"] for row in rows))
        for searcher in searchers:
            own = [row for row in rows if row["searcher"] == searcher]
            apart[f"{name} {searcher}" if len(searchers) > 1 else name] = own
    return apart


def read_rows(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """The metric's name and the archs of a ``subnets.csv``: `_KEYS` (the error rate is 1 - metric), and costs.

    Raises
    ------
    InputError
        The file is not one.
    """
    try:
        rows = read_csv(path)
    except (OSError, ValueError) as e:
        raise InputError(f"--edf {path}: {str(e).removeprefix(f'{path}: ')}") from None
    names = [name for name in (rows[0] if rows else []) if name not in _NO_METRIC]
    if not names or "arch" not in rows[0]:
        raise InputError(f"--edf {path}: no evaluated archs in it; right would be subnets.csv of a search")
    if None in rows[0] or any(row.get(name) is None for row in rows for name in (*names[:1], "arch")):
        raise InputError(f"--edf {path}: its rows have other numbers of columns than its first line")
    metric, costs = str(names[0]), names[1:]
    found: list[dict[str, Any]] = []
    for row in rows:
        if row[metric]:
            try:
                arch = parse_json(row["arch"], path)
                if not isinstance(arch, dict) or any(isinstance(v, (dict, list)) for v in arch.values()):
                    raise ValueError("no arch")
                known = {c: float(row[c]) for c in costs if row.get(c)}
                rate = 1 - float(row[metric])
            except (TypeError, ValueError):
                raise InputError(f"--edf {path}: row {len(found) + 1} is no arch and numbers") from None
            if not all(map(math.isfinite, (rate, *known.values()))):
                raise InputError(f"--edf {path}: row {len(found) + 1} holds a number that is not finite")
            found.append({"arch": arch, "error_rate": rate, "searcher": row.get("searcher"), **known})
    return metric, found


def _within(rows: Sequence[dict[str, Any]], ranges: Sequence[Range]) -> list[dict[str, Any]]:
    for r in ranges:
        if any(r.name not in row for row in rows):
            raise InputError(f"--range {r.name}: no such cost; there are {', '.join(_shared(rows, list))}")
    return [row for row in rows if all(not r.distance(row[r.name]) for r in ranges)]


def _shared(rows: Sequence[Mapping[str, Any]], keys: Callable[[Mapping[str, Any]], Iterable[str]]) -> list[str]:
    """What all rows have, but for `_KEYS`."""
    common = set.intersection(*(set(keys(row)) for row in rows))
    return [name for name in keys(rows[0]) if name in common and name not in _KEYS]


def edf(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors in order, and the share of archs with that error or less (Radosavovic et al. 2019, arXiv:1905.13214)."""
    ordered = np.sort(errors)
    return ordered, np.arange(1, len(ordered) + 1) / len(ordered)


def good_values(rows: Sequence[Mapping[str, Any]], samples: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Which values the best archs have, by dimension: every decision, and every cost, that all of them have.

    The empirical bootstrap of Radosavovic et al. 2020 (arXiv:2003.13678, section 3.2): a quarter of the archs is drawn
    with replacement, the value of the best one noted, and again.

    Returns
    -------
    Dimension to ``low``, ``median``, ``high`` (95 % of the noted values) where it is a number, and always ``shares``,
    value to how often it was noted, for decisions.
    """
    rng = np.random.default_rng(seed)
    errors = np.array([row["error_rate"] for row in rows])
    size = max(round(_BOOTSTRAP_SHARE * len(rows)), 1)
    draws = rng.integers(len(rows), size=(max(samples, 1), size))
    best = draws[np.arange(len(draws)), errors[draws].argmin(1)]
    found: dict[str, dict[str, Any]] = {}
    for label in _shared(rows, lambda row: row["arch"]):
        values = [row["arch"][label] for row in rows]
        found[label] = _summary([values[i] for i in best], shares=True)
    for name in _shared(rows, list):
        found[name] = _summary([rows[i][name] for i in best], shares=False)
    return found


def _summary(noted: Sequence[Any], shares: bool) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    if all(type(v) in (int, float) for v in noted):
        low, median, high = np.quantile(noted, [_INTERVAL[0], 0.5, _INTERVAL[1]]).tolist()
        summary = {"low": low, "median": median, "high": high}
    if shares:
        values, counts = np.unique([str(v) for v in noted], return_counts=True)
        ordered = sorted(zip(values.tolist(), (counts / len(noted)).tolist(), strict=True), key=lambda p: -p[1])
        summary["shares"] = dict(ordered)
    return summary


def _plot_edf(errors: Mapping[str, np.ndarray], metric: str, path: Path) -> None:
    with picture(path, figsize=(6, 4.2), layout="tight") as figure:
        axis = figure.subplots()
        for name, given in errors.items():
            axis.step(*edf(given), where="post", label=f"{name} ({len(given)})")
        axis.set_xlabel(f"error, 1 - {metric}")
        axis.set_ylabel("share of archs with this error or less")
        axis.grid(alpha=0.3)
        axis.legend()


def _html_edf(errors: Mapping[str, np.ndarray], results: Mapping[str, Any], path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, given in errors.items():
        x, y = edf(given)
        figure.add_scatter(
            x=x.tolist(), y=y.tolist(), mode="lines", line={"shape": "hv"}, name=html.escape(f"{name} ({len(x)})")
        )
    error = html.escape(f"error, 1 - {results['metric']}")
    figure.update_layout(template="plotly_white", xaxis_title=error, yaxis_title="share")
    drawn = figure.to_html(include_plotlyjs=True, full_html=False)
    subsets, values = _rows(results)
    body = (
        f"<h1>Errors</h1>{drawn}{_html_table(_SUBSETS, subsets)}"
        "<h1>Values of good archs</h1><p>Bootstrap: the best of a quarter of the archs, drawn again and again.</p>"
        f"{_html_table(_VALUES, values)}"
    )
    style = "body{font-family:sans-serif;max-width:70rem;margin:auto}td,th{padding:.2rem .8rem;text-align:left}"
    head = f"<meta charset='utf-8'><title>EDF</title><style>{style}</style>"
    page = f"<!doctype html><html><head>{head}</head><body>{body}</body></html>"
    write_text(path, page)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{html.escape(h)}</th>" for h in head)]
    lines += ["".join(f"<td>{html.escape(v)}</td>" for v in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _rows(results: Mapping[str, Any]) -> tuple[list[list[str]], list[list[str]]]:
    """Of `_SUBSETS` and `_VALUES`."""
    rows = results["subsets"].items()
    subsets = [[name, str(r["archs"]), *(f"{r[k]:.4f}" for k in _SUBSETS[2:])] for name, r in rows]
    return subsets, [[name, *_shown(name, summary)] for name, summary in results["good_values"].items()]


def _shown(name: str, summary: Mapping[str, Any]) -> tuple[str, str, str]:
    """95 %, median, shares."""
    shares = ", ".join(f"{value}: {share:.0%}" for value, share in summary.get("shares", {}).items())
    if "low" not in summary:
        return "", "", shares
    low, median, high = (_number(name, summary[k], bool(shares)) for k in ("low", "median", "high"))
    return f"{low} … {high}", median, shares


def _number(name: str, value: float, is_decision: bool) -> str:
    return f"{value:g}" if is_decision else written(name, value)


def _say_edf(results: Mapping[str, Any], run: RunFolder) -> None:
    subsets, values = _rows(results)
    say(
        table(_SUBSETS, subsets, f"error, 1 - {results['metric']}", left=["subset"]),
        table(_VALUES, values, "values of good archs (bootstrap)", left=_VALUES),
        f"results in {run.path}",
        width=110,
    )
