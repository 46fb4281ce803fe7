"""Where a block's channels come from: its input, or the layer inside that makes them, in runs.

A convolution behind a concatenation takes runs of channels from several layers, and the narrower block takes the first
channels of every run. Blocks do not say so: it is read off a forward in which every channel is a number that tells
where it was made, and in which nothing is computed but what moves channels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from models.head import Head
from models.network import Network

# Lengths of the runs that a tensor's channels come in.
Layout = tuple[int, ...]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
_CONVS = (nn.modules.conv._ConvNd,)
_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention)  # channels are the last dimension
_MOVES = {
    *("cat", "concat", "stack", "chunk", "split", "unbind", "tensor_split", "narrow", "select", "index_select"),
    *("__getitem__", "__setitem__", "gather", "flip", "roll", "permute", "transpose", "movedim", "swapaxes", "t"),
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "repeat", "unfold", "__get__"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
}
_PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm", "einsum"}  # they take no channel with the other's at its place
_SIZE = 8
# More runs than that are no concatenation, but a product of numbers that meant channels.
_MOST_RUNS = 256


# Where a run was made: a layer by name, or (number of the input, number of the run in it).
Origin = str | tuple[int, int]


@dataclass
class Trace:
    """Runs of channels in a block.

    Attributes
    ----------
    inputs, outputs
        Layer to the runs of what it takes and gives.
    output
        Of the block; empty if that is no map of features.
    rows
        Of a whole network, what each row gives; empty where that is no map.
    """

    inputs: dict[str, Layout] = field(default_factory=dict)
    outputs: dict[str, Layout] = field(default_factory=dict)
    output: Layout = ()
    rows: list[Layout] = field(default_factory=list)


class Flow(NamedTuple):
    """A trace without numbers: where the runs are from. Blocks of the same layers have the same."""

    inputs: dict[str, tuple[Origin, ...]]
    outputs: dict[str, tuple[Origin, ...]]
    output: tuple[Origin, ...]

    def at(self, block: nn.Module, inputs: Sequence[Layout]) -> Trace:
        """The trace of a block of the same layers."""
        widths: dict[Origin, int] = {name: _width(layer) or 0 for name, layer in layers(block).items()}
        widths |= {(i, j): n for i, runs in enumerate(inputs) for j, n in enumerate(runs)}

        def lengths(origins: Sequence[Origin]) -> Layout:
            return tuple(widths[o] for o in origins)

        taken = {name: lengths(origins) for name, origins in self.inputs.items()}
        given = {name: lengths(origins) for name, origins in self.outputs.items()}
        return Trace(taken, given, lengths(self.output))


def _width(layer: nn.Module) -> int | None:
    """Channels of a layer's output, if it says so."""
    for name in ("out_channels", "out_features", "embed_dim"):
        if isinstance(width := getattr(layer, name, None), int):
            return width
    return None


def layers(block: nn.Module) -> dict[str, nn.Module]:
    """The modules of a block that have parameters or buffers of their own."""
    return {name: m for name, m in block.named_modules() if m._parameters or m._buffers}


def signature(block: nn.Module) -> Hashable:
    """Equal for blocks whose channels flow alike."""
    return tuple((name, type(m), _by_itself(m)) for name, m in layers(block).items())


def _by_itself(layer: nn.Module) -> bool:
    """Whether a convolution treats every channel by itself."""
    return isinstance(layer, _CONVS) and layer.groups == layer.in_channels == layer.out_channels


class _Moves(TorchFunctionMode):
    """Functions that move channels do so; all others give back the argument that has the result's shape.

    Attributes
    ----------
    joined
        Pairs of maps that a function took together, channel by channel: a sum's terms, a gate and what it weighs.
    """

    paused = False

    def __init__(self) -> None:
        super().__init__()
        self.joined: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        args, kwargs = tree_map_only(Tensor, _real, (args, kwargs))
        if name in _MOVES:
            return func(*args, **kwargs)
        out = func(*tree_map_only(Tensor, Tensor.clone, args), **tree_map_only(Tensor, Tensor.clone, kwargs))
        if isinstance(out, Tensor) and out.is_floating_point():
            given = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.is_floating_point()]
            for arg in given:
                if arg.shape == out.shape:
                    if name in _PRODUCTS:
                        return arg
                    self.joined += [_numbers_of_both(arg, a) for a in given if a is not arg and a.ndim == arg.ndim]
                    return arg
        return out


def _numbers_of_both(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """What two maps carry at the same place, once for each channel."""
    if a.ndim == 4:
        a, b = (x[:1, :, x.shape[2] // 2, x.shape[3] // 2] for x in (a, b))
    pairs = torch.stack([x.flatten() for x in torch.broadcast_tensors(a, b)]).unique(dim=1).round().long()
    return pairs[0], pairs[1]


def _real(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor


def _channels_of(x: Tensor, dim: int) -> Tensor:
    """The number that each channel carries, read in the middle: padding carries none."""
    flat = x.movedim(dim, 0).flatten(1) if x.ndim > 1 else x[:, None]
    if x.ndim == 4 and dim == 1:
        flat = x[0, :, x.shape[2] // 2, x.shape[3] // 2, None]
    return flat.amax(1).round().long()


class _Tracer:
    def __init__(self, block: nn.Module) -> None:
        self.mode, self.next_id = _Moves(), 1
        self.taken: dict[str, Tensor] = {}
        self.given: dict[str, Tensor] = {}
        # First number to where it was made, and how many there are.
        self.origins: dict[int, tuple[Origin, int]] = {}
        inner = {id(p) for m in block.modules() if isinstance(m, nn.MultiheadAttention) for p in m.children()}
        self.layers = {
            name: m
            for name, m in layers(block).items()
            if id(m) not in inner and (not any(m.children()) or isinstance(m, _LAST))
        }

    def fresh(self, shape: Sequence[int], dim: int, origin: Origin) -> Tensor:
        """A tensor of channels that come from nowhere else."""
        count = shape[dim]
        self.origins[self.next_id] = origin, count
        numbers = torch.arange(self.next_id, self.next_id + count, dtype=torch.float32)
        self.next_id += count + 1  # a gap, so that no run goes on into the next one
        return _spread(numbers, shape, dim)

    def replaced(self, name: str, layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            x = next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
            dim = x.ndim - 1 if isinstance(layer, _LAST) else min(1, x.ndim - 1)
            self.mode.paused = True
            try:
                meta = next(t for t in (*layer._parameters.values(), *layer._buffers.values()) if t is not None).is_meta
                called = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs)) if meta else (args, kwargs)
                out = forward(*called[0], **called[1])
                first = out[0] if isinstance(out, tuple) else out
                taken = _channels_of(x, dim)
                if self.keeps(layer, x.shape, first.shape):
                    y = _spread(taken.float(), first.shape, dim)
                else:
                    y = self.fresh(first.shape, dim, name)
            finally:
                self.mode.paused = False
            given = _channels_of(y, dim)
            if name in self.taken:  # run anew, on another map: its channels are the same
                self.mode.joined += [(self.taken[name], taken), (self.given[name], given)]
            self.taken.setdefault(name, taken)
            self.given.setdefault(name, given)
            return (y, *out[1:]) if isinstance(out, tuple) else y

        return run

    @staticmethod
    def keeps(layer: nn.Module, before: Sequence[int], after: Sequence[int]) -> bool:
        """Whether a layer treats every channel by itself."""
        if isinstance(layer, _CONVS):
            return _by_itself(layer)
        return isinstance(layer, _NORMS) or (not isinstance(layer, _LAST) and before == after)

    @contextmanager
    def watching(self) -> Iterator[None]:
        for name, layer in self.layers.items():
            layer.__dict__["forward"] = self.replaced(name, layer, layer.forward)
        try:
            with self.mode, torch.no_grad():
                yield
        finally:
            for layer in self.layers.values():
                del layer.__dict__["forward"]


def _spread(numbers: Tensor, shape: Sequence[int], dim: int) -> Tensor:
    along = [1] * len(shape)
    along[dim] = -1
    return numbers.view(along).expand(*shape).contiguous()


def flow(block: nn.Module, inputs: Sequence[Layout], listed: bool, flat: bool, maps: int) -> tuple[Trace, Flow | None]:
    """The runs of channels in `block`; and where they are from, unless a layer takes but a part of another's.

    Parameters
    ----------
    inputs
        Runs of every input.
    listed
        Whether the block takes a list of inputs.
    flat
        Whether the inputs are (N, c) and not (N, c, H, W).
    maps
        If not 0, the only input is a list of so many.

    Where a block does what cannot be followed, its channels count as one run.
    """
    tail = () if flat else (_SIZE, _SIZE)
    return _found(*_followed(block, inputs, tail, lambda given: block(as_taken(given, listed, maps))))


def _found(tracer: _Tracer, output: Any, rows: Sequence[Tensor] = ()) -> tuple[Trace, Flow | None]:
    output = output[0] if isinstance(output, list) else output
    out = [_channels_of(output, 1)] if isinstance(output, Tensor) and output.ndim > 1 else []
    cuts = torch.cat(
        [_boundaries(ids) for ids in [*tracer.taken.values(), *out, *rows] if len(ids)] or [torch.zeros(0)]
    ).unique()
    inputs_of = {name: _runs(ids, cuts) for name, ids in tracer.taken.items()}
    outputs_of = {name: _runs(ids, cuts) for name, ids in tracer.given.items()}
    output_of = _runs(out[0], cuts) if out else []
    found = Trace(
        {name: _lengths(runs) for name, runs in inputs_of.items()},
        {name: _lengths(runs) for name, runs in outputs_of.items()},
        _lengths(output_of),
        [_lengths(_runs(ids, cuts)) if len(ids) else () for ids in rows],
    )
    every = [*inputs_of.values(), *outputs_of.values(), output_of]
    made = {o for o, _ in tracer.origins.values() if isinstance(o, str)}
    if any(tracer.origins.get(start, (None, 0))[1] != n for runs in every for start, n in runs) or any(
        _width(tracer.layers[name]) is None for name in made
    ):
        return found, None

    def origins(runs: Sequence[tuple[int, int]]) -> tuple[Origin, ...]:
        return tuple(tracer.origins[start][0] for start, _ in runs)

    return found, Flow(
        {name: origins(runs) for name, runs in inputs_of.items()},
        {name: origins(runs) for name, runs in outputs_of.items()},
        origins(output_of),
    )


class Channels(NamedTuple):
    """Channels of a network, by numbers that tell which they are.

    Attributes
    ----------
    taken, given
        Layer to the numbers of what it takes and gives; one that treats every channel by itself gives what it takes.
    joined
        (2, n): what is added, or weighed, channel by channel.
    rows
        Numbers of what each row of the network gives; empty where that is no map.
    inputs
        Numbers of the network's input.
    """

    taken: dict[str, Tensor]
    given: dict[str, Tensor]
    joined: Tensor
    rows: list[Tensor]
    inputs: Tensor


def trace_network(network: Network, size: int) -> tuple[Trace, Channels]:
    """The runs, and the numbers, of the channels of a whole network. Its head, if it has one, does not decode.

    Parameters
    ----------
    size
        Pixels a side of the images.
    """
    c_in, rows = network.config.ch, [torch.zeros(0).long()] * len(network.model)

    def take_note(index: int, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            rows[index] = _channels_of(output, 1)

    handles = [
        row.register_forward_hook(lambda _, __, output, index=index: take_note(index, output))
        for index, row in enumerate(network.model)
    ]
    tracer, output = _followed(network, [(c_in,)], (size, size), lambda given: network(given[0]))
    for handle in handles:
        handle.remove()
    pairs = torch.cat([torch.zeros(2, 0).long(), *(torch.stack(pair) for pair in tracer.mode.joined)], 1)
    return _found(tracer, output, rows)[0], Channels(tracer.taken, tracer.given, pairs, rows, torch.arange(1, c_in + 1))


def _followed(
    block: nn.Module, inputs: Sequence[Layout], tail: tuple[int, ...], run: Callable[[list[Tensor]], Any]
) -> tuple[_Tracer, Any]:
    """(what was seen, what `run` made of the inputs; None if the block cannot be followed to its end)."""
    tracer = _Tracer(block)
    given = [
        torch.cat([tracer.fresh((1, n, *tail), 1, (i, j)) for j, n in enumerate(runs)], 1)
        for i, runs in enumerate(inputs)
    ]
    modes = {module: module.training for module in block.modules()}
    block.eval()
    for module in modes:  # a head's logits, of all its branches; what it decodes is no channels
        module.training = isinstance(module, Head)
    try:
        with tracer.watching():
            return tracer, run(given)
    except (RuntimeError, TypeError, ValueError, IndexError, StopIteration):
        return tracer, None
    finally:
        for module, mode in modes.items():
            module.training = mode


def as_taken(inputs: list[Tensor], listed: bool, maps: int) -> Any:
    """Inputs as the block takes them; for `listed` and `maps` see `flow`."""
    if listed:
        return inputs
    return [inputs[0]] * maps if maps else inputs[0]


def _boundaries(ids: Tensor) -> Tensor:
    """Numbers with which a run begins, or would go on."""
    breaks = (ids[1:] != ids[:-1] + 1).nonzero()[:, 0]
    return torch.cat([ids[:1], ids[-1:] + 1, ids[:-1][breaks] + 1, ids[1:][breaks]])


def _runs(ids: Tensor, cuts: Tensor) -> list[tuple[int, int]]:
    """(first number, length) of every run."""
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[1:] = (ids[1:] != ids[:-1] + 1) | torch.isin(ids[1:], cuts)
    starts = begins.nonzero()[:, 0].tolist()
    if len(starts) > _MOST_RUNS:
        return [(0, len(ids))]
    ends = [*starts[1:], len(ids)]
    return [(int(ids[a]), b - a) for a, b in zip(starts, ends, strict=True)]


def _lengths(runs: Sequence[tuple[int, int]]) -> Layout:
    return tuple(n for _, n in runs)
