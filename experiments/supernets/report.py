"""What is left of a search of a supernet: table, front, pictures, and the arch that is picked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import InputError
from models.files import save_model_yaml

from ..run.amounts import parse_amount, titled, written
from ..run.commands import command
from ..run.console import say
from ..run.tables import table, write_csv
from ..search import Result, Search
from ..search.pareto import front, hypervolume_history, knee, reference_point
from ..tasks.resize import resolution_of
from .fidelity import what_is_known
from .plots import Shown, plot_front
from .studies import SubnetSearch
from .subnets import cut_out

_SHOWN = 12


@dataclass(frozen=True)
class Pick:
    """Which arch of the front: the knee, or the one of the best metric within upper bounds (name to bound)."""

    bounds: Mapping[str, float] | None

    @classmethod
    def read(cls, text: str) -> Pick:
        """``knee``, ``flops<=4G``, or several bounds separated by commas.

        Raises
        ------
        InputError
            Says what it should look like.
        """
        if text.strip() == "knee":
            return cls(None)
        bounds = {}
        for part in text.split(","):
            if not (match := re.fullmatch(r"\s*(\w+)\s*<=(.+)", part)):
                raise InputError(f"--pick {text!r}: right would be knee, flops<=4G or latency<=8ms")
            bounds[match[1]] = parse_amount(match[2], match[1])
        return cls(bounds)

    def check(self, names: Sequence[str]) -> None:
        """`InputError` if a bound is of a cost that is not known."""
        for name in self.bounds or {}:
            if name not in names:
                raise InputError(f"--pick {name}: no such cost; there are {', '.join(names)}")

    def choose(self, rows: Sequence[Mapping[str, Any]], losses: np.ndarray, metric: str) -> Mapping[str, Any]:
        """The row that is picked of the ones that did not fail."""
        if self.bounds is None:
            return rows[knee(losses)]
        within = [r for r in rows if all(r[name] <= bound for name, bound in self.bounds.items())]
        if not within:
            name = next(iter(self.bounds))
            least = min(r[name] for r in rows)
            raise InputError(
                f"--pick: no arch that was evaluated is within; the least {name} is {written(name, least)}"
            )
        return max(within, key=lambda r: (r[metric], *(-r[name] for name in self.bounds or {})))


def rows_of(name: str, search: Search, metric: str) -> list[dict[str, Any]]:
    """A row an evaluation, as in ``subnets.csv``; the metric of a failed one is None."""
    results = search.results()
    on_front = iter(front(search.losses(results)).tolist())
    return [_row(name, r, metric, bool(r.values) and next(on_front)) for r in results]


def _row(name: str, r: Result, metric: str, on_front: bool) -> dict[str, Any]:
    return {
        "trial": r.number,
        "searcher": name,
        "seed": r.record.get("seed"),
        metric: r.values[metric] if r.values else None,
        **{cost: int(v) if float(v).is_integer() else v for cost, v in r.costs.items()},
        "front": on_front,
        "bn": r.record.get("bn"),
        "seconds": r.record.get("seconds"),
        "error": r.record.get("error", ""),
        "arch": r.arch,
    }


def write_rows(rows: Sequence[Mapping[str, Any]], path: Any) -> None:
    """``subnets.csv``: the arch is a column of JSON."""
    # Rows of a study may have been told by workers that knew other costs.
    names = [name for name in dict.fromkeys(k for row in rows for k in row) if name != "arch"]
    columns = [*names, "arch"] if rows else ["trial"]
    write_csv(path, ({**row, "arch": json.dumps(row["arch"])} for row in rows), columns)


def report(job: SubnetSearch, pick: Pick | None = None, say: bool = False) -> dict[str, Any]:
    """Write what there is so far; `say` it on the screen as well.

    Returns
    -------
    The content of ``results.json``.
    """
    metric, path = job.metric, job.run.path
    tables = {name: rows_of(name, search, metric) for name, search in job.searches.items()}
    write_rows([row for rows in tables.values() for row in rows], path / "subnets.csv")
    own, search = next(iter(tables.values())), next(iter(job.searches.values()))
    good = [row for row in own if row[metric] is not None]
    if not good:
        return {}
    _write_front(job, own)
    losses = {name: s.losses(s.results()) for name, s in job.searches.items()}
    shares = _shares(losses)
    chosen = None if pick is None else pick.choose(good, losses[next(iter(losses))], metric)
    costs = [o.name for o in search.objectives[1:]]
    shown = costs[0] if costs else "flops"
    picked = None if chosen is None else chosen["trial"]
    units = {name: provider.unit for name, provider in job.domain.providers.items()}
    plot_front(path / "pareto_front.html", Shown(metric, shown, tables, shares, picked, units))
    results: dict[str, Any] = {
        "metric": metric,
        "costs": costs,
        "evaluations": {name: len(rows) for name, rows in tables.items()},
        "failed": {name: sum(r[metric] is None for r in rows) for name, rows in tables.items()},
        "hypervolume": {name: float(share[-1]) for name, share in shares.items() if len(share)},
        "front": [row for row in own if row["front"]],
        "picked": chosen,
        **({"int8": job.options.calibrate} if job.options.int8 else {}),
    }
    job.run.write_json("results.json", results)
    if say:
        _say(job, results)
    return results


def _shares(losses: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hypervolume over time, up to a reference that all searches share, as shares of the largest."""
    everything = np.concatenate(list(losses.values()))
    reference = reference_point(everything)
    histories = {name: hypervolume_history(rows, reference) for name, rows in losses.items()}
    # At equal evaluations: as far as the shorter one has come.
    histories = {name: h[: min(map(len, histories.values()))] for name, h in histories.items()}
    largest = max(float(h.max(initial=0)) for h in histories.values()) or 1.0
    return {name: h / largest for name, h in histories.items()}


def _write_front(job: SubnetSearch, rows: Sequence[Mapping[str, Any]]) -> None:
    folder = job.run.path / "fix_subnets"
    wanted = {f"trial_{row['trial']}.yaml": row["arch"] for row in rows if row["front"]}
    for old in folder.glob("trial_*.yaml"):
        if old.name not in wanted:
            old.unlink()
    for name, arch in wanted.items():
        save_model_yaml(job.space.freeze(arch), folder / name)


def _say(job: SubnetSearch, results: Mapping[str, Any]) -> None:
    metric = results["metric"]
    costs = list(job.domain.providers)
    shown = sorted(results["front"], key=lambda r: -r[metric])
    searcher = f"{job.options.searcher}{' in 8 bits' if job.options.int8 else ''}"
    title = f"front of {searcher}: {len(shown)} of {next(iter(results['evaluations'].values()))} evaluations"
    if len(shown) > _SHOWN:
        title += f", {_SHOWN} shown"
        shown = [shown[round(i * (len(shown) - 1) / (_SHOWN - 1))] for i in range(_SHOWN)]
    rows = [(str(row["trial"]), f"{row[metric]:.4f}", *(written(c, row[c]) for c in costs)) for row in shown]
    columns = [c if c == "latency" else titled(c, p.unit) for c, p in job.domain.providers.items()]  # a latency says ms
    done, asked = next(iter(results["evaluations"].values())), job.options.trials
    say(
        table(["trial", metric, *columns], rows, title),
        f"ended after {done} of {asked}: no more archs were found" if done < asked else "",
        verdict(results["hypervolume"]),
        what_is_known(job.folder) if job.options.supernet else "",
        f"results in {job.run.path}",
    )


def verdict(hypervolumes: Mapping[str, float]) -> str:
    """Whether the search beat random search at equal evaluations; empty where there is nothing to compare."""
    if "random" not in hypervolumes or len(hypervolumes) == 1:
        return ""
    name, found = next(iter(hypervolumes.items()))
    other = hypervolumes["random"]
    says = "beats" if found > other else "does not beat"
    return f"{name} {says} random search at equal evaluations: hypervolume {found:.3f} against {other:.3f}"


def write_pick(job: SubnetSearch, results: Mapping[str, Any]) -> None:
    """``arch.json``, YAML and weights of the arch that was picked, and what to do with them."""
    row, path = results["picked"], job.run.path
    job.run.write_json("arch.json", row["arch"])
    network = job.task.calibrated(cut_out(job.supernet.cpu(), job.task, row["arch"]))
    side = resolution_of(network, job.trained.imgsz)
    job.task.hand_over(network, path, row["arch"], is_slice=True)
    data, imgsz = (job.trained.data, side) if job.task.is_whole else ("path/to/data.yaml", job.imgsz)
    weights = path / f"{job.task.result}.pt"
    costs = ", ".join(f"{c} {written(c, row[c])}" for c in job.domain.providers)
    in_8_bits: tuple[str, ...] = ()
    if job.options.int8:
        in_8_bits = ("--int8", "--data", data)
        written_to = job.int8.write(row["arch"], path / f"{job.task.result}-int8.onnx")
    say(
        f"picked trial {row['trial']}: {results['metric']} {row[results['metric']]:.4f}, {costs}",
        f"finetune: {command('train.py', '--weights', weights, '--data', data, '--imgsz', imgsz)}",
        f"ONNX:     {command('export.py', '--weights', weights, '--imgsz', imgsz, *in_8_bits)}",
        f"in 8 bits, as it was rated: {written_to}" if in_8_bits else "",
    )
