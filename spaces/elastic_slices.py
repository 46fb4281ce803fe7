"""Which part of the whole block's tensors a narrower block has.

Channels: the first of every run (`elastic_trace`). Kernels: the centre. Depth: the first layers. Groups: the first
groups, or the first channels of every group.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.blocks import Attention

from .elastic_trace import Layout, Trace, layers

# (start in the whole, start in the narrower, length)
Segment = tuple[int, int, int]
Index = tuple[slice, ...]


class MismatchError(ValueError):
    """A block whose tensors are no part of the whole block's."""


class Cut:
    """A part of a tensor, made of one block of it or of several.

    Attributes
    ----------
    shape
        Of the part.
    blocks
        Where they are in the whole, and where they go in the part.
    is_view
        Whether the part is contiguous in the whole, so that it can stand for it in place.
    """

    def __init__(self, shape: Sequence[int], blocks: Sequence[tuple[Index, Index]], whole: Sequence[int]) -> None:
        self.shape, self.blocks = tuple(shape), tuple(blocks)
        self.is_view = len(blocks) == 1 and tuple(shape[1:]) == tuple(whole[1:])
        self._first = blocks[0][0]
        self._start = self._first[0].start if self.is_view else 0

    def __call__(self, whole: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            if self.is_view:
                return whole.narrow(0, self._start, self.shape[0])
            if whole.requires_grad:
                return _CutOut.apply(whole, self)  # type: ignore[no-any-return]
        part = whole.narrow(0, self._start, self.shape[0]) if self.is_view else self.copy(whole)
        # As the plain network's parameters do: PyTorch's matmul chooses its way by it, even where nothing is recorded.
        return part.requires_grad_(whole.requires_grad)

    def copy(self, whole: Tensor) -> Tensor:
        if len(self.blocks) == 1:
            return whole[self._first].contiguous()
        part = whole.new_empty(self.shape)
        for source, target in self.blocks:
            part[target] = whole[source]
        return part

    def put(self, whole: Tensor, part: Tensor) -> None:
        """Write the part back into the whole."""
        for source, target in self.blocks:
            whole[source] = part[target]


class _CutOut(torch.autograd.Function):
    """One node, whose gradient is made in one go, where slicing dimension by dimension has one for each."""

    in_place = False

    @staticmethod
    def forward(ctx: Any, whole: Tensor, cut: Cut) -> Tensor:  # type: ignore[override]
        ctx.cut, ctx.whole = cut, whole
        return cut.copy(whole)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:  # type: ignore[override]
        if _CutOut.in_place and ctx.whole.grad is not None:
            for source, target in ctx.cut.blocks:
                ctx.whole.grad[source] += grad[target]
            return None, None
        whole = grad.new_zeros(ctx.whole.shape)
        ctx.cut.put(whole, grad)
        return whole, None


@contextmanager
def gradients_in_place() -> Iterator[None]:
    """Within it, ``backward()`` adds a slice's gradients to the ``.grad`` that its parameters have already.

    Else a tensor of the whole size is made for each of them, which for several subnets a step is what slicing costs
    most. For plain ``backward()`` only: `torch.autograd.grad`, hooks on parameters and DDP do not see these gradients.
    """
    _CutOut.in_place = True
    try:
        yield
    finally:
        _CutOut.in_place = False


def cuts(
    part: nn.Module, whole: nn.Module, part_trace: Trace, whole_trace: Trace, names: Mapping[str, str]
) -> dict[tuple[str, str], Cut | None]:
    """(layer, tensor) of the block `part` to what it is of the same tensor of `whole`; None where it is all of it.

    Parameters
    ----------
    names
        Layers of `part` to their names in `whole`.

    Raises
    ------
    MismatchError
        If a tensor of `part` is not contained in `whole`.
    """
    found: dict[tuple[str, str], Cut | None] = {}
    for name in layers(part):
        of_layer = cuts_of_layer(part, whole, part_trace, whole_trace, name, names[name])
        found.update({(name, key): cut for key, cut in of_layer.items()})
    return found


def cuts_of_layer(
    part: nn.Module, whole: nn.Module, part_trace: Trace, whole_trace: Trace, name: str, name_in_whole: str
) -> dict[str, Cut | None]:
    """As `cuts`, of one layer: tensor to what it is of the same tensor in `whole`."""
    layer, other = part.get_submodule(name), layers(whole).get(name_in_whole)
    if other is None or type(other) is not type(layer):
        raise MismatchError(f"it has the layer '{name}' ({type(layer).__name__}), which the whole block has not")
    runs = _Runs(
        _along(part_trace.inputs.get(name, ()), whole_trace.inputs.get(name_in_whole, ())),
        _along(part_trace.outputs.get(name, ()), whole_trace.outputs.get(name_in_whole, ())),
    )
    parent = part.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention) and isinstance(layer, nn.Linear):
        runs.inputs = _equal_runs(parent.num_heads, layer.in_features, cast(nn.Linear, other).in_features)
    if (heads := _attention(part, name)) is not None:
        runs.outputs = _by_head(heads, cast(Attention, _attention(whole, name_in_whole)))
    found: dict[str, Cut | None] = {}
    for kind in (layer._parameters, layer._buffers):
        for key, tensor in kind.items():
            if tensor is None:
                continue
            mine, all_of = tuple(tensor.shape), tuple(getattr(other, key).shape)
            if len(mine) != len(all_of) or any(a > b for a, b in zip(mine, all_of, strict=True)):
                tensor_name = f"{name}.{key}".lstrip(".")
                raise MismatchError(f"'{tensor_name}' is {_text(mine)}, and of the whole block {_text(all_of)}")
            blocks = list(_blocks(layer, other, key, mine, all_of, runs))
            found[key] = None if _is_all(blocks, mine, all_of) else Cut(mine, blocks, all_of)
    return found


def _attention(block: nn.Module, name: str) -> Attention | None:
    """The attention whose queries, keys and values a layer makes or normalises, if that is what it does."""
    parent, _, leaf = name.rpartition(".")[0].rpartition(".")
    found = block.get_submodule(parent) if leaf == "qkv" else None
    return found if isinstance(found, Attention) else None


def _by_head(part: Attention, whole: Attention) -> list[Segment] | None:
    """The first queries, keys and values of the first heads."""
    if part.num_heads > whole.num_heads or part.value_width > whole.value_width:
        raise MismatchError(
            f"its attention has heads of {part.num_heads} x {part.value_width} channels, and of the whole block "
            f"{whole.num_heads} x {whole.value_width}, which do not contain them: give attention one width"
        )
    runs = [(a.key_width, a.key_width, a.value_width) * a.num_heads for a in (part, whole)]
    return _along(runs[0], runs[1])


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _equal_runs(count: int, mine: int, all_of: int) -> list[Segment] | None:
    return _along((mine // count,) * count, (all_of // count,) * count)


class _Runs:
    def __init__(self, inputs: list[Segment] | None, outputs: list[Segment] | None) -> None:
        self.inputs, self.outputs = inputs, outputs


def _along(part: Layout, whole: Layout) -> list[Segment] | None:
    """The first channels of every run, of the first runs if they are fewer; None where they do not correspond."""
    if not part or len(part) > len(whole) or any(a > b for a, b in zip(part, whole, strict=False)):
        return None
    starts = zip(itertools.accumulate((0, *whole)), itertools.accumulate((0, *part)), part, strict=False)
    merged: list[Segment] = []
    for start, at, length in starts:
        if merged and merged[-1][0] + merged[-1][2] == start:
            first, to, so_far = merged.pop()
            start, at, length = first, to, so_far + length
        merged.append((start, at, length))
    return merged


def _is_all(blocks: list[tuple[Index, Index]], mine: Sequence[int], all_of: Sequence[int]) -> bool:
    return tuple(mine) == tuple(all_of) and len(blocks) == 1


def _blocks(
    layer: nn.Module, other: nn.Module, key: str, mine: Sequence[int], all_of: Sequence[int], runs: _Runs
) -> Iterator[tuple[Index, Index]]:
    dims: list[list[Segment]] = [[(0, 0, n)] for n in mine]

    def set_dim(dim: int, segments: list[Segment] | None) -> None:
        if segments is not None and sum(s[2] for s in segments) == mine[dim]:
            dims[dim] = segments

    if isinstance(layer, nn.modules.conv._ConvNd) and isinstance(other, nn.modules.conv._ConvNd):
        if len(mine) == 1:  # a bias
            set_dim(0, runs.outputs)
        else:
            for dim in range(2, len(mine)):
                dims[dim] = [(all_of[dim] // 2 - mine[dim] // 2, 0, mine[dim])]
            if layer.groups > 1:
                for pair in _grouped(layer, other, runs):
                    yield from _product([*pair, *([d] for d in itertools.chain(*dims[2:]))])
                return
            out_dim = 1 if layer.transposed else 0
            set_dim(out_dim, runs.outputs)
            set_dim(1 - out_dim, runs.inputs)
    elif isinstance(layer, nn.MultiheadAttention) and key.startswith("in_proj"):
        # Queries, keys and values, each of so many heads.
        set_dim(0, _equal_runs(3 * layer.num_heads, mine[0], all_of[0]))
        if key == "in_proj_weight":
            set_dim(1, runs.inputs)
    elif isinstance(layer, nn.Linear):
        set_dim(0, runs.outputs)
        if key == "weight":
            set_dim(1, runs.inputs)
    elif len(mine) == 1:
        set_dim(0, runs.outputs)
    yield from _product(dims)


def _product(dims: Sequence[Sequence[Segment]]) -> Iterator[tuple[Index, Index]]:
    for combination in itertools.product(*dims):
        yield (
            tuple(slice(start, start + n) for start, _, n in combination),
            tuple(slice(at, at + n) for _, at, n in combination),
        )


def _grouped(part: Any, whole: Any, runs: _Runs) -> Iterator[tuple[list[Segment], list[Segment]]]:
    """Dimensions 0 and 1 of the weights of a grouped convolution."""
    side = (part.in_channels, part.out_channels) if part.transposed else (part.out_channels, part.in_channels)
    whole_side = (
        (whole.in_channels, whole.out_channels) if whole.transposed else (whole.out_channels, whole.in_channels)
    )
    # Channels a group, along dimension 0 and dimension 1.
    a, b = side[0] // part.groups, side[1] // part.groups
    whole_a, whole_b = whole_side[0] // whole.groups, whole_side[1] // whole.groups
    if (a, b) == (whole_a, whole_b):
        segments = runs.inputs if part.transposed else runs.outputs
        fits = segments is not None and a == 1 and sum(s[2] for s in segments) == side[0]
        yield (segments if segments is not None and fits else [(0, 0, side[0])]), [(0, 0, b)]
    elif part.groups == whole.groups:
        for g in range(part.groups):
            yield [(g * whole_a, g * a, a)], [(0, 0, b)]
    elif all(
        g * a // whole_a == ((g + 1) * a - 1) // whole_a == g * b // whole_b == ((g + 1) * b - 1) // whole_b
        for g in range(part.groups)
    ):
        # The first channels; every group lies within one of the larger ones.
        for g in range(part.groups):
            yield [(g * a, g * a, a)], [(g * b % whole_b, 0, b)]
    else:
        raise MismatchError(
            f"{part.groups} groups of {a} x {b} channels, and of the whole block {whole.groups} of {whole_a} x "
            f"{whole_b}: the groups' width must be the same, or divide the whole"
        )
