"""Elastic rows: a row with choices, or fed by one, as the largest plain block, of which every setting uses a part.

For a setting the plain block is built once, without weights; to run, it is handed the parts of the largest block's
tensors. So every registered block is elastic, and equal to the plain network by construction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from . import nni_compat  # isort: skip  # noqa: F401  (before anything else of nni)

import nni
import torch
from torch import Tensor, nn

from models.blocks import default_activation
from models.complexity import count_params
from models.errors import InputError
from models.grammar import Config, Row, choices_in, is_choice, parse_value
from models.network import build_row
from models.registry import lookup

from .active import Active, Mixture
from .choices import Follow, read_choice
from .elastic_slices import Cut, Mismatch, cuts
from .elastic_trace import Flow, Layout, Trace, flow, layers, signature
from .space import Space
from .supernet import Searchable

RESOLUTION = "resolution"
MOST_PATHS = 16
# Of a row, kept at a time: some 100 KB each, and a few milliseconds to make again.
MOST_PLANS = 256
_WIDTHS = ("in_channels", "out_channels", "in_features", "out_features", "num_features", "groups", "embed_dim")
_KEEP_SHAPE = (nn.BatchNorm2d, nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Hardsigmoid, nn.GELU, nn.Mish)
# What a training may set on the largest block's modules: mode, moving average of batch norms, dropout, drop-path.
_FOLLOWED = ("training", "momentum", "p", "drop_prob")

Setting = tuple[int, ...]
Layouts = tuple[Layout, ...]


class Options:
    """The choices of a row.

    Attributes
    ----------
    labels
        Of the decisions that the row reads.
    """

    def __init__(self, space: Space, row: Row) -> None:
        self._row, self._names = row, {"nc": space.config.nc, "anchors": space.config.anchors}
        # Place of a choice in the row: its label, and a value for every one of the decision's.
        self.places: dict[str, tuple[str, tuple[Any, ...]]] = {}
        for where, mapping in choices_in(row):
            choice = read_choice(mapping, f"row{row.index}.{where}")
            values = space.decisions[choice.label].values
            if isinstance(choice, Follow):
                values = tuple(choice.table[v] for v in values)
            self.places[where] = choice.label, values
        self.labels = tuple(dict.fromkeys(label for label, _ in self.places.values()))
        self.decided = {label: space.decisions[label].values for label in self.labels}

    def at(self, setting: Setting) -> Row:
        """The plain row of a setting, indices of values in the order of `labels`."""
        index = dict(zip(self.labels, setting, strict=True))
        return self.row({where: values[index[label]] for where, (label, values) in self.places.items()})

    def row(self, values: Mapping[str, Any]) -> Row:
        """The plain row with a value at every place."""

        def walk(where: str, value: Any) -> Any:
            if is_choice(value):
                return parse_value(values[where], self._names)
            return [walk(f"{where}.{i}", v) for i, v in enumerate(value)] if isinstance(value, list) else value

        row = self._row
        args = tuple(walk(str(i), arg) for i, arg in enumerate(row.args))
        return replace(row, number=walk("number", row.number), args=args, kwargs={k: walk(k, v) for k, v in row.kwargs.items()})


class Plan:
    """A setting of an elastic row: the plain block without weights, and what it takes of the largest one.

    Attributes
    ----------
    layout
        Runs of the channels that come out.
    parts
        (layer, tensor) to its part of the largest block's; None where it is all of it.
    names
        Modules of the block to their names in the largest.
    is_largest
        Whether it is the largest block itself.
    """

    def __init__(
        self,
        block: nn.Module,
        layout: Layout,
        parts: Mapping[tuple[str, str], Cut | None],
        names: Mapping[str, str],
        is_largest: bool,
    ) -> None:
        self.block, self.layout, self.parts, self.names, self.is_largest = block, layout, parts, names, is_largest

    def cut_out(self, whole: nn.Module, block: nn.Module) -> nn.Module:
        """`block`, which is built like the plan's, with copies of its part of `whole`."""
        modules, source = dict(block.named_modules()), dict(whole.named_modules())
        for name, module in modules.items():
            module.training = source.get(self.names[name], whole).training
        for (name, key), cut in self.parts.items():
            tensor = getattr(source[self.names[name]], key)
            with torch.no_grad():
                part = (tensor if cut is None else cut(tensor)).clone(memory_format=torch.contiguous_format)
            if key in modules[name]._parameters:
                modules[name]._parameters[key] = nn.Parameter(part, tensor.requires_grad)
            else:
                modules[name]._buffers[key] = part
        return block


class _Bound:
    """A plan bound to the tensors of one largest block."""

    def __init__(self, plan: Plan, whole: nn.Module) -> None:
        self.layout, self.block = plan.layout, whole if plan.is_largest else plan.block
        self.flags: list[tuple[dict[str, Any], dict[str, Any], str]] = []
        self.tensors: list[tuple[dict[str, Any], str, dict[str, Any], Cut | None]] = []
        self.scattered: list[tuple[dict[str, Any], str, dict[str, Any], Cut]] = []
        if plan.is_largest:
            return
        # Straight to the modules' dictionaries: nn.Module's own access is a good part of a small network's time.
        modules, source = dict(plan.block.named_modules()), dict(whole.named_modules())
        for name, module in modules.items():
            mine, other = vars(module), vars(source.get(plan.names[name], whole))
            self.flags += [(mine, other, key) for key in _FOLLOWED if key in mine and key in other]
        for (name, key), cut in plan.parts.items():
            layer, other = modules[name], source[plan.names[name]]
            if key in layer._parameters:
                self.tensors.append((layer._parameters, key, other._parameters, cut))
            else:
                self.tensors.append((layer._buffers, key, other._buffers, cut))
                if cut is not None and not cut.is_view:
                    self.scattered.append((layer._buffers, key, other._buffers, cut))

    def __call__(self, x: Any) -> Any:
        for mine, other, key in self.flags:
            mine[key] = other[key]
        for target, key, source, cut in self.tensors:
            tensor = source[key]
            target[key] = tensor if cut is None else cut(tensor)
        try:
            y = self.block(x)
            for target, key, source, scattered in self.scattered:
                with torch.no_grad():
                    scattered.put(source[key], target[key])
            return y
        finally:
            for target, key, _, _ in self.tensors:
                target[key] = None


class _Cache(dict[Any, Any]):
    """The newest entries; forgotten in copies."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= MOST_PLANS:
            del self[next(iter(self))]
        super().__setitem__(key, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Cache:
        return _Cache()

    def __reduce__(self) -> Any:
        return _Cache, ()


class ElasticSpec:
    """What an elastic row is at its settings; one for all copies of a supernet.

    Parameters
    ----------
    row
        With its choices.
    options
        Them.
    build
        (plain row, channels of the inputs) -> (block, channels of its output).
    inputs
        Runs of the inputs at their widest.
    repeated
        Plain row to the number of blocks in sequence that it is.
    flat
        Whether the input is (N, c) and not (N, c, H, W).

    Attributes
    ----------
    layout
        Runs of the output of the largest block.
    """

    def __init__(
        self,
        row: Row,
        options: Options,
        build: Callable[[Row, Sequence[int]], tuple[nn.Module, int]],
        inputs: Layouts,
        repeated: Callable[[Row], int] = lambda row: 1,
        flat: bool = False,
    ) -> None:
        self.row, self.options = row, options
        self._build, self._repeated, self._flat = build, repeated, flat
        self._widest = inputs
        self.listed = isinstance(row.source, tuple)
        self._plans, self._flows = _Cache(), _Cache()
        self._largest_row, self._more = self._find_largest()
        block, c_out = self._skeleton(self._largest_row, inputs)
        self._trace = self._traced(block, inputs)
        self._largest = self._with_more(block, lambda row: self._skeleton(row, inputs)[0])
        self.layout = _layout(self._trace, c_out)

    def __deepcopy__(self, memo: dict[int, Any]) -> ElasticSpec:
        return self

    def largest(self) -> tuple[nn.Module, int]:
        """The largest block with weights, and channels of its output."""
        c_in = _channels(self._widest)
        block, c_out = self._build(self._largest_row, c_in)
        return self._with_more(block, lambda row: self._build(row, c_in)[0]), c_out

    def plain(self, setting: Setting, inputs: Layouts) -> nn.Module:
        """The block of a setting, without weights."""
        return self._skeleton(self.options.at(setting), inputs)[0]

    def plan(self, setting: Setting, inputs: Layouts) -> Plan:
        """The plan of a setting, made when it is first asked for."""
        key = setting, inputs
        if key not in self._plans:
            self._plans[key] = self._plan(setting, inputs)
        return cast(Plan, self._plans[key])

    def _plan(self, setting: Setting, inputs: Layouts) -> Plan:
        row = self.options.at(setting)
        block, c_out = self._skeleton(row, inputs)
        # Several blocks are a sequence, one is the block itself.
        prefix = "0." if self._repeated(self._largest_row) > 1 == self._repeated(row) else ""
        names = {name: f"{prefix}{name}".rstrip(".") for name, _ in block.named_modules()}
        found = self._traced(block, inputs)
        try:
            parts = cuts(block, self._largest, found, self._trace, names)
        except Mismatch as e:
            raise self.row.error(f"at {self.describe(setting, inputs)}: {e}") from None
        is_largest = row == self._largest_row and inputs == self._widest and not self._more
        return Plan(block, _layout(found, c_out), parts, names, is_largest)

    def dry_run(self, plan: Plan, inputs: Layouts) -> None:
        """Run the block of a plan that was not in use yet, where nothing is computed."""
        tail = () if self._flat else (64, 64)
        tensors = itertools.chain(plan.block.parameters(), plan.block.buffers())
        device = next((t.device for t in tensors), torch.device("meta"))
        x = [torch.empty(1, n, *tail, device=device) for n in _channels(inputs)]
        # What keeps the shape takes most of the time on the meta device, step by step as it is done there.
        neutral = [m for m in plan.block.modules() if isinstance(m, _KEEP_SHAPE)]
        for module in neutral:
            vars(module)["forward"] = lambda x: x
        try:
            with torch.no_grad():
                plan.block.eval()(x if self.listed else x[0])
        finally:
            for module in neutral:
                del vars(module)["forward"]

    def describe(self, setting: Setting, inputs: Layouts) -> str:
        """A setting for messages."""
        pairs = zip(self.options.labels, setting, strict=True)
        values = [f"{label}={self.options.decided[label][i]}" for label, i in pairs]
        return ", ".join([*values, f"input channels {' and '.join(map(str, _channels(inputs)))}"])

    def _find_largest(self) -> tuple[Row, list[Row]]:
        """Every choice at the value that needs the most weights; and settings with layers that this has not."""
        places = self.options.places
        best = {where: _greatest(values) for where, (_, values) in places.items()}
        tried: list[tuple[Row, set[str]]] = []
        for where, (_, values) in places.items():
            sizes: dict[int, int] = {}
            for i, value in enumerate(values):
                row = self.options.row({**best, where: value})
                try:
                    block, _ = self._skeleton(row, self._widest)
                except InputError:
                    continue  # if a setting comes to this, it is refused when that is looked at
                sizes[i] = 2 * count_params(block) + (value == best[where])
                tried.append((row, set(layers(block))))
            best[where] = values[max(sizes, key=lambda i: sizes[i])] if sizes else best[where]
        largest = self.options.row(best)
        known, more = set(layers(self._skeleton(largest, self._widest)[0])), []
        for row, names in tried:
            if not names <= known:
                known |= names
                more.append(row)
        return largest, more

    def _with_more(self, block: nn.Module, build: Callable[[Row], nn.Module]) -> nn.Module:
        for row in self._more:
            _graft(block, build(row))
        return block

    def _traced(self, block: nn.Module, inputs: Layouts) -> Trace:
        key = tuple(map(len, inputs)), signature(block)
        if known := self._flows.get(key):
            return cast(Flow, known).at(block, inputs)
        found, self._flows[key] = flow(block, inputs, self.listed, self._flat)
        return found

    def _skeleton(self, row: Row, inputs: Layouts) -> tuple[nn.Module, int]:
        """A block without weights, and channels of its output."""
        c_in = _channels(inputs)
        try:
            with torch.device("meta"):
                block, c_out = self._build(row, c_in)
            if not any(isinstance(v, Tensor) for m in block.modules() for v in vars(m).values()):
                return block, c_out
        except InputError:
            pass
        # A constructor that computes with tensors, or an error, which is the same again.
        with torch.random.fork_rng(devices=()):
            return self._build(row, c_in)


def _graft(block: nn.Module, other: nn.Module) -> None:
    """Give `block` the layers of `other` that it has not. They only keep weights; it is not to be run any more."""
    for name, child in other.named_children():
        mine = block._modules.get(name)
        if mine is None or not layers(mine):
            block._modules[name] = child
        else:
            _graft(mine, child)


def _greatest(values: Sequence[Any]) -> Any:
    return max(values) if all(isinstance(v, (int, float)) for v in values) else values[0]


def _channels(inputs: Layouts) -> list[int]:
    return [sum(runs) for runs in inputs]


def _layout(found: Trace, c_out: int) -> Layout:
    return found.output if sum(found.output) == c_out else (c_out,)


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
        self.start = {label: values.index(_greatest(values)) for label, values in self.values.items()}
        self.widest: dict[int, Layout] = {-1: (space.config.ch,)}
        self.specs: dict[int, ElasticSpec] = {}
        # Labels on which a row's output depends; those among them that move its width.
        self.depends: dict[int, frozenset[str]] = {-1: frozenset()}
        self.moved_by: dict[int, list[str]] = {-1: []}

    def __deepcopy__(self, memo: dict[int, Any]) -> Wiring:
        return self

    def inputs(self, row: Row) -> Layouts:
        return tuple(self.widest[j] for j in row.sources)

    def is_fed_elastic(self, row: Row) -> bool:
        """Whether the width of a row's input is open."""
        return any(self.depends[j] for j in row.sources)

    def add_plain(self, row: Row, c_out: int) -> None:
        self.widest[row.index], self.depends[row.index], self.moved_by[row.index] = (c_out,), frozenset(), []

    def add(self, spec: ElasticSpec) -> None:
        index = spec.row.index
        self.specs[index], self.widest[index] = spec, spec.layout
        self.depends[index] = frozenset(spec.options.labels).union(*(self.depends[j] for j in spec.row.sources))
        self.moved_by[index] = []
        Check(spec, self)

    def layouts(self, active: Mapping[str, int | Mixture], rows: Sequence[int] | None = None) -> dict[int, Layout]:
        """Row to the runs of its output at what is active, of a mixture, the widest; up to the last of `rows`."""
        found = dict(self.widest)
        for index, spec in self.specs.items():
            if rows is not None and index > max(rows):
                break
            inputs = tuple(found[j] for j in spec.row.sources)
            choices = [(s,) if isinstance(s := active[label], int) else s.paths for label in spec.options.labels]
            plans = [spec.plan(setting, inputs) for setting in itertools.product(*choices)]
            found[index] = _widest([plan.layout for plan in plans])
        return found


class Check:
    """Refuses a row with settings that do not fit together, by looking at any two of the decisions that move widths."""

    def __init__(self, spec: ElasticSpec, wiring: Wiring) -> None:
        self.spec, self.wiring, self.row = spec, wiring, spec.row
        self.seen: set[Plan] = set()
        # Module to whether it has an identity shortcut, and where that was seen.
        self.shortcuts: dict[str, tuple[bool, str]] = {}
        switches = [v for _, values in spec.options.places.values() for v in values if isinstance(v, bool)]
        self.shortcut_is_a_choice = bool(switches)
        of_inputs = (label for j in self.row.sources for label in wiring.moved_by[j])
        labels = dict.fromkeys([*spec.options.labels, *of_inputs])
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
        setting = tuple(active[label] for label in self.spec.options.labels)
        plan, where = self.spec.plan(setting, inputs), self.spec.describe(setting, inputs)
        if plan in self.seen:
            return plan
        self.seen.add(plan)
        try:
            self.spec.dry_run(plan, inputs)
        except NotImplementedError:
            pass  # it looks at numbers, which are not there
        except (RuntimeError, ValueError, IndexError) as e:
            raise self.row.error(f"at {where}: {str(e).splitlines()[0]}") from None
        for name, module in plan.block.named_modules():
            there = getattr(module, "add", None)
            if isinstance(there, bool) and not self.shortcut_is_a_choice:
                before, at = self.shortcuts.setdefault(plan.names[name], (there, where))
                if before != there:
                    on, off = (where, at) if there else (at, where)
                    raise self.row.error(
                        f"an identity shortcut is there at {on}, and not at {off}: give both widths one label, or "
                        "switch the shortcut off"
                    )
        return plan


def _widest(layouts: Sequence[Layout]) -> Layout:
    """Runs that hold those of every layout."""
    if len({len(layout) for layout in layouts}) > 1:
        return (max(map(sum, layouts)),)
    return tuple(map(max, zip(*layouts, strict=True)))


def _fit(x: Tensor, before: Layout, after: Layout) -> Tensor:
    """Channels in the runs `before` as the runs `after`: cut, or padded with zeros."""
    if before == after:
        return x
    if len(before) != len(after):
        before, after = (sum(before),), (sum(after),)
    parts = []
    for run, b, a in zip(x.split(before, 1), before, after, strict=True):
        parts.append(run[:, :a] if a <= b else nn.functional.pad(run, (0,) * 2 * (x.ndim - 2) + (0, a - b)))
    return torch.cat(parts, 1)


class ElasticRow(Searchable):
    """An elastic row: the largest block, run at what is active.

    Attributes
    ----------
    block
        The largest block.
    layouts
        Row to the runs of its output; shared by the rows, each of which says what it gave last.
    """

    def __init__(self, spec: ElasticSpec, wiring: Wiring, active: Active, layouts: dict[int, Layout]) -> None:
        super().__init__()
        self.spec, self.wiring, self.active, self.layouts = spec, wiring, active, layouts
        self.block, self.c_out = spec.largest()
        self._bound = _Cache()
        self._sources, self._index, self._labels = spec.row.sources, spec.row.index, spec.options.labels
        for label in self._labels:
            self.add_mutable(nni.choice(label, list(spec.options.decided[label])))

    def forward(self, x: Any) -> Any:
        setting = tuple([self.active[label] for label in self._labels])
        layouts = self.layouts
        inputs = tuple([layouts[j] for j in self._sources])
        if Mixture in map(type, setting):
            return self._mixed(x, inputs)
        bound = self._bound.get((setting, inputs)) or self._bind(cast(Setting, setting), inputs)
        layouts[self._index] = bound.layout
        return bound(x)

    def _bind(self, setting: Setting, inputs: Layouts) -> _Bound:
        bound = _Bound(self.spec.plan(setting, inputs), self.block)
        self._bound[setting, inputs] = bound
        return bound

    def _mixed(self, x: Any, inputs: Layouts) -> Tensor:
        settings = {label: self.active[label] for label in self._labels}
        mixed = {label: s for label, s in settings.items() if isinstance(s, Mixture)}
        if (count := math.prod(len(m.paths) for m in mixed.values())) > MOST_PATHS:
            raise self.spec.row.error(
                f"a mixture of {', '.join(mixed)} has {count} paths, and at most {MOST_PATHS} are computed side by "
                "side; strategies that take one path at a time do without: spos, enas, bignas"
            )
        # Where a decision is the row's own and also of a row before it, the path has that row's narrower output.
        shared = any(label in self.wiring.depends[j] for label in mixed for j in self._sources)
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
                several = [_fit(t, before, after) for t, before, after in zip(several, inputs, own, strict=True)]
                given = several if self.spec.listed else several[0]
            setting = cast(Setting, tuple(at.values()))
            bound = self._bound.get((setting, own)) or self._bind(setting, own)
            outputs.append((weight, bound.layout, bound(given)))
        widest = _widest([layout for _, layout, _ in outputs])
        self.layouts[self._index] = widest
        return cast(Tensor, sum(weight * _fit(y, layout, widest) for weight, layout, y in outputs))

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

    def row(self, config: Config, row: Row, c_in: Sequence[int]) -> tuple[nn.Module, int]:
        """(the row's module, channels of its output at their widest)."""
        options = Options(self.space, row)
        if not options.labels and not self.wiring.is_fed_elastic(row):
            module, c_out = build_row(config, row, c_in)
            self.plain(row, c_out)
            return module, c_out

        def build(plain: Row, c_in: Sequence[int]) -> tuple[nn.Module, int]:
            with default_activation(config.activation):
                return build_row(config, plain, c_in)

        def repeated(plain: Row) -> int:
            return 1 if lookup(plain).repeats else config.depth(plain)

        return self.elastic(ElasticSpec(row, options, build, self.wiring.inputs(row), repeated))

    def plain(self, row: Row, c_out: int) -> None:
        """Take note of a row that is not elastic."""
        self.wiring.add_plain(row, c_out)
        self.layouts.update(self.wiring.widest)

    def elastic(self, spec: ElasticSpec) -> tuple[ElasticRow, int]:
        """The module of an elastic row."""
        self.wiring.add(spec)
        self.layouts.update(self.wiring.widest)
        module = ElasticRow(spec, self.wiring, self.active, self.layouts)
        return module, module.c_out

    def resolution(self) -> nn.Module:
        """The module of the decision on the input's size, if that is open."""
        decision = self.space.decisions.get(RESOLUTION)
        return nn.Identity() if decision is None else ResolutionChoice(decision.values, self.active)

    def linear(self, layer: nn.Linear) -> nn.Module:
        """The linear layer behind the last row, elastic where that is."""
        last = self.space.config.num_backbone - 1
        row = Row(last + 1, "classifier", last, 1, "Linear", (), {}, self.space.config.file)
        if not self.wiring.is_fed_elastic(row):
            return layer

        def build(_: Row, c_in: Sequence[int]) -> tuple[nn.Module, int]:
            return nn.Linear(c_in[0], layer.out_features), layer.out_features

        return self.elastic(ElasticSpec(row, Options(self.space, row), build, self.wiring.inputs(row), flat=True))[0]
