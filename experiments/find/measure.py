"""What this device makes of a handful of plain networks, and from it what is searched and how long it all takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.detector import Model
from models.errors import InputError
from models.grammar import read_config
from optimizer.exporters import export_onnx
from spaces import CostModel, Sizes, Space

from ..costs.limits import Limits, cheapest
from ..run.amounts import COSTS, written
from ..run.console import say
from ..run.device import device_of, synchronize
from ..run.tables import table
from .bases import Base, read_bases, with_sizes, write_yaml
from .costs import Costs
from .options import Options
from .phases import Job
from .plan import Paces, Plan

# Sides that are measured, as shares of the largest.
_LADDER = (1.0, 0.8, 0.65, 0.5, 0.4)
_TIMED = 4  # images of a step that is timed
# A training loads and augments images beside what it computes, and validates.
_BESIDE = 1.25
_MARGIN = 0.97
_FASTEST_SIDE = 0.5  # a plain network that only fits below this share of the side is no use


def measure(job: Job) -> dict[str, Any]:
    """Costs of the plain networks at several sides, the sides and the networks that are gone on with, and paces.

    Raises
    ------
    InputError
        A limit is below what the smallest network costs.
    """
    options, seen = job.options, job.results["look"]
    nc, imgsz = len(seen["names"]), seen["imgsz"]
    bases = read_bases(options, nc)
    measured: dict[str, dict[int, dict[str, float]]] = {}
    began = time.perf_counter()
    for base in bases:
        model = Model(read_config(base.raw, nc=nc))
        model.check_imgsz(imgsz)
        for side in options.sizes:
            model.check_imgsz(side)
        own = Space(base.space).decisions.get("resolution")
        sides = sorted({*(own.values if own else options.sizes)} or ladder(imgsz, model.imgsz_multiple), reverse=True)
        measured[base.name] = {side: Costs(job, base.raw, side, nc).of({}) for side in sides}
    told = (time.perf_counter() - began) / sum(map(len, measured.values()))
    limits = dict(options.limits)
    notes = []
    if not limits and options.min_map is None:
        first = measured[bases[0].name]
        limits = {"flops": first[max(first)]["flops"]}
        bases = bases[:1]
        notes.append(f"no limit was given: what is found has no more FLOPs than {bases[0].name} at {max(first)} pixels")
    aimed = aimed_at(limits)
    chosen = {b.name: choose_sides(measured[b.name], aimed) for b in bases}
    within = {n: side for n, (side, _) in chosen.items() if fits(measured[n][side], aimed)}
    # Where none keeps the limits, what is smallest has a space that comes nearest to them.
    bases = [b for b in bases if b.name in usable(within, imgsz)] or bases[:1]
    _print(measured, chosen, limits, [b.name for b in bases])
    for base in bases:
        side, sides = chosen[base.name]
        write_yaml(base.raw, job.path / "bases" / f"{base.name}.yaml")
        write_yaml(with_sizes(base.space, sides, side), job.path / "spaces" / f"{base.name}.yaml")
        smallest = check_limits(job, base, max(sides), nc, limits)
        notes.append(
            f"{base.name}: sides {', '.join(map(str, sides))}; the smallest network of its space: "
            + ", ".join(f"{COSTS[c]} {written(c, v)}" for c, v in smallest.items())
        )
    paces = paces_of(job, bases, chosen, nc, told if search_cost(options) == "latency" else 0.0)
    plan = Plan(job, paces, list(paces.seconds))
    say(*notes)
    plan.check()
    plan.say()
    return {
        "bases": [{"name": b.name, "weights": b.weights} for b in bases],
        "costs": measured,
        "side": {b.name: chosen[b.name][0] for b in bases},
        "sides": {b.name: chosen[b.name][1] for b in bases},
        "limits": limits,
        "notes": notes,
        "paces": asdict(paces),
    }


def search_cost(options: Options) -> str:
    """The cost beside mAP that the front is of."""
    return "latency" if options.max_latency is not None or not options.limits else next(iter(options.limits))


def ladder(imgsz: int, multiple: int) -> list[int]:
    """Sides from `imgsz` downwards, multiples of the stride."""
    return sorted({max(round(imgsz * f / multiple) * multiple, multiple) for f in _LADDER})


def aimed_at(limits: Mapping[str, float]) -> dict[str, float]:
    """Limits of what is searched and trained: a latency is measured again at the end, and two timings differ."""
    return {name: limit * (_MARGIN if name == "latency" else 1) for name, limit in limits.items()}


def fits(costs: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    """Whether nothing costs more than it may."""
    return all(costs[name] <= limit for name, limit in limits.items())


def choose_sides(measured: Mapping[int, Mapping[str, float]], limits: Mapping[str, float]) -> tuple[int, list[int]]:
    """The largest side at which a plain network keeps the limits, and those that are searched: it and its neighbours.

    Where it keeps them at none, the smallest: its space has networks that cost less.
    """
    sides = sorted(measured)
    within = [side for side in sides if fits(measured[side], limits)]
    at = sides.index(within[-1]) if within else 0
    return sides[at], sides[max(at - 1, 0) : at + 2]


def usable(sides: Mapping[str, int], imgsz: int) -> list[str]:
    """Of the networks that keep the limits those whose images are not far too small; one at least, of equals the first.

    Parameters
    ----------
    sides
        Name to the largest side at which it keeps them; without those that keep them at none.
    """
    kept = [name for name, side in sides.items() if side >= _FASTEST_SIDE * imgsz]
    return kept or [max(sides, key=lambda name: sides[name])] if sides else []


def check_limits(job: Job, base: Base, imgsz: int, nc: int, limits: Mapping[str, float]) -> dict[str, float]:
    """Costs of the smallest network of a space; `InputError` where even that is beyond a limit."""
    costs = Costs(job, job.path / "spaces" / f"{base.name}.yaml", imgsz, nc)
    counted = {f"max_{name}": limit for name, limit in limits.items() if name != "latency"}
    if counted:
        cheapest(costs.model, Limits(**counted))
    smallest = costs.of(Sizes(costs.model).smallest)
    if smallest["latency"] > aimed_at(limits).get("latency", float("inf")):
        raise InputError(
            f"--max-latency {written('latency', limits['latency'])}: the smallest network of the space around "
            f"{base.name} takes {written('latency', smallest['latency'])}, and {1 - _MARGIN:.0%} are kept off; "
            "right would be more, smaller --sizes, or a smaller network (--weights, --cfg)"
        )
    return smallest


def paces_of(
    job: Job, bases: Sequence[Base], chosen: Mapping[str, tuple[int, list[int]]], nc: int, told: float
) -> Paces:
    """Seconds of everything that is to come, from a step of each network on random images.

    Parameters
    ----------
    told
        Seconds that a latency takes to be told; 0 where the search asks for none.
    """
    options, images = job.options, job.results["look"]["images"]
    device = device_of(options.device)

    def seconds_of(raw: Mapping[str, Any], side: int) -> tuple[float, float]:
        return step_seconds(Model(read_config(raw, nc=nc)), side, min(options.batch, _TIMED), device)

    train = images["train"]
    alone, dear, rating, space_of = [], 0.0, 0.0, None
    for base in bases:
        side, sides = chosen[base.name]
        step, forward = seconds_of(base.raw, side)
        alone.append(_BESIDE * (train * step + images["val"] * forward))
        space = Space(job.path / "spaces" / f"{base.name}.yaml")
        sizes = Sizes(CostModel(space, max(sides)))
        steps = [seconds_of(space.freeze(arch), max(sides))[0] for arch in (sizes.largest, sizes.smallest)]
        # Two of the four subnets of a step are random ones, about as large as the plain network.
        sandwich = sum(steps) + 2 * seconds_of(base.raw, max(sides))[0]
        if sandwich > dear:
            dear, space_of, rating = sandwich, base, forward
    assert space_of is not None
    export = _export_seconds(space_of.raw, chosen[space_of.name][0], nc)
    finalists = min(options.finalists, 2) if options.quick else options.finalists
    seconds = {
        "baselines": sum(alone),
        "supernet": _BESIDE * 0.8 * train * dear,
        # Statistics of the batch norms are taken of some batches; latencies of two archs are asked for to rate one.
        "search": (0.2 * train + 8 * options.batch) * rating + 2 * told + 0.1,
        "finetune": sum(alone) + finalists * max(alone),
        "long": 2 * max(alone),
    }
    fixed = {
        "test": 2 * export + 4 * images["test"] * rating,
        "export": 2 * export + (20 * export if options.int8 else 0),
        "report": 10 + 2 * images["test"] * rating,
    }
    return Paces(
        {k: round(v, 4) for k, v in seconds.items()},
        {k: round(v, 2) for k, v in fixed.items()},
        equal=len(bases) if options.equal_time else 0,
    )


def _export_seconds(raw: Mapping[str, Any], side: int, nc: int) -> float:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(Model(read_config(raw, nc=nc)), Path(folder) / "a.onnx", side, batch=1)
    return time.perf_counter() - began


def step_seconds(model: Model, side: int, batch: int, device: str) -> tuple[float, float]:
    """Seconds an image of a step of training, and of an inference."""
    model = model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    loss = model.head.loss(side)
    images = torch.rand(batch, 3, side, side, device=device)
    targets = torch.tensor([[i, 0, 0.5, 0.5, 0.3, 0.3] for i in range(batch)], device=device)

    def step() -> None:
        loss(model(images), targets)[0].backward()

    def timed(run: Any) -> float:
        began = time.perf_counter()
        run()
        synchronize(device)
        return time.perf_counter() - began

    timed(step)
    trained = min(timed(step) for _ in range(2))
    model.eval()
    with torch.inference_mode():
        timed(lambda: model(images))
        inferred = timed(lambda: model(images))
    return trained / batch, inferred / batch


def _print(
    measured: Mapping[str, Mapping[int, Mapping[str, float]]],
    chosen: Mapping[str, tuple[int, list[int]]],
    limits: Mapping[str, float],
    kept: Sequence[str],
) -> None:
    rows = []
    for name, by_side in measured.items():
        for side, costs in sorted(by_side.items(), reverse=True):
            here = name in kept and side in chosen[name][1]
            said = "searched around" if here else ""
            if not fits(costs, limits):
                said = f"{said}{', ' if said else ''}beyond the limit"
            rows.append([name, str(side), *(written(c, costs[c]) for c in ("latency", "flops", "params")), said])
    say(
        table(
            ["plain network", "pixels", "latency", "FLOPs", "parameters", ""],
            rows,
            "as exported",
            left=["plain network", ""],
        )
    )
