"""How a supernet ranks archs, beside what they reach when each is trained alone: `search_subnets.py --fidelity`."""

from __future__ import annotations

import html
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from models.documents import read_json
from models.errors import InputError
from models.files import atomic
from models.schemas import FidelityFile
from spaces import Space
from spaces.space import Arch

from ..costs.counted import COUNTED
from ..proxies.probe import Probe
from ..run import registry
from ..run.console import say
from ..run.device import device_of
from ..run.folder import RunFolder
from ..run.lightning import accelerator_of, quiet_lightning
from ..run.pictures import picture
from ..run.tables import read_csv, table, write_csv
from ..search.fidelity import TOPS, Fidelity, fidelity, noise_ceiling
from ..training.fit import train_alone
from ..training.options import learning_of
from .folder import supernet_folder
from .options import FidelityOptions
from .rating import Rating
from .subnets import open_supernet

# Left in the supernet's folder, so that a search of it can say how far its ratings go.
KNOWN = "fidelity.json"
RATING = "supernet"
_DRAWN = 64
_SIZES = (*COUNTED, "blocks")


def report_fidelity(options: FidelityOptions, run: RunFolder) -> dict[str, Any]:
    """Rate archs that are spread over FLOPs in the supernet, find out what they reach, and compare.

    What is done stands in ``fidelity.csv``, so that a resumed run goes on behind it.

    Returns
    -------
    The content of ``results.json``.
    """
    quiet_lightning()
    if options.fidelity is None or options.fidelity < 2:
        raise InputError("--fidelity: a ranking is of 2 archs at least")
    folder = supernet_folder(options.supernet)
    supernet, task, trained = open_supernet(folder, options.device)
    supernet.to(device_of(options.device))
    model = task.costs(options.cost_imgsz or trained.cost_imgsz)
    truths = {} if options.truth is None else read_truths(Path(options.truth), supernet.space, task.metric)
    drawn = [dict(a) for a in truths] or None
    archs = spread(supernet.space, model, options.fidelity, options.seed, drawn)
    run.write_config(asdict(options), anew=True)
    done = _done(run.path / "fidelity.csv")
    probe, proxies = Probe(task), [name for name in registry.names("proxy") if name not in COUNTED]
    rows: list[dict[str, Any]] = []
    with Rating(lambda: supernet, task, len(archs)) as rate:
        for arch in archs:
            row = done.get(json.dumps(arch), {"arch": json.dumps(arch)})
            rows.append(row)
            if RATING not in row:
                pl.seed_everything(options.seed, verbose=False)
                row |= {RATING: rate(arch), **model.of(arch)}
                for name in proxies:
                    torch.manual_seed(options.seed)
                    row[name] = probe.score(name, supernet.space.freeze(arch))
                write_csv(run.path / "fidelity.csv", [*rows, *_left(done, rows)])
    num_truths = 1 if truths else options.seeds
    for seed in range(num_truths):
        for arch, row in zip(archs, rows, strict=True):
            if (name := f"truth.{seed}") in row:
                continue
            if truths:
                row[name] = truths[tuple(arch.items())]
            else:
                pl.seed_everything(options.seed + seed, verbose=False)
                network = task.network(supernet.space.freeze(arch))
                given = learning_of(trained), trained.epochs, accelerator_of(options.device)
                train_alone(task, network, *given, batch=trained.batch, seed=options.seed + seed, device=options.device)
                row[name] = task.measure(network)
                print(
                    f"fidelity  seed {seed}  {task.metric} {row[name]:.4f}, in the supernet {row[RATING]:.4f}",
                    flush=True,
                )
            write_csv(run.path / "fidelity.csv", rows)
    found = np.array([[row[f"truth.{seed}"] for row in rows] for seed in range(num_truths)], float)
    names = (RATING, *(c for c in ("params", "flops", "activations") if c in rows[0]), *proxies)
    predictors = {name: np.array([row[name] for row in rows], float) for name in names}
    predictors = {name: score for name, score in predictors.items() if np.isfinite(score).all()}
    return report(run, folder, task.metric, found, predictors)


def report(
    run: RunFolder, supernet: Path, metric: str, truths: np.ndarray, predictors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Write what there is to say, and say it.

    Parameters
    ----------
    truths
        (seeds, n), what each arch reached.
    predictors
        Name to (n,), what archs are ranked by; ``flops`` is the cost of the bands.
    """
    truth, cost = truths.mean(0), predictors["flops"]
    found = {name: fidelity(truth, score, cost) for name, score in predictors.items()}
    ceiling = noise_ceiling(truths)
    results: dict[str, Any] = {
        "metric": metric,
        "archs": len(truth),
        "seeds": len(truths),
        "ceiling": None if np.isnan(ceiling) else ceiling,
        "predictors": {name: asdict(f) for name, f in found.items()},
    }
    run.write_json("results.json", results)
    with atomic(supernet / KNOWN) as temporary:
        temporary.write_text(json.dumps(results, indent=2), encoding="utf-8")
    flat = [{"predictor": name, **_cells(f)} for name, f in found.items()]
    write_csv(run.path / "rankings.csv", flat)
    _pictures(run.path / "fidelity", metric, truth, predictors, found)
    columns = tuple(flat[0])
    lines = [(name, *(f"{value:.3f}" for value in _cells(f).values())) for name, f in found.items()]
    several = "" if np.isnan(ceiling) else f"two trainings rank alike by tau {ceiling:.3f}: no score can do much better"
    say(
        table(columns, lines, f"{len(truth)} archs, ranked by {metric} of their own training", left=["predictor"]),
        several,
        warning(results),
        f"results in {run.path}",
    )
    return results


def _cells(of: Fidelity) -> dict[str, float]:
    named = {"tau": of.tau, "from": of.low, "to": of.high, "Spearman": of.spearman, "tau within bands": of.within}
    return {**named, **{f"regret of {k}": of.regret[k] for k in TOPS}}


def warning(results: Mapping[str, Any]) -> str:
    """Where size alone ranks better than the supernet does; empty where it does not."""
    taus = {name: f["tau"] for name, f in results["predictors"].items()}
    better = [f"{name} ({tau:.2f})" for name, tau in taus.items() if name in _SIZES and tau > taus[RATING]]
    return f"size ranks better than the supernet (tau {taus[RATING]:.2f}): {', '.join(better)}" if better else ""


def what_is_known(supernet: Path) -> str:
    """Of a search's end: how this supernet ranks, where that was found out."""
    path = supernet / KNOWN
    if not path.is_file():
        return ""
    results = read_json(path)
    if RATING not in FidelityFile.of(results, path).predictors:
        raise InputError(f"{path}: does not say how the supernet ranks; right would be to remove it")
    own = results["predictors"][RATING]
    says = f"this supernet ranks archs by tau {own['tau']:.2f} ({own['low']:.2f} to {own['high']:.2f})"
    return f"{says}, of {results['archs']} that were trained alone. {warning(results)}".strip()


def spread(space: Space, model: Any, count: int, seed: int, drawn: Sequence[Arch] | None = None) -> list[Arch]:
    """Canonical archs, one of every of `count` equally large bands of FLOPs.

    Parameters
    ----------
    drawn
        To take them from; by default random ones.
    """
    rng = random.Random(seed)
    pool = [space.canonical(space.sample(rng)) for _ in range(_DRAWN * count)] if drawn is None else drawn
    different = list({tuple(a.items()): a for a in pool}.values())
    if len(different) < count:
        raise InputError(f"--fidelity {count}: there are {len(different)} networks to choose from")
    order = np.argsort(model.batch(model.indices(different))["flops"], kind="stable")
    return [different[rng.choice(band.tolist())] for band in np.array_split(order, count)]


def read_truths(path: Path, space: Space, metric: str) -> dict[tuple[tuple[str, Any], ...], float]:
    """Canonical archs of a CSV (a column a label, and ``accuracy`` or the metric) to what they reach."""
    try:
        rows = read_csv(path)
    except (OSError, ValueError) as e:
        raise InputError(f"--truth {path}: cannot be read: {e}") from None
    wanted = next((c for c in (metric, "accuracy") if rows and c in rows[0]), None)
    if wanted is None:
        raise InputError(f"--truth {path}: right would be a column for each label of the space, and '{metric}'")
    found: dict[tuple[tuple[str, Any], ...], float] = {}
    for number, row in enumerate(rows, start=2):
        try:
            arch = space.canonical({k: v for k, v in row.items() if k in space.decisions})
            found[tuple(arch.items())] = reached = float(row[wanted])
            if not math.isfinite(reached):
                raise ValueError(f"{wanted} is {reached}, no finite number")
        except (InputError, ValueError, TypeError) as e:
            raise InputError(f"--truth {path}, line {number}: {e}") from None
    return found


def _done(path: Path) -> dict[str, dict[str, Any]]:
    """Arch to its row, of an earlier part of the run."""
    if not path.is_file():
        return {}
    try:
        rows = read_csv(path)
        return {r["arch"]: {k: v if k == "arch" else float(v) for k, v in r.items() if v} for r in rows}
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{path}: cannot be gone on with: {e}; right would be to remove it") from None


def _left(done: Mapping[str, dict[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    here = {row["arch"] for row in rows}
    return [row for arch, row in done.items() if arch not in here]


def _pictures(
    path: Path,
    metric: str,
    truth: np.ndarray,
    predictors: Mapping[str, np.ndarray],
    found: Mapping[str, Fidelity],
) -> None:
    """A scatter for each predictor: a .png, and a self-contained .html."""
    from plotly.subplots import make_subplots

    titles = [f"{name}: tau {found[name].tau:.2f}" for name in predictors]
    with picture(path.with_suffix(".png"), figsize=(3.4 * len(titles), 3.4), layout="tight") as figure:
        axes = figure.subplots(1, len(titles), squeeze=False, sharey=True)[0]
        for axis, title, score in zip(axes, titles, predictors.values(), strict=True):
            axis.scatter(score, truth, s=12)
            axis.set_title(title)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(f"{metric}, trained alone")
    page = make_subplots(1, len(titles), subplot_titles=[*map(html.escape, titles)], shared_yaxes=True)
    for i, (name, score) in enumerate(predictors.items(), start=1):
        page.add_scatter(
            x=score.tolist(), y=truth.tolist(), mode="markers", name=html.escape(name), showlegend=False, row=1, col=i
        )
    title = html.escape(f"{metric}, trained alone")
    page.update_layout(template="plotly_white").update_yaxes(title=title, row=1, col=1)
    with atomic(path.with_suffix(".html")) as temporary:
        page.write_html(temporary, include_plotlyjs=True, full_html=True)
