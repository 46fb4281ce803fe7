"""Rules by which the decisions of one kind (widths, kernels, …) are drawn together, row by row.

Decisions of one kind in one row, which is a stage of the network, are a *group*. An index is a value's rank by cost
(`spaces.Sizes`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from models.errors import InputError
from spaces.space import Arch


class Group(NamedTuple):
    """The decisions of one kind in one row, which have the same values, in the order of their cost."""

    row: int | None
    labels: tuple[str, ...]
    values: tuple[Any, ...]


# Row to the index of its depth and how many depths it has; empty while depths themselves are decided.
Depths = Mapping[int | None, tuple[int, int]]


class Rule:
    """How the groups of one kind are decided, given in the order of rows."""

    # Whether the rule is for the backbone only; in the neck, which goes up and down, it is `StageWise` then.
    of_backbone = False

    def __call__(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> Arch:
        """Label to value."""
        indices = self.indices(rng, groups, depth)
        return {label: g.values[i] for g, i in zip(groups, indices, strict=True) for label in g.labels}

    def indices(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> list[int]:
        """One index a group."""
        raise NotImplementedError

    def check(self, kind: str, groups: Sequence[Group]) -> None:
        """`InputError` where the rule is not one for these groups."""


class BlockWise(Rule):
    """Every decision alone."""

    def __call__(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> Arch:
        return {label: rng.choice(group.values) for group in groups for label in group.labels}


class StageWise(Rule):
    """One value for all blocks of a row."""

    def indices(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> list[int]:
        return [rng.randrange(len(g.values)) for g in groups]


class StageWiseDepth(Rule):
    """The index of the row's depth, where there are as many values as depths; else as `StageWise`."""

    def indices(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> list[int]:
        found = []
        for group in groups:
            index, count = depth.get(group.row, (0, 0))
            found.append(index if count == len(group.values) else rng.randrange(len(group.values)))
        return found


class Coupled(Rule):
    """The deeper the wider (CompOFA, Sahni et al. 2021, arXiv:2104.12642, section 3.1).

    The index is as far up as the row's depth is; in rows without a choice of depth as `StageWise`.
    """

    def indices(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> list[int]:
        found = []
        for group in groups:
            last = len(group.values) - 1
            index, count = depth.get(group.row, (0, 0))
            found.append(round(index / (count - 1) * last) if count > 1 else rng.randrange(last + 1))
        return found


class OrderedStageWise(Rule):
    """One value for a row, `low` to `high` times that of the row before: uniformly of those that leave a way on."""

    of_backbone = True

    def __init__(self, low: float = 1.0, high: float = math.inf) -> None:
        self.low, self.high = low, high

    def _ways(self, groups: Sequence[Group]) -> list[list[int]]:
        """Of each group the indices from which there is a way through all that follow."""
        ways: list[list[int]] = [list(range(len(groups[-1].values)))] if groups else []
        for group, after in zip(groups[-2::-1], groups[:0:-1], strict=True):
            onward = [after.values[j] for j in ways[0]]
            ways.insert(0, [i for i, v in enumerate(group.values) if any(self._follows(v, w) for w in onward)])
        return ways

    def _follows(self, before: float, value: float) -> bool:
        return self.low * before <= value <= self.high * before

    def check(self, kind: str, groups: Sequence[Group]) -> None:
        if any(not isinstance(v, (int, float)) for g in groups for v in g.values):
            raise InputError(f"--sampler: '{kind}' has values that are no numbers, and so no order")
        if groups and not self._ways(groups)[0]:
            raise InputError(f"--sampler: no values of '{kind}' rise by {self.low:g} to {self.high:g} from row to row")

    def indices(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> list[int]:
        found: list[int] = []
        for i, (group, ways) in enumerate(zip(groups, self._ways(groups), strict=True)):
            before = groups[i - 1].values[found[-1]] if found else None
            found.append(rng.choice([j for j in ways if before is None or self._follows(before, group.values[j])]))
        return found


class NetWise(Rule):
    """One value for the whole network, of those that all groups with a choice have."""

    @staticmethod
    def _common(groups: Sequence[Group]) -> list[Any]:
        open_groups = [g.values for g in groups if len(g.values) > 1] or [g.values for g in groups[:1]]
        return [v for v in open_groups[0] if all(v in values for values in open_groups)]

    def check(self, kind: str, groups: Sequence[Group]) -> None:
        if not self._common(groups):
            raise InputError(
                f"--sampler: the decisions on '{kind}' have no value in common for net_wise; net_wise_index takes the "
                "same index of each"
            )

    def indices(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> list[int]:
        value = rng.choice(self._common(groups))
        return [g.values.index(value) if len(g.values) > 1 else 0 for g in groups]


class NetWiseIndex(Rule):
    """One index for the whole network."""

    def check(self, kind: str, groups: Sequence[Group]) -> None:
        counts = {len(g.values) for g in groups} - {1}
        if len(counts) > 1:
            raise InputError(
                f"--sampler: the decisions on '{kind}' have {' or '.join(map(str, sorted(counts)))} values, and "
                "net_wise_index takes the same index of each"
            )

    def indices(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> list[int]:
        index = rng.randrange(max(len(g.values) for g in groups))
        return [min(index, len(g.values) - 1) for g in groups]


class Middle(Rule):
    """The middle value of each decision, the smaller one of two."""

    def indices(self, rng: random.Random, groups: Sequence[Group], depth: Depths) -> list[int]:
        return [(len(g.values) - 1) // 2 for g in groups]


RULES: dict[str, Callable[..., Rule]] = {
    "block_wise": BlockWise,
    "stage_wise": StageWise,
    "stage_wise_depth": StageWiseDepth,
    "ordered_stage_wise": OrderedStageWise,
    "net_wise": NetWise,
    "net_wise_index": NetWiseIndex,
    "middle": Middle,
    "coupled": Coupled,
}
