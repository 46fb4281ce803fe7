"""Which archs can be asked for: those of a space whose costs lie in given ranges."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from models.errors import InputError
from spaces.choices import Decision
from spaces.space import Arch

from ..costs import CostProvider, Counted
from ..costs.ranges import Range

Indices = tuple[int, ...]
"""An arch as the position of every decision's value."""

_DRAWS, _BATCH = 512, 16
_STEPS, _NEIGHBOURS, _RESTARTS = 200, 64, 8
# A space of no more archs is gone through one by one before it is said to have no more.
_SMALL = 20_000
# Distance of an arch in a range that was not looked at, since it is outside of another: farther than any.
_UNKNOWN = 1e6


class Domain:
    """Decisions, costs, and the ranges that costs have to lie in.

    Parameters
    ----------
    decisions
        Label to decision.
    providers
        Of every cost that is to be known.
    ranges
        Of some of them.
    groups
        Label to a name that decisions of one kind share, such as ``k`` of all kernels; by default each is its own.
    ranked
        Label to the decision's values from the cheapest to the dearest; as in the space by default.
    allows
        Whether each of several archs may be evaluated at all; it is asked once for every arch, after the ranges.
    known
        Archs that may be evaluated. Where draws find none, others near them are looked for.
    canonical
        Arch to the one that stands for all that are the same network (`Space.canonical`); by default each is its own.

    Attributes
    ----------
    values, sizes
        Of each decision, in the order that `Indices` mean.
    allowed
        What `allows` has said.

    Raises
    ------
    InputError
        If a range is of a cost that no provider tells.
    """

    def __init__(
        self,
        decisions: Mapping[str, Decision],
        providers: Sequence[CostProvider] = (),
        ranges: Sequence[Range] = (),
        groups: Mapping[str, str] | None = None,
        ranked: Mapping[str, Sequence[Any]] | None = None,
        allows: Callable[[Sequence[Indices]], Sequence[bool]] | None = None,
        known: Sequence[Indices] = (),
        canonical: Callable[[Arch], Arch] | None = None,
    ) -> None:
        self.decisions = dict(decisions)
        self.providers = {p.name: p for p in providers}
        self.ranges = tuple(sorted(ranges, key=lambda r: not isinstance(self.providers.get(r.name), Counted)))
        self.groups = {label: (groups or {}).get(label, label) for label in decisions}
        self.labels = tuple(decisions)
        self.values = tuple(tuple((ranked or {}).get(label, d.values)) for label, d in decisions.items())
        self.sizes = tuple(map(len, self.values))
        self._index = [{v: i for i, v in enumerate(values)} for values in self.values]
        self.allows, self.known, self._canonical = allows, tuple(known), canonical
        self.allowed: dict[Indices, bool] = {}
        self._rare = False  # archs that may be evaluated are so rare that draws do not find them
        self._known: dict[str, dict[Indices, float]] = {name: {} for name in self.providers}
        for r in self.ranges:
            if r.name not in self.providers:
                raise InputError(f"--range {r.name}: no such cost; there are {', '.join(self.providers) or 'none'}")

    def arch(self, indices: Indices) -> Arch:
        """``{label: value}``."""
        return {label: values[i] for label, values, i in zip(self.labels, self.values, indices, strict=True)}

    def indices(self, arch: Mapping[str, Any]) -> Indices:
        """Of an arch that has every label."""
        return tuple(index[arch[label]] for label, index in zip(self.labels, self._index, strict=True))

    def canonical(self, indices: Indices) -> Indices:
        """The arch that is asked for in place of all that are the same network."""
        return indices if self._canonical is None else self.indices(self._canonical(self.arch(indices)))

    def cost(self, name: str, archs: Sequence[Indices]) -> list[float]:
        """One cost of each arch; asked of its provider once."""
        known = self._known[name]
        if missing := [a for a in dict.fromkeys(archs) if a not in known]:
            provider = self.providers[name]
            costs = [float(cost) for cost in provider([self.arch(a) for a in missing])]
            if getattr(provider, "unit", "") == "ms" and any(cost < 0 for cost in costs):
                raise InputError(f"{name}: its provider tells {min(costs):g} ms of an arch, and no time is less than 0")
            known.update(zip(missing, costs, strict=True))
        return [known[a] for a in archs]

    def costs(self, arch: Indices) -> dict[str, float]:
        """Every cost of one arch."""
        return {name: self.cost(name, [arch])[0] for name in self.providers}

    def outside(self, archs: Sequence[Indices]) -> list[float]:
        """How far each arch is outside of the ranges; 0 where it may be evaluated.

        Counted costs are looked at first: no other is asked of an arch that is outside of their ranges.
        """
        total = [0.0] * len(archs)
        for r in self.ranges:
            within = [a for a, t in zip(archs, total, strict=True) if not t]
            if not within:
                return [t + _UNKNOWN for t in total]
            costs = dict(zip(within, self.cost(r.name, within), strict=True))
            total = [r.distance(costs[a]) if not t else t + _UNKNOWN for a, t in zip(archs, total, strict=True)]
        if self.allows is None:
            return total
        within = [a for a, t in zip(archs, total, strict=True) if not t and a not in self.allowed]
        if within := list(dict.fromkeys(within)):
            self.allowed.update(zip(within, self.allows(within), strict=True))
        return [t or (0.0 if self.allowed[a] else 1.0) for a, t in zip(archs, total, strict=True)]

    def feasible(self, arch: Indices) -> bool:
        return not self.outside([arch])[0]

    def draw(self, rng: random.Random) -> Indices | None:
        """A feasible arch, each with the same probability where they are not rare; None if none was found."""
        counted = all(isinstance(self.providers[r.name], Counted) for r in self.ranges)
        batch = _BATCH if self.ranges and counted and not self.allows else 1
        for _ in range(0 if self._rare else _DRAWS // batch):
            archs = [self._any(rng) for _ in range(batch)]
            for arch, outside in zip(archs, self.outside(archs), strict=True):
                if not outside:
                    return arch
        self._rare = bool(self.known)
        return self.settle(self._any(rng) if self._rare else archs[0], (), rng)

    def mutate(self, arch: Indices, rng: random.Random, probability: float | None = None) -> Indices:
        """`arch` with other values in decisions drawn with `probability`, in one at least; by default in just one."""
        free = [i for i, n in enumerate(self.sizes) if n > 1]
        changed = [i for i in free if probability is not None and rng.random() < probability]
        child = list(arch)
        for i in changed or (free and [rng.choice(free)]):
            # Any value but the present one.
            child[i] = (child[i] + rng.randrange(1, self.sizes[i])) % self.sizes[i]
        return tuple(child)

    def settle(self, arch: Indices, seen: Collection[Indices], rng: random.Random) -> Indices | None:
        """The feasible arch near `arch` that is not among `seen`; None if there is none, as far as could be found."""
        start, near = arch, [*self.known, *(sorted(seen) if self.known else ())]
        for _ in range(_RESTARTS):
            found = self._descend(start, rng)
            if found is not None and (found := self._step_aside(found, seen, rng)) is not None:
                return found
            start = rng.choice(near) if near else self._any(rng)
        if math.prod(self.sizes) > _SMALL:
            return None
        everything: Iterable[Indices] = itertools.product(*map(range, self.sizes))
        left = [a for a in everything if a not in seen and a == self.canonical(a)]
        return next((a for a, outside in zip(left, self.outside(left), strict=True) if not outside), None)

    def _any(self, rng: random.Random) -> Indices:
        return tuple(rng.randrange(n) for n in self.sizes)

    def _descend(self, arch: Indices, rng: random.Random) -> Indices | None:
        """By the change of one decision that leads nearest to the ranges, again and again."""
        outside = self.outside([arch])[0]
        for _ in range(_STEPS):
            if not outside:
                return arch
            near = [self.mutate(arch, rng, None if i % 2 else 1.5 / len(arch)) for i in range(_NEIGHBOURS)]
            least, best = min(zip(self.outside(near), near, strict=True))
            if least < outside:
                outside, arch = least, best
            elif self.allows is not None:  # which says no, but not by how much
                return None
        return None

    def _step_aside(self, arch: Indices, seen: Collection[Indices], rng: random.Random) -> Indices | None:
        """A feasible arch that is not among `seen`, in as few changes as they take."""
        if (arch := self.canonical(arch)) not in seen:
            return arch
        for changes in range(1, len(arch) + 1):
            near = [self.mutate(arch, rng, None if changes == 1 else changes / len(arch)) for _ in range(_NEIGHBOURS)]
            near = [a for a in map(self.canonical, near) if a not in seen]
            for a, outside in zip(near, self.outside(near), strict=True):
                if not outside:
                    return a
        return None
