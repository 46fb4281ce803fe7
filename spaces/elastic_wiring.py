"""How elastic rows feed one another, and what is refused before they are trained."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.grammar import Row
from models.registry import check_channels

from .active import Mixture
from .elastic_plan import NO_IDENTITY, ElasticSpec, Layouts, Plan, greatest, identities
from .elastic_trace import Layout
from .space import Space

_WIDTHS = ("in_channels", "out_channels", "in_features", "out_features", "num_features", "groups", "embed_dim")


class Wiring:
    """Which elastic row is fed by which rows; one for all copies of a supernet.

    Attributes
    ----------
    values
        Label to the values of the decision.
    widest
        Row, -1 for the network's input, to the runs of its output at its widest.
    specs
        The elastic rows.
    """

    def __init__(self, space: Space) -> None:
        self.values = {label: decision.values for label, decision in space.decisions.items()}
        # Every decision at its greatest value, as an index.
        self.start = {label: values.index(greatest(values)) for label, values in self.values.items()}
        self.widest: dict[int, Layout] = {-1: (space.config.ch,)}
        self.specs: dict[int, ElasticSpec] = {}
        # Labels that move the width of a row's output.
        self.moved_by: dict[int, list[str]] = {-1: []}
        # Of rows that give a list of maps, how many.
        self.maps: dict[int, int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Wiring:
        return self

    def inputs(self, row: Row) -> Layouts:
        return tuple(self.widest[j] for j in row.sources)

    def is_fed_elastic(self, row: Row) -> bool:
        """Whether the width of a row's input is open."""
        return any(self.moved_by[j] for j in row.sources)

    def add_plain(self, row: Row, c_out: int) -> None:
        self.widest[row.index], self.moved_by[row.index] = (c_out,), []

    def add(self, spec: ElasticSpec) -> None:
        index = spec.row.index
        self.specs[index], self.widest[index] = spec, spec.layout
        self.moved_by[index] = []
        self.maps[index] = Check(spec, self).maps

    def layouts(self, active: Mapping[str, int | Mixture], rows: Sequence[int] | None = None) -> dict[int, Layout]:
        """Row to the runs of its output at what is active, of a mixture, the widest; up to the last of `rows`."""
        found = dict(self.widest)
        for index, spec in self.specs.items():
            if rows is not None and index > max(rows):
                break
            inputs = tuple(found[j] for j in spec.row.sources)
            choices = [(s,) if isinstance(s := active[label], int) else s.paths for label in spec.labels]
            plans = [spec.plan(setting, inputs) for setting in itertools.product(*choices)]
            found[index] = widest_of([plan.layout for plan in plans])
        return found


class Check:
    """Refuses a row with settings that do not fit together, by looking at any two of the decisions that move widths."""

    def __init__(self, spec: ElasticSpec, wiring: Wiring) -> None:
        self.spec, self.wiring, self.row = spec, wiring, spec.row
        self.seen: set[Plan] = set()
        self.shortcuts: dict[str, bool] = {}
        self.size: tuple[int, ...] = ()
        self.maps = 0
        switches = [v for values in spec.places.values() for v in values if isinstance(v, bool)]
        self.shortcut_is_a_choice = bool(switches)
        of_inputs = (label for j in self.row.sources for label in wiring.moved_by[j])
        labels = dict.fromkeys([*spec.labels, *of_inputs])
        moving = [label for label in labels if self._moves(label)]
        for a, b in itertools.combinations(moving, 2):
            for i, j in itertools.product(*(range(len(wiring.values[label])) for label in (a, b))):
                self._at({a: i, b: j})

    def _moves(self, label: str) -> bool:
        """Whether a decision moves widths in the row. All its values are looked at."""
        plans = [self._at({label: i}) for i in range(len(self.wiring.values[label]))]
        if len({plan.layout for plan in plans}) > 1:
            self.wiring.moved_by[self.row.index].append(label)
        seen: dict[tuple[str, str], Any] = {}
        return any(
            seen.setdefault((name, key), value) != value
            for plan in plans
            for name, module in plan.block.named_modules()
            for key, value in vars(module).items()
            if key in _WIDTHS
        )

    def _at(self, changed: dict[str, int]) -> Plan:
        active = {**self.wiring.start, **changed}
        layouts = self.wiring.layouts(active, self.row.sources)
        inputs = tuple(layouts[j] for j in self.row.sources)
        setting = tuple(active[label] for label in self.spec.labels)
        plan, where = self.spec.plan(setting, inputs), self.spec.describe(setting, inputs)
        if plan in self.seen:
            return plan
        self.seen.add(plan)
        try:
            output = self.spec.dry_run(plan, inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as e:
            raise self.row.error(f"at {where}: {str(e).splitlines()[0]}") from None
        check_channels(self.row, getattr(output, "shape", ()), sum(plan.layout))
        size = tuple(output.shape[2:]) if isinstance(output, Tensor) else ()
        self.maps = len(output) if isinstance(output, list) else 0
        self.size = self.size or size
        if size and size != self.size:
            raise self.row.error(
                f"at {where}: of a map of 64 x 64 it makes {' x '.join(map(str, size))}, and elsewhere "
                f"{' x '.join(map(str, self.size))}: stride and padding must give all settings one size"
            )
        for name, there in identities(plan.block, plan.names).items():
            if not self.shortcut_is_a_choice and self.shortcuts.setdefault(name, there) != there:
                raise self.row.error(f"at {where}: {NO_IDENTITY}")
        return plan


def widest_of(layouts: Sequence[Layout]) -> Layout:
    """Runs that hold those of every layout."""
    if len({len(layout) for layout in layouts}) > 1:
        return (max(map(sum, layouts)),)
    return tuple(map(max, zip(*layouts, strict=True)))


def fit(x: Tensor, before: Layout, after: Layout) -> Tensor:
    """Channels in the runs `before` as the runs `after`: cut, or padded with zeros."""
    if before == after:
        return x
    if len(before) != len(after):
        before, after = (sum(before),), (sum(after),)
    parts = []
    for run, b, a in zip(x.split(before, 1), before, after, strict=True):
        parts.append(run[:, :a] if a <= b else nn.functional.pad(run, (0,) * 2 * (x.ndim - 2) + (0, a - b)))
    return torch.cat(parts, 1)
