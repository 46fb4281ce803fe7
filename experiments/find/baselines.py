"""Plain networks, trained on these pictures: what a search has to beat, and what its supernet begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .phases import Job
from .plan import plan_of
from .train import train, validated


def baselines(job: Job) -> dict[str, Any]:
    """Train each plain network at the side that it is used at, and measure it at the others too."""
    found = job.results["measure"]
    epochs = plan_of(job).decide("baselines")
    networks: dict[str, Any] = {}
    for base in found["bases"]:
        name, side = base["name"], found["side"][base["name"]]
        job.note(f"plain {name} at {side} pixels, {epochs} epochs")
        cfg = str(job.path / "bases" / f"{name}.yaml")
        trained = train(job, ("baselines", name), cfg=cfg, weights=base["weights"], imgsz=side, epochs=epochs)
        at = {str(side): trained["map50_95"]}
        for other in found["sides"][name]:
            if other != side:
                at[str(other)] = validated(job, trained["weights"], other)["map50_95"]
        networks[name] = {**trained, "side": side, "at": at}
    chosen = begins(networks, found["costs"], found["limits"], job.options.min_map)
    if still_learning(networks[chosen]):
        job.note(
            f"{chosen} was still learning when its {epochs} epochs were over: more --hours, or --weights that are "
            "trained, may bring more than the search does"
        )
    if len(networks) > 1:
        job.note(f"the search begins with {chosen}")
    return {"networks": networks, "chosen": chosen}


def still_learning(network: Mapping[str, Any]) -> bool:
    """Whether the best epoch of a training is among its last tenth, so that more of them would have been better."""
    return bool(network["best_epoch"] > 0.9 * network["epochs"])


def begins(
    networks: Mapping[str, Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, Mapping[str, float]]],
    limits: Mapping[str, float],
    min_map: float | None,
) -> str:
    """The network whose space is searched: the best of those within the limits; the fastest that has `min_map`."""

    def cost(name: str) -> Mapping[str, float]:
        return costs[name][str(networks[name]["side"])]

    within = [n for n in networks if all(cost(n)[c] <= limit for c, limit in limits.items())] or list(networks)
    if min_map is not None:
        good = [n for n in within if networks[n]["map50_95"] >= min_map]
        if good:
            return min(good, key=lambda n: cost(n)["latency"])
    return max(within, key=lambda n: networks[n]["map50_95"])
