"""Elastic rows: a row with choices, or fed by one, as the whole block, of which every setting uses a part.

The whole block is a plain one with the weights of all settings. For a setting the plain block is built once, without
weights; to run, it is handed its part of the whole block's tensors. So every registered block is elastic, and equal to
the plain network by construction.

| | |
|---|---|
| `elastic_trace` | which runs a block's channels come in |
| `elastic_slices` | which part of a tensor a narrower block has |
| `elastic_plan` | a row's settings |
| `elastic_wiring` | rows that feed one another |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from models.blocks import default_activation
from models.catalog import lookup
from models.errors import InputError
from models.grammar import Config, Row
from models.network import build_row

from .active import Active, Mixture
from .elastic_plan import BoundPlan, Cache, ElasticSpec, Layouts, Setting
from .elastic_slices import gradients_in_place
from .elastic_trace import Layout, layers
from .elastic_wiring import Wiring, fit, widest_of
from .kernel_transform import add_transforms
from .nni_compat import nni
from .rows import ChoiceRow
from .space import Space
from .supernet_parts import Searchable

__all__ = ["Builder", "ElasticRow", "ResolutionChoice", "gradients_in_place"]

RESOLUTION = "resolution"
# More paths side by side than these take too much time and memory.
MOST_PATHS = 16


class ElasticRow(Searchable):
    """An elastic row: the whole block, run at what is active.

    Attributes
    ----------
    block
        The whole block.
    layouts
        Row to the runs of its output; shared by the rows, each of which says what it gave last.
    """

    def __init__(self, spec: ElasticSpec, wiring: Wiring, active: Active, layouts: dict[int, Layout]) -> None:
        super().__init__()
        self.spec, self.wiring, self.active, self.layouts = spec, wiring, active, layouts
        self.block, self.c_out = spec.whole()
        self._bound = Cache()
        self._sources, self._index, self._labels = spec.row.sources, spec.row.index, spec.labels
        for label in self._labels:
            self.add_mutable(nni.choice(label, list(spec.values[label])))

    def forward(self, x: Any) -> Any:
        setting = tuple([self.active[label] for label in self._labels])
        layouts = self.layouts
        inputs = tuple([layouts[j] for j in self._sources])
        if Mixture in map(type, setting):
            return self._mixed(x, inputs)
        bound = self._bound.get((setting, inputs)) or self._bind(cast(Setting, setting), inputs)
        layouts[self._index] = bound.layout
        return bound(x)

    def _bind(self, setting: Setting, inputs: Layouts) -> BoundPlan:
        bound = BoundPlan(self.spec.plan(setting, inputs), self.block)
        self._bound[setting, inputs] = bound
        return bound

    def transform_kernels(self) -> int:
        """Give convolutions of open kernel their matrices (`kernel_transform`). Returns how many there are new."""
        self._bound.clear()
        whole = layers(self.block)
        return sum(add_transforms(whole[name], sides) for name, sides in self.spec.kernels().items())

    def _mixed(self, x: Any, inputs: Layouts) -> Tensor:
        settings = {label: self.active[label] for label in self._labels}
        mixed = {label: s for label, s in settings.items() if isinstance(s, Mixture)}
        if (count := math.prod(len(m.paths) for m in mixed.values())) > MOST_PATHS:
            raise self.spec.row.error(
                f"a mixture of {', '.join(mixed)} has {count} paths, and at most {MOST_PATHS} are computed side by "
                "side; strategies that take one path at a time do without: spos, enas, bignas"
            )
        # Where a decision is the row's own and also of a row before it, the path has that row's narrower output.
        shared = any(label in self.wiring.moved_by[j] for label in mixed for j in self._sources)
        outputs: list[tuple[Any, Layout, Tensor]] = []
        for path in itertools.product(*(m.paths for m in mixed.values())):
            at = {**settings, **dict(zip(mixed, path, strict=True))}
            weight: Any = 1
            for label, i in zip(mixed, path, strict=True):
                weight = weight * mixed[label].weights[i]
            own, given = inputs, x
            if shared:
                narrow = self.wiring.layouts({**self.active, **at})
                own = tuple(narrow[j] for j in self._sources)
                several = x if self.spec.listed else [x]
                several = [fit(t, before, after) for t, before, after in zip(several, inputs, own, strict=True)]
                given = several if self.spec.listed else several[0]
            setting = cast(Setting, tuple(at.values()))
            bound = self._bound.get((setting, own)) or self._bind(setting, own)
            y = bound(given)
            if not isinstance(y, Tensor):
                raise self.spec.row.error(
                    "it gives several maps, which are not mixed; strategies that take one path at a time do without: "
                    "spos, enas, bignas"
                )
            outputs.append((weight, bound.layout, y))
        widest = widest_of([layout for _, layout, _ in outputs])
        self.layouts[self._index] = widest
        return cast(Tensor, sum(weight * fit(y, layout, widest) for weight, layout, y in outputs))

    def freeze(self, sample: Mapping[str, Any]) -> nn.Module:
        """The plain block at an arch of the whole space, with copies of its weights."""
        active = {label: self.wiring.values[label].index(value) for label, value in sample.items()}
        layouts = self.wiring.layouts(active, self._sources)
        inputs = tuple(layouts[j] for j in self._sources)
        setting = tuple(active[label] for label in self._labels)
        return self.spec.plan(setting, inputs).cut_out(self.block, self.spec.plain(setting, inputs))


class ResolutionChoice(Searchable):
    """The decision on the input's size; `side` is what is active. It computes nothing: the training resizes."""

    def __init__(self, values: tuple[int, ...], active: Active) -> None:
        super().__init__()
        self.values, self.active = values, active
        self.add_mutable(nni.choice(RESOLUTION, list(values)))

    @property
    def side(self) -> int:
        """Pixels a side."""
        chosen = self.active[RESOLUTION]
        if isinstance(chosen, Mixture):
            raise InputError(
                "resolution: images of several sizes cannot be mixed; strategies that take one path at a time search "
                "it: spos, enas, bignas"
            )
        return self.values[chosen]

    def freeze(self, sample: Mapping[str, Any]) -> nn.Module:
        return nn.Identity()


class Builder:
    """Builds the rows of a space for a supernet: elastic where there are choices, or before them.

    Attributes
    ----------
    layouts
        See `ElasticRow`.
    """

    def __init__(self, space: Space, active: Active) -> None:
        self.space, self.active = space, active
        self.wiring = Wiring(space)
        self.layouts: dict[int, Layout] = {}

    def row(self, space_row: ChoiceRow, c_in: Sequence[int]) -> tuple[nn.Module, int]:
        """(the row's module, channels of its output at their widest)."""
        config, row = space_row.config, space_row.row
        if not space_row.places and not self.wiring.is_fed_elastic(row):
            module, c_out = build_row(config, row, c_in)
            self.plain(row, c_out)
            return module, c_out

        build, repeated_of = partial(build_with, config), partial(repeated, config)
        maps = 0 if isinstance(row.source, tuple) else self.wiring.maps.get(row.sources[0], 0)
        return self.elastic(space_row, build, repeated_of, maps=maps)

    def plain(self, row: Row, c_out: int) -> None:
        """Take note of a row that is not elastic."""
        self.wiring.add_plain(row, c_out)
        self.layouts.update(self.wiring.widest)

    def elastic(self, row: ChoiceRow, *how: Any, **more: Any) -> tuple[ElasticRow, int]:
        """The module of an elastic row; `how` and `more` as `ElasticSpec` takes them."""
        spec = ElasticSpec(row, self.wiring.values, self.wiring.inputs(row.row), *how, **more)
        self.wiring.add(spec)
        self.layouts.update(self.wiring.widest)
        module = ElasticRow(spec, self.wiring, self.active, self.layouts)
        return module, module.c_out

    def resolution(self) -> nn.Module:
        """The module of the decision on the input's size, if that is open."""
        decision = self.space.resolution
        return nn.Identity() if decision is None else ResolutionChoice(decision.values, self.active)

    def linear(self, layer: nn.Linear) -> nn.Module:
        """The linear layer behind the last row, elastic where that is."""
        last = self.space.config.num_backbone - 1
        row = Row(last + 1, "classifier", last, 1, "Linear", (), {}, self.space.config.file, [last, 1, "Linear", []])
        if not self.wiring.is_fed_elastic(row):
            return layer

        build = partial(_build_linear, layer.out_features)
        return self.elastic(ChoiceRow(self.space.config, row), build, flat=True)[0]


def build_with(config: Config, row: Row, c_in: Sequence[int]) -> tuple[nn.Module, int]:
    """`build_row`, with the activation of the YAML."""
    with default_activation(config.activation):
        return build_row(config, row, c_in)


def _build_linear(c_out: int, row: Row, c_in: Sequence[int]) -> tuple[nn.Module, int]:
    return nn.Linear(c_in[0], c_out), c_out


def repeated(config: Config, row: Row) -> int:
    """How many blocks in sequence a row is."""
    return 1 if lookup(row).repeats else config.depth(row)
