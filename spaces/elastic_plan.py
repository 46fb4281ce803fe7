"""One elastic row: the largest block, and for every setting the plain block that takes its part of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.complexity import count_params
from models.errors import InputError
from models.grammar import Row

from .elastic_options import Options, Setting, greatest
from .elastic_slices import Cut, MismatchError, cuts
from .elastic_trace import Flow, Layout, Trace, flow, layers, signature

# Of a row, kept at a time: some 100 KB each, and a few milliseconds to make again.
MOST_PLANS = 256
_KEEP_SHAPE = (nn.BatchNorm2d, nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Hardsigmoid, nn.GELU, nn.Mish)
# What a training may set on the largest block's modules: mode, moving average of batch norms, dropout, drop-path.
_FOLLOWED = ("training", "momentum", "p", "drop_prob")

# Runs of the channels of every input.
Layouts = tuple[Layout, ...]


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


class BoundPlan:
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
            mine, theirs = module.__dict__, source.get(plan.names[name], whole).__dict__
            self.flags += [(mine, theirs, key) for key in _FOLLOWED if key in mine and key in theirs]
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
    maps
        If not 0, the only input is a list of so many.

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
        repeated: Callable[[Row], int] | None = None,
        flat: bool = False,
        maps: int = 0,
    ) -> None:
        self.row, self.options = row, options
        self._build, self._repeated, self._flat, self._maps = build, repeated or _once, flat, maps
        self._widest = inputs
        self.listed = isinstance(row.source, tuple)
        self._plans, self._flows = Cache(), Cache()
        self._largest_row, self._more = self._find_largest()
        block, c_out = self._skeleton(self._largest_row, inputs)
        self._trace = self._traced(block, inputs)
        self._largest = self._with_more(block, lambda row: self._skeleton(row, inputs)[0])
        self.layout = _layout(self._trace, c_out)

    def __deepcopy__(self, memo: dict[int, Any]) -> ElasticSpec:
        return self

    def largest(self) -> tuple[nn.Module, int]:
        """The largest block with weights, and channels of its output."""
        c_in = channels(self._widest)
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
        names = self._names(block, row, self._largest_row)
        found = self._traced(block, inputs)
        try:
            parts = cuts(block, self._largest, found, self._trace, names)
        except MismatchError as e:
            if identities(block, names).items() - identities(self._largest).items():
                raise self.row.error(f"at {self.describe(setting, inputs)}: {NO_IDENTITY}") from None
            raise self.row.error(f"at {self.describe(setting, inputs)}: {e}") from None
        is_largest = row == self._largest_row and inputs == self._widest and not self._more
        return Plan(block, _layout(found, c_out), parts, names, is_largest)

    def _names(self, block: nn.Module, row: Row, largest: Row) -> dict[str, str]:
        """Modules of a row's block to what the largest calls them: the first of several has a "0."."""
        prefix = "0." if self._repeated(largest) > 1 == self._repeated(row) else ""
        return {name: f"{prefix}{name}".rstrip(".") for name, _ in block.named_modules()}

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
                return plan.block.eval()(x if self.listed else [x[0]] * self._maps if self._maps else x[0])
        except NotImplementedError:
            return None  # it looks at numbers, which are not there
        finally:
            for module in neutral:
                del vars(module)["forward"]

    def describe(self, setting: Setting, inputs: Layouts) -> str:
        """A setting for messages."""
        pairs = zip(self.options.labels, setting, strict=True)
        values = [f"{label}={self.options.decided[label][i]}" for label, i in pairs]
        return ", ".join([*values, f"input channels {' and '.join(map(str, channels(inputs)))}"])

    def _find_largest(self) -> tuple[Row, list[Row]]:
        """Every choice at the value that needs the most weights; and settings with layers that this has not."""
        places = self.options.places
        best = {where: greatest(values) for where, (_, values) in places.items()}
        tried: list[tuple[Row, nn.Module]] = []
        for where, (_, values) in places.items():
            sizes: dict[int, int] = {}
            for i, value in enumerate(values):
                row = self.options.row({**best, where: value})
                try:
                    block, _ = self._skeleton(row, self._widest)
                except InputError:
                    continue  # if a setting comes to this, it is refused when that is looked at
                sizes[i] = 2 * count_params(block) + (value == best[where])
                tried.append((row, block))
            best[where] = values[max(sizes, key=lambda i: sizes[i])] if sizes else best[where]
        largest = self.options.row(best)
        known, more = set(layers(self._skeleton(largest, self._widest)[0])), []
        for row, block in tried:
            names = self._names(block, row, largest)
            if not known.issuperset(found := {names[name] for name in layers(block)}):
                known |= found
                more.append(row)
        return largest, more

    def _with_more(self, block: nn.Module, build: Callable[[Row], nn.Module]) -> nn.Module:
        for row in self._more:
            other = build(row)
            _graft(block.get_submodule(self._names(other, row, self._largest_row)[""]), other)
        return block

    def _traced(self, block: nn.Module, inputs: Layouts) -> Trace:
        key = tuple(map(len, inputs)), signature(block)
        if known := self._flows.get(key):
            return cast(Flow, known).at(block, inputs)
        found, self._flows[key] = flow(block, inputs, self.listed, self._flat, self._maps)
        return found

    def _skeleton(self, row: Row, inputs: Layouts) -> tuple[nn.Module, int]:
        """A block without weights, and channels of its output."""
        c_in = channels(inputs)
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


def _once(row: Row) -> int:
    return 1


def channels(inputs: Layouts) -> list[int]:
    return [sum(runs) for runs in inputs]


def _layout(found: Trace, c_out: int) -> Layout:
    return found.output if sum(found.output) == c_out else (c_out,)
