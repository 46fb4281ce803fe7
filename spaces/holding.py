"""The subnets of a space that hold a plain network: the smallest, which is it where the space has it, and the largest.

A subnet holds a network if, row by row, it has all of its layers, each of at least its size, and differs in nothing
else: strides, activations, shortcuts. Rows are looked at one after the other, a decision at a time, beginning with the
plain network that the space was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from models.catalog import is_head, lookup
from models.complexity import count_params
from models.errors import InputError
from models.grammar import Config, Row

from .elastic import build_with, repeated
from .elastic_plan import names_in, skeleton
from .elastic_trace import layers
from .rows import SpaceRow
from .space import Arch, Space

# What a layer's size is, and what does not touch what it computes in eval mode.
_NO_TRAITS = ("training", "inplace", "transposed", "affine", "track_running_stats")
_RIGHT = "right would be weights of the network that the space was made of, or of one like it"


class Holding(NamedTuple):
    """Subnets that hold a network.

    Attributes
    ----------
    smallest, largest
        Archs; of the largest, decisions that are none on size are those of the network.
    is_exact
        Whether the smallest is the network itself.
    """

    smallest: Arch
    largest: Arch
    is_exact: bool


class _Difference(NamedTuple):
    """A plain row held against a subnet's."""

    lacking: list[str]  # layers and tensors that the subnet's has not, or not large enough
    other: list[str]  # what is done differently
    unequal: int  # layers and tensors that only one of them has, or that are not of one size
    excess: int  # parameters that the subnet's has more


def find_holding(space: Space, plain: Config) -> Holding:
    """Find the subnets of `space` that hold a network.

    Parameters
    ----------
    plain
        The network's YAML, with as many rows and classes as the space has.

    Raises
    ------
    InputError
        No subnet holds it; says which row is in the way.
    """
    _check_rows(space, plain)
    smallest, largest, is_exact = space.upstream(), space.upstream(), True
    fixed: set[str] = set()
    channels: list[tuple[int, int, int]] = []  # of each row's output: the plain's, the smallest's, the largest's
    for own, row in zip(plain.rows, space.rows, strict=True):
        before = [(space.config.ch,) * 3 if j < 0 else channels[j] for j in own.sources]
        block, c_out = _built(plain, own, [c for c, _, _ in before])
        of_small = _Comparison(space, row, (plain, own, block), [c for _, c, _ in before])
        labels = [label for label in row.labels if label not in fixed]
        # First as if it was in the space: what holds it may be small in one decision because it is large in another.
        smallest = _descend(row, labels, smallest, of_small.nearest_first, space, good=(0,))
        smallest = _descend(row, labels, smallest, of_small.smallest_first, space, good=(0, 0, 0))
        difference = of_small.at(smallest)
        if difference is None or difference.lacking or difference.other:
            raise own.error(_why(plain, own, c_out, difference, of_small, smallest))
        is_exact &= difference.excess == 0
        of_large = _Comparison(space, row, (plain, own, block), [c for _, _, c in before])
        largest = {**largest, **{label: smallest[label] for label in labels}}
        largest = _descend(row, labels, largest, of_large.largest_first, space)
        fixed.update(labels)
        channels.append((c_out, of_small.c_out(smallest), of_large.c_out(largest)))
    if space.resolution is not None and plain.raw.get("resolution") in space.resolution.values:
        smallest["resolution"] = largest["resolution"] = plain.raw["resolution"]
    return Holding(smallest, largest, is_exact)


def _check_rows(space: Space, plain: Config) -> None:
    """The rows of both are of the same modules and feed one another alike."""
    theirs = [space.row_at(row.row, space.upstream()) for row in space.rows]
    if plain.ch != space.config.ch:
        raise InputError(
            f"{plain.file}: takes images of {plain.ch} channels, and the space of {space.config.ch}; right would be "
            "weights for the same images"
        )
    fits = [_kind(a) == _kind(b) for a, b in zip(plain.rows, theirs, strict=False)]
    if not any(fits):
        raise InputError(
            f"{plain.file}: no row of it is one of {space.config.file}: weights of another family; {_RIGHT}"
        )
    if not all(fits):
        own = plain.rows[fits.index(False)]
        other = theirs[own.index]
        raise own.error(
            f"is fed by {list(own.sources)}, and in the space this row is {other.module}, fed by "
            f"{list(other.sources)}; {_RIGHT}"
        )
    if len(plain.rows) != len(theirs):
        raise InputError(f"{plain.file}: has {len(plain.rows)} rows, and the space {len(theirs)}; {_RIGHT}")
    if plain.num_anchors != space.config.num_anchors and is_head(plain.rows[-1]):
        raise plain.rows[-1].error(
            f"has {plain.num_anchors} anchors a level, and the space's {space.config.num_anchors}; right would be "
            "weights with as many, or a space with these anchors"
        )


def _kind(row: Row) -> tuple[str, tuple[int, ...]]:
    return row.module, row.sources


def _built(config: Config, row: Row, c_in: Sequence[int]) -> tuple[nn.Module, int]:
    return skeleton(partial(build_with, config), row, c_in)


class _Comparison:
    """A plain row held against a row of a space, at archs."""

    def __init__(self, space: Space, row: SpaceRow, plain: tuple[Config, Row, nn.Module], c_in: Sequence[int]) -> None:
        self.space, self.row, self.c_in = space, row, c_in
        self.plain, self.own, self.block = plain
        self.size = count_params(self.block)
        self._seen: dict[tuple[Any, ...], tuple[_Difference | None, int]] = {}

    def at(self, arch: Arch) -> _Difference | None:
        """None where the row cannot be built."""
        return self._at(arch)[0]

    def c_out(self, arch: Arch) -> int:
        return self._at(arch)[1]

    def _at(self, arch: Arch) -> tuple[_Difference | None, int]:
        key = tuple(arch[label] for label in self.row.labels)
        if key not in self._seen:
            try:
                theirs = self.space.row_at(self.row.row, arch)
                block, c_out = _built(self.space.config, theirs, self.c_in)
                times = repeated(self.plain, self.own), repeated(self.space.config, theirs)
                found = _difference(self.block, block, names_in(self.block, *times), self.size)
                self._seen[key] = found, c_out
            except InputError:
                self._seen[key] = None, 0
        return self._seen[key]

    def nearest_first(self, arch: Arch) -> tuple[float, ...]:
        found = self.at(arch)
        return (float("inf") if found is None else float(found.unequal + len(found.other)),)

    def smallest_first(self, arch: Arch) -> tuple[float, ...]:
        found = self.at(arch)
        return (
            (float("inf"),) * 3 if found is None else (len(found.lacking), len(found.other), float(abs(found.excess)))
        )

    def largest_first(self, arch: Arch) -> tuple[float, ...]:
        found = self.at(arch)
        return (float("inf"), 0) if found is None else (len(found.lacking) + len(found.other), float(-found.excess))


def _descend(
    row: SpaceRow,
    labels: Sequence[str],
    start: Arch,
    cost: Callable[[Arch], tuple[float, ...]],
    space: Space,
    good: tuple[float, ...] | None = None,
) -> Arch:
    """The arch to which no change of one decision is to be preferred."""
    at, best = dict(start), cost(start)
    improved = True
    while improved and best != good:
        improved = False
        for label in labels:
            for value in space.decisions[label].values:
                trial = {**at, label: value}
                if (found := cost(trial)) < best:
                    at, best, improved = trial, found, True
    return at


def _difference(part: nn.Module, whole: nn.Module, names: Mapping[str, str], size: int) -> _Difference:
    lacking: list[str] = []
    other: list[str] = []
    unequal = len({names[name] for name in layers(part)} ^ layers(whole).keys())
    theirs = dict(whole.named_modules())
    for name, module in part.named_modules():
        match = theirs.get(names[name])
        if match is None or type(match) is not type(module):
            has_weights = bool(module._parameters or module._buffers)
            said = f"'{name}' is {type(module).__name__}" if match is not None else f"'{name}' is not there"
            (lacking if match is None or has_weights else other).append(said)
            continue
        for kind in (module._parameters, module._buffers):
            for key, tensor in kind.items():
                if tensor is None:
                    continue
                large = getattr(match, key)
                unequal += large is None or tensor.shape != large.shape
                if large is None or any(a > b for a, b in zip(tensor.shape, large.shape, strict=True)):
                    lacking.append(f"'{name}.{key}' is {list(tensor.shape)}".replace("'.", "'"))
        mine, yours = _traits(module), _traits(match)
        other += [f"'{name}' has {k} {v}, there {yours[k]}" for k, v in mine.items() if yours.get(k, v) != v]
    return _Difference(lacking, other, unequal, count_params(whole) - size)


def _traits(module: nn.Module) -> dict[str, Any]:
    """What a module does beside its size."""
    if isinstance(module, nn.modules.conv._ConvNd):
        found: dict[str, Any] = {k: getattr(module, k) for k in ("stride", "dilation", "padding_mode")}
        padding = module.padding
        if not isinstance(padding, str):  # it grows with the kernel
            reach = zip(padding, module.kernel_size, module.dilation, strict=True)
            padding = tuple(2 * p - d * (k - 1) for p, k, d in reach)
        return {**found, "padding": padding, "bias": module.bias is not None}
    plain = {k: v for k, v in vars(module).items() if not k.startswith("_") and k not in _NO_TRAITS}
    if layers(module) or any(True for _ in module.children()):
        kinds: tuple[type, ...] = (bool, str)
    else:  # an activation, a pool, an upsampling: all that it says
        kinds = (bool, str, int, float, tuple)
    return {k: v for k, v in plain.items() if isinstance(v, kinds) or k == "eps"}


def _why(plain: Config, own: Row, c_out: int, difference: _Difference | None, of: _Comparison, nearest: Arch) -> str:
    """What is in the way of the subnet that comes nearest."""
    right = "right would be weights of a smaller network, or a space that holds these"
    if difference is None:
        return f"no setting of the space can be built on what comes before; {right}"
    choices = [nearest]
    for label in of.row.labels:
        choices += [{**nearest, label: value} for value in of.space.decisions[label].values]
    if c_out > (widest := max(map(of.c_out, choices))):
        return f"is {c_out} channels wide, and the space's at most {widest}; {right}"
    if not lookup(own).repeats and own.number == 1:
        deepest = 1
    else:
        deepest = max(of.space.config.depth(of.space.row_at(of.row.row, arch)) for arch in choices)
    if (depth := plain.depth(own)) > deepest:
        return f"has {depth} blocks, and the space's at most {deepest}; {right}"
    if difference.lacking:
        more = f" and {len(difference.lacking) - 1} more" if len(difference.lacking) > 1 else ""
        return f"{difference.lacking[0]}{more}, for which the space's row has no place; {right}"
    return f"{difference.other[0]}; right would be weights of a network that does in this row what the space does"
