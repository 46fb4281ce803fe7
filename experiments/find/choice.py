"""Which network is handed over: by validation images and costs alone, before a test image is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..run.amounts import COSTS, written

# Of mAP50-95 on validation images; benchmarks/heads.md has seeds of one network farther apart than that.
EQUAL = 0.005


@dataclass(frozen=True)
class Candidate:
    """A network that was trained; `costs` by name, `map50_95` on the validation images."""

    name: str
    is_plain: bool
    map50_95: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes
    ----------
    name
        Of the network that is handed over.
    plain
        The best plain one within the limits, or the cheapest where none is.
    rival
        What the chosen one is compared with on the test images: the plain one, or the best searched where it is that.
    said
        Why, in a sentence.
    """

    name: str
    plain: str
    rival: str | None
    said: str


def choose(candidates: Sequence[Candidate], limits: Mapping[str, float], min_map: float | None = None) -> Choice:
    """The best within the limits, of equals the cheapest; with `min_map` the fastest that has it.

    Networks are equals whose mAP is not `EQUAL` below the best one's. Of as cheap ones the plain one is taken.
    """
    within = [c for c in candidates if _keeps(c, limits)]
    pool = within or [min(candidates, key=lambda c: max(c.costs[n] / limit for n, limit in limits.items()))]
    good = [c for c in pool if min_map is None or c.map50_95 >= min_map]
    by_speed = min_map is not None and bool(good)

    def order(c: Candidate) -> tuple[float, bool]:
        return c.costs["latency"], not c.is_plain

    by_map = sorted(good or pool, key=lambda c: (-c.map50_95, not c.is_plain))
    equals = by_map if by_speed else [c for c in by_map if by_map[0].map50_95 - c.map50_95 < EQUAL]
    ranked = sorted(equals, key=order) + [c for c in by_map if c not in equals]
    plains = [c for c in ranked if c.is_plain] or [c for c in pool if c.is_plain]
    plain = plains[0] if plains else min((c for c in candidates if c.is_plain), key=lambda c: c.costs["latency"])
    best = ranked[0]
    searched = [c for c in ranked if not c.is_plain]
    rival = plain if best is not plain else searched[0] if searched else None
    said = _said(best, plain, rival, limits, min_map, pool, within)
    return Choice(best.name, plain.name, rival.name if rival else None, said)


def _keeps(c: Candidate, limits: Mapping[str, float]) -> bool:
    return all(c.costs[n] <= limit for n, limit in limits.items())


def _said(
    best: Candidate,
    plain: Candidate,
    rival: Candidate | None,
    limits: Mapping[str, float],
    min_map: float | None,
    pool: Sequence[Candidate],
    within: Sequence[Candidate],
) -> str:
    bounds = ", ".join(f"{COSTS[n]} {written(n, limit)}" for n, limit in limits.items())
    if not within:
        return f"none of what was trained keeps {bounds}, measured again; {best.name} is the nearest"
    if min_map is not None and all(c.map50_95 < min_map for c in pool):
        return f"none of what was trained has mAP50-95 {min_map:g} on the validation images; {best.name} is the best"
    latency = written("latency", best.costs["latency"])
    what = f"on the validation images, mAP50-95: {best.name} {best.map50_95:.3f} at {latency}"
    if rival is None:
        return what
    other = f"{rival.name} {rival.map50_95:.3f} at {written('latency', rival.costs['latency'])}"
    if best.is_plain:
        return f"no searched network beats the plain one at that cost; the plain one is handed over. {what}, {other}"
    kept = "" if plain in pool else f" (no plain network keeps {bounds})"
    return f"{what}, plain {other}{kept}"
