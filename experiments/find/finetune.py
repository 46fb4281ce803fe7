"""The best archs and the plain networks of equal cost, finetuned alike, exported, timed, and one of them chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.complexity import count_flops, count_params
from models.upstream import load_weights
from optimizer.exporters import export_onnx

from ..costs.timing import torch_threads
from ..inference.speed import milliseconds
from ..supernets.subnets import cut_out, open_supernet
from ..tasks.resize import resolution_of
from ..training.engine import FINETUNE
from .choice import Candidate, Choice, choose
from .phases import Job
from .plan import duration, plan_of, searching_seconds
from .train import train, validated

# All begin with trained weights: a tenth of the usual rate, as a slice of a supernet takes.
_RATE = 0.01 * FINETUNE


def finetune(job: Job) -> dict[str, Any]:
    """Finetune the finalists and the plain networks for as many epochs, from weights that were trained."""
    epochs = plan_of(job).decide("finetune")
    starts = {**_plain(job), **_searched(job)}
    found = {}
    for name, start in starts.items():
        job.note(f"finetuning {name} at {start['side']} pixels, {epochs} epochs")
        found[name] = start | _finetuned(job, name, start, epochs)
    return {"candidates": found, "epochs": epochs}


def long(job: Job) -> dict[str, Any]:
    """The best searched and the best plain network, each trained on for as many epochs at the recipe's own rate.

    Finetuning shows which of its kind is the best; what that can reach it shows only when it is trained for long.
    """
    candidates, epochs = job.results["finetune"]["candidates"], plan_of(job).decide("long")
    found: dict[str, Any] = {}
    for kind in ("plain", "searched"):
        of_kind = {name: c for name, c in candidates.items() if c["kind"] == kind}
        if not of_kind:
            continue
        name = promising(of_kind, job.options.min_map)
        start = of_kind[name]
        job.note(f"training {name} on at {start['side']} pixels, {epochs} epochs")
        weights = str(job.path / start["weights"])
        given: dict[str, Any] = {"weights": weights, "imgsz": start["side"], "epochs": epochs, "autoanchor": False}
        trained = train(job, ("finalists", f"{name}-on"), **given)
        found[name] = start | _kept(trained, {"before": start["map50_95"]}, start["weights"])
    return {"candidates": found, "epochs": epochs}


def promising(candidates: Mapping[str, Mapping[str, Any]], min_map: float | None) -> str:
    """The best on the validation images; with `min_map` the fastest that has it, where one does."""
    good = [n for n, c in candidates.items() if min_map is not None and c["map50_95"] >= min_map]
    if good:
        return min(good, key=lambda n: candidates[n]["told"] or 0.0)
    return max(candidates, key=lambda n: candidates[n]["map50_95"])


def equal(job: Job) -> dict[str, Any]:
    """Each plain network, trained on for as long as all from the supernet to here took together."""
    if not job.options.equal_time:
        return {}
    seconds, found = searching_seconds(job), {}
    for base, network in job.results["baselines"]["networks"].items():
        # Of what is done alone, and so the same after an interruption.
        epoch = 60 * max(network["minutes"], 0.01) / network["epochs"]  # minutes are rounded to a hundredth
        epochs = max(round(seconds / epoch), 1)
        job.note(f"plain {base} for as long as all since the baselines took, {duration(seconds)}: {epochs} epochs")
        weights = str(job.path / network["weights"])
        trained = train(job, ("finalists", f"{base}-equal"), weights=weights, imgsz=network["side"], epochs=epochs)
        start = {"kind": "plain", "base": base, "side": network["side"], "before": network["map50_95"]}
        found[f"{base}-equal"] = start | _kept(trained, start, network["weights"])
    return {"candidates": found}


def decide(job: Job) -> dict[str, Any]:
    """Export all candidates, time the files, and choose by the validation images alone."""
    phases = ("finetune", "long", "equal")
    found = {name: c for phase in phases for name, c in job.results[phase].get("candidates", {}).items()}
    for name, candidate in found.items():
        model, content = load_weights(job.path / candidate["weights"])
        file = job.path / "finalists" / f"{name}.onnx"
        export_onnx(model, file, candidate["side"], batch=1, arch=content.get("arch"))
        candidate["onnx"] = str(file.relative_to(job.path))
        candidate["params"] = count_params(model)
        candidate["flops"] = count_flops(model, candidate["side"], model.config.ch)
    _time(job, found)
    candidates = [
        Candidate(name, c["kind"] == "plain", c["map50_95"], {k: c[k] for k in ("latency", "flops", "params")})
        for name, c in found.items()
    ]
    limits, min_map = job.results["measure"]["limits"], job.options.min_map
    chosen = choose(candidates, limits, min_map)
    job.note(chosen.said)
    return {
        "candidates": found,
        "chosen": chosen.name,
        "plain": chosen.plain,
        "rival": chosen.rival,
        "said": chosen.said,
    }


def _plain(job: Job) -> dict[str, dict[str, Any]]:
    """Every plain network at the side at which it keeps the limits."""
    return {
        name: {
            "kind": "plain",
            "base": name,
            "side": n["side"],
            "start": n["weights"],
            "before": n["map50_95"],
            "told": job.results["measure"]["costs"][name][str(n["side"])]["latency"],
        }
        for name, n in job.results["baselines"]["networks"].items()
    }


def _searched(job: Job) -> dict[str, dict[str, Any]]:
    """The finalists, cut out of the supernet where they are not yet."""
    folder = job.path / "supernet"
    opened = None
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(job.results["search"]["finalists"], start=1):
        name = f"searched{number}"
        file = job.path / "finalists" / "slices" / f"{name}.pt"
        if not file.is_file():
            opened = opened or open_supernet(folder, job.options.device)
            network = opened.task.calibrated(cut_out(opened.supernet.cpu(), opened.task, row["arch"]))
            opened.task.hand_over(network, file.parent, row["arch"], name, is_slice=True)
        model, content = load_weights(file)
        side = resolution_of(model, content["imgsz"])
        weights = str(file.relative_to(job.path))
        base = job.results["baselines"]["chosen"]
        found[name] = {
            **{"kind": "searched", "base": base, "side": side, "start": weights, "rated": row["rated"]},
            **{"told": row.get("latency"), "arch": row["arch"], "trial": row["trial"]},
            "before": validated(job, weights, side)["map50_95"],
        }
    return found


def _finetuned(job: Job, name: str, start: dict[str, Any], epochs: int) -> dict[str, Any]:
    trained = train(
        job,
        ("finalists", name),
        weights=str(job.path / start["start"]),
        imgsz=start["side"],
        epochs=epochs,
        lr0=_RATE,
        autoanchor=False,
    )
    return _kept(trained, start, start["start"])


def _kept(trained: dict[str, Any], start: dict[str, Any], weights: str) -> dict[str, Any]:
    """What training made of a network, or what it was before where that was better on the validation images."""
    if trained["map50_95"] >= start["before"]:
        return trained
    return {**trained, "map50_95": start["before"], "weights": weights}


def _time(job: Job, found: dict[str, Any]) -> None:
    """Milliseconds of the files that are handed over; of a device elsewhere, as it told them of the same archs."""
    if job.options.costs is not None:
        for candidate in found.values():
            plain = job.results["measure"]["costs"][candidate["base"]][str(candidate["side"])]["latency"]
            candidate["latency"] = plain if candidate["kind"] == "plain" else candidate["told"]
        missing = [c for c in found.values() if c["latency"] is None]
        _tell(job, missing)
        return
    import torch

    with torch_threads(job.options.threads or torch.get_num_threads()):
        times = milliseconds([job.path / c["onnx"] for c in found.values()])
    for candidate, (median, ninety) in zip(found.values(), times, strict=True):
        candidate["latency"], candidate["latency_90"] = round(median, 4), round(ninety, 4)


def _tell(job: Job, missing: list[dict[str, Any]]) -> None:
    """Ask for latencies that a search by other costs did not ask for."""
    from .costs import Costs

    for candidate in missing:
        sides = job.results["measure"]["sides"][candidate["base"]]
        space = job.path / "spaces" / f"{candidate['base']}.yaml"
        costs = Costs(job, space, max(sides), len(job.results["look"]["names"]))
        candidate["latency"] = costs.of(candidate["arch"])["latency"]


__all__ = ["Choice", "decide", "equal", "finetune", "long", "promising"]
