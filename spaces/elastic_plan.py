"""One elastic row: the whole block, and for every setting the plain block that takes its part of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.complexity import count_params
from models.errors import InputError
from models.grammar import Row

from .elastic_slices import Cut, MismatchError, cuts
from .elastic_trace import Flow, Layout, Trace, as_taken, flow, layers, signature
from .kernel_transform import Side, cut_of
from .rows import ChoiceRow

# Of a row, kept at a time: some 100 KB each, and a few milliseconds to make again.
MOST_PLANS = 256
_KEEP_SHAPE = (nn.BatchNorm2d, nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Hardsigmoid, nn.GELU, nn.Mish)
# What a training may set on the whole block's modules: mode, moving average of batch norms, dropout, drop-path.
_FOLLOWED = ("training", "momentum", "p", "drop_prob")

# Runs of the channels of every input.
Layouts = tuple[Layout, ...]
# Indices of values, in the order of a row's labels.
Setting = tuple[int, ...]


class Plan:
    """A setting of an elastic row: the plain block without weights, and what it takes of the whole one.

    Attributes
    ----------
    layout
        Runs of the channels that come out.
    parts
        (layer, tensor) to its part of the whole block's; None where it is all of it.
    names
        Modules of the block to their names in the whole block.
    is_whole
        Whether it is the whole block itself.
    """

    def __init__(
        self,
        block: nn.Module,
        layout: Layout,
        parts: Mapping[tuple[str, str], Cut | None],
        names: Mapping[str, str],
        is_whole: bool,
    ) -> None:
        self.block, self.layout, self.parts, self.names, self.is_whole = block, layout, parts, names, is_whole

    def cut_out(self, whole: nn.Module, block: nn.Module) -> nn.Module:
        """`block`, which is built like the plan's, with copies of its part of `whole`."""
        modules, source = dict(block.named_modules()), dict(whole.named_modules())
        for name, module in modules.items():
            module.training = source.get(self.names[name], whole).training
        for (name, key), cut in self.parts.items():
            layer = source[self.names[name]]
            tensor, part_of = getattr(layer, key), cut_of(cut, layer, key)
            with torch.no_grad():
                part = (tensor if part_of is None else part_of(tensor)).clone(memory_format=torch.contiguous_format)
            if key in modules[name]._parameters:
                modules[name]._parameters[key] = nn.Parameter(part, tensor.requires_grad)
            else:
                modules[name]._buffers[key] = part
        return block


class BoundPlan:
    """A plan bound to the tensors of one whole block."""

    def __init__(self, plan: Plan, whole: nn.Module) -> None:
        self.layout, self.block = plan.layout, whole if plan.is_whole else plan.block
        self.flags: list[tuple[dict[str, Any], dict[str, Any], str]] = []
        self.tensors: list[tuple[dict[str, Any], str, dict[str, Any], Callable[[Tensor], Tensor] | None]] = []
        self.scattered: list[tuple[dict[str, Any], str, dict[str, Any], Cut]] = []
        if plan.is_whole:
            return
        # Straight to the modules' dictionaries: nn.Module's own access is a good part of a small network's time.
        modules, source = dict(plan.block.named_modules()), dict(whole.named_modules())
        for name, module in modules.items():
            mine, theirs = module.__dict__, source.get(plan.names[name], whole).__dict__
            self.flags += [(mine, theirs, key) for key in _FOLLOWED if key in mine and key in theirs]
        for (name, key), cut in plan.parts.items():
            layer, other = modules[name], source[plan.names[name]]
            if key in layer._parameters:
                self.tensors.append((layer._parameters, key, other._parameters, cut_of(cut, other, key)))
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
            if self.scattered and self.block.training:
                with torch.no_grad():
                    for target, key, source, scattered in self.scattered:
                        scattered.put(source[key], target[key])
            return y
        finally:
            for target, key, _, _ in self.tensors:
                target[key] = None


class Cache(dict[Any, Any]):
    """The newest entries; forgotten in copies."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= MOST_PLANS:
            del self[next(iter(self))]
        super().__setitem__(key, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        return Cache()

    def __reduce__(self) -> Any:
        return Cache, ()


NO_IDENTITY = (
    "an identity shortcut is there at some widths and not at others: give both widths one label, or switch it off"
)


def identities(block: nn.Module, names: Mapping[str, str] | None = None) -> dict[str, bool]:
    """Module to whether it has an identity shortcut, of those that say so by `add`."""
    found = {name: vars(m)["add"] for name, m in block.named_modules() if isinstance(vars(m).get("add"), bool)}
    return {(names or {}).get(name, name): add for name, add in found.items()}


def _once(row: Row) -> int:
    return 1


class ElasticSpec:
    """What an elastic row is at its settings; one for all copies of a supernet.

    Parameters
    ----------
    row
        With its choices.
    values
        Label to the values of the decision.
    inputs
        Runs of the inputs at their widest.
    build
        (plain row, channels of the inputs) -> (block, channels of its output).
    repeated
        Plain row to the number of blocks in sequence that it is.
    flat
        Whether the input is (N, c) and not (N, c, H, W).
    maps
        If not 0, the only input is a list of so many.

    Attributes
    ----------
    labels
        Of the decisions that the row reads.
    places
        Place of a choice in the row to its value at each of the decision's.
    layout
        Runs of the output of the whole block.
    """

    def __init__(
        self,
        row: ChoiceRow,
        values: Mapping[str, tuple[Any, ...]],
        inputs: Layouts,
        build: Callable[[Row, Sequence[int]], tuple[nn.Module, int]],
        repeated: Callable[[Row], int] = _once,
        flat: bool = False,
        maps: int = 0,
    ) -> None:
        self.row, self.labels, self._row = row.row, row.labels, row
        self.values = {label: values[label] for label in row.labels}
        self.places = {
            where: [choice.value({choice.label: v}) for v in values[choice.label]]
            for where, choice in row.places.items()
        }
        self._build, self._repeated, self._flat, self._maps = build, repeated, flat, maps
        self._widest = inputs
        self.listed = isinstance(self.row.source, tuple)
        self._plans, self._flows = Cache(), Cache()
        self._whole_row, self._more = self._find_whole()
        block, c_out = self._skeleton(self._whole_row, inputs)
        self._trace = self._traced(block, inputs)
        self._whole = self._with_more(block, lambda row: self._skeleton(row, inputs)[0])
        self.layout = _layout(self._trace, c_out)

    def __deepcopy__(self, memo: dict[int, Any]) -> ElasticSpec:
        return self

    def whole(self) -> tuple[nn.Module, int]:
        """The whole block with weights, and channels of its output."""
        c_in = channels(self._widest)
        block, c_out = self._build(self._whole_row, c_in)
        return self._with_more(block, lambda row: self._build(row, c_in)[0]), c_out

    def plain(self, setting: Setting, inputs: Layouts) -> nn.Module:
        """The block of a setting, without weights."""
        return self._skeleton(self._at(setting), inputs)[0]

    def _at(self, setting: Setting) -> Row:
        return self._row.at({label: self.values[label][i] for label, i in zip(self.labels, setting, strict=True)})

    def _with(self, values: Mapping[str, Any]) -> Row:
        """The plain row with a value at every place, whether or not a setting has them together."""
        return self._row.config.read_row(self.row, self._row.filled(values))

    def plan(self, setting: Setting, inputs: Layouts) -> Plan:
        """The plan of a setting, made when it is first asked for."""
        key = setting, inputs
        if key not in self._plans:
            self._plans[key] = self._plan(setting, inputs)
        return cast(Plan, self._plans[key])

    def _plan(self, setting: Setting, inputs: Layouts) -> Plan:
        row = self._at(setting)
        block, c_out = self._skeleton(row, inputs)
        names = self._names(block, row, self._whole_row)
        found = self._traced(block, inputs)
        try:
            parts = cuts(block, self._whole, found, self._trace, names)
        except MismatchError as e:
            if identities(block, names).items() - identities(self._whole).items():
                raise self.row.error(f"at {self.describe(setting, inputs)}: {NO_IDENTITY}") from None
            raise self.row.error(f"at {self.describe(setting, inputs)}: {e}") from None
        is_whole = row == self._whole_row and inputs == self._widest and not self._more
        return Plan(block, _layout(found, c_out), parts, names, is_whole)

    def _names(self, block: nn.Module, row: Row, whole: Row) -> dict[str, str]:
        """Modules of a row's block to what the whole block calls them: the first of several has a "0."."""
        return names_in(block, self._repeated(row), self._repeated(whole))

    def kernels(self) -> dict[str, list[Side]]:
        """Convolutions of the whole block to their kernels' sides, the largest first, where they have several."""
        found: dict[str, set[Side]] = {}
        for row in (self._with({**self._best, where: v}) for where, values in self.places.items() for v in values):
            try:
                block, _ = self._skeleton(row, self._widest)
            except InputError:
                continue
            names = self._names(block, row, self._whole_row)
            for name, layer in layers(block).items():
                if isinstance(layer, nn.modules.conv._ConvNd) and not layer.transposed:
                    found.setdefault(names[name], set()).add(tuple(layer.kernel_size))
        several = {name: sorted(sides, key=math.prod, reverse=True) for name, sides in found.items() if len(sides) > 1}
        # Such as 1 x 5 and 3 x 3: neither is the centre of the other.
        return {
            name: sides
            for name, sides in several.items()
            if all(a >= b for one, other in itertools.pairwise(sides) for a, b in zip(one, other, strict=True))
        }

    def dry_run(self, plan: Plan, inputs: Layouts) -> Any:
        """Run the block of a plan that was not in use yet, where nothing is computed. Returns its output, if it can."""
        tail = () if self._flat else (64, 64)
        tensors = itertools.chain(plan.block.parameters(), plan.block.buffers())
        device = next((t.device for t in tensors), torch.device("meta"))
        x = [torch.empty(1, n, *tail, device=device) for n in channels(inputs)]
        # What keeps the shape takes most of the time on the meta device, step by step as it is done there.
        neutral = [m for m in plan.block.modules() if isinstance(m, _KEEP_SHAPE)]
        for module in neutral:
            vars(module)["forward"] = lambda x: x
        try:
            with torch.no_grad():
                return plan.block.eval()(as_taken(x, self.listed, self._maps))
        except NotImplementedError:
            return None  # it looks at numbers, which are not there
        finally:
            for module in neutral:
                del vars(module)["forward"]

    def describe(self, setting: Setting, inputs: Layouts) -> str:
        """A setting for messages."""
        pairs = zip(self.labels, setting, strict=True)
        values = [f"{label}={self.values[label][i]}" for label, i in pairs]
        return ", ".join([*values, f"input channels {' and '.join(map(str, channels(inputs)))}"])

    def _find_whole(self) -> tuple[Row, list[Row]]:
        """Every choice at the value that needs the most weights; and settings with layers that this has not."""
        best = {where: greatest(values) for where, values in self.places.items()}
        tried: list[tuple[Row, nn.Module]] = []
        for where, values in self.places.items():
            sizes: dict[int, int] = {}
            for i, value in enumerate(values):
                row = self._with({**best, where: value})
                try:
                    block, _ = self._skeleton(row, self._widest)
                except InputError:
                    continue  # if a setting comes to this, it is refused when that is looked at
                sizes[i] = 2 * count_params(block) + (value == best[where])
                tried.append((row, block))
            best[where] = values[max(sizes, key=lambda i: sizes[i])] if sizes else best[where]
        self._best = best
        whole = self._with(best)
        known, more = set(layers(self._skeleton(whole, self._widest)[0])), []
        # The largest first: of several with the same layers it is the one that has the others' weights.
        for row, block in sorted(tried, key=lambda pair: -count_params(pair[1])):
            names = self._names(block, row, whole)
            if not known.issuperset(found := {names[name] for name in layers(block)}):
                known |= found
                more.append(row)
        return whole, more

    def _with_more(self, block: nn.Module, build: Callable[[Row], nn.Module]) -> nn.Module:
        for row in self._more:
            other = build(row)
            _graft(block.get_submodule(self._names(other, row, self._whole_row)[""]), other)
        return block

    def _traced(self, block: nn.Module, inputs: Layouts) -> Trace:
        key = tuple(map(len, inputs)), signature(block)
        if known := self._flows.get(key):
            return cast(Flow, known).at(block, inputs)
        found, self._flows[key] = flow(block, inputs, self.listed, self._flat, self._maps)
        return found

    def _skeleton(self, row: Row, inputs: Layouts) -> tuple[nn.Module, int]:
        """A block without weights, and channels of its output."""
        return skeleton(self._build, row, channels(inputs))


def skeleton(
    build: Callable[[Row, Sequence[int]], tuple[nn.Module, int]], row: Row, c_in: Sequence[int]
) -> tuple[nn.Module, int]:
    """What `build` makes of a row, without weights, and channels of its output."""
    try:
        with torch.device("meta"):
            block, c_out = build(row, c_in)
        if not any(isinstance(v, Tensor) for m in block.modules() for v in vars(m).values()):
            return block, c_out
    except InputError:
        pass
    # A constructor that computes with tensors, or an error, which is the same again.
    with torch.random.fork_rng(devices=()):
        return build(row, c_in)


def names_in(block: nn.Module, repeated: int, repeated_in_whole: int) -> dict[str, str]:
    """Modules of a block that is `repeated` times in sequence to what the whole block calls them."""
    prefix = "0." if repeated_in_whole > 1 == repeated else ""
    return {name: f"{prefix}{name}".rstrip(".") for name, _ in block.named_modules()}


def _graft(block: nn.Module, other: nn.Module) -> None:
    """Give `block` the layers of `other` that it has not. They only keep weights; it is not to be run any more."""
    for name, child in other.named_children():
        mine = block._modules.get(name)
        if mine is None or not layers(mine):
            block._modules[name] = child
        else:
            _graft(mine, child)


def channels(inputs: Layouts) -> list[int]:
    return [sum(runs) for runs in inputs]


def _layout(found: Trace, c_out: int) -> Layout:
    return found.output if sum(found.output) == c_out else (c_out,)


def greatest(values: Sequence[Any]) -> Any:
    return max(values) if all(isinstance(v, (int, float)) for v in values) else values[0]
