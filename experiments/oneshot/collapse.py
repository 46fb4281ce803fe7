"""Signs that a search has collapsed: into identities, or into the cheapest of everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spaces import CostModel, Space

# By chance a third of the activations is Identity, and a third to a half of the other decisions the cheapest.
_IDENTITY, _CHEAPEST = 0.6, 0.8


def collapse(space: Space, model: CostModel, arch: Mapping[str, Any]) -> list[str]:
    """A line for each sign, none if all is well."""
    found = []
    chosen = {label: space.decisions[label].name(value) for label, value in arch.items()}
    with_identity = [label for label, d in space.decisions.items() if any("Identity" in d.name(v) for v in d.values)]
    identities = [label for label in with_identity if "Identity" in chosen[label]]
    if with_identity and len(identities) >= _IDENTITY * len(with_identity):
        found.append(f"{len(identities)} of {len(with_identity)} choices with an Identity took it")
    flops = {
        label: [model.of({**arch, label: value})["flops"] for value in d.values] for label, d in space.decisions.items()
    }
    costly = [label for label, costs in flops.items() if min(costs) < max(costs)]
    cheapest = [
        label for label in costly if flops[label][space.decisions[label].values.index(arch[label])] == min(flops[label])
    ]
    if costly and len(cheapest) >= _CHEAPEST * len(costly):
        found.append(f"{len(cheapest)} of {len(costly)} choices that differ in FLOPs took the cheapest")
    return found
