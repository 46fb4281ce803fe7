"""What one row costs: its plain module and a forward on the meta device, where nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from models.blocks import default_activation
from models.catalog import lookup
from models.errors import InputError
from models.grammar import Config, Row
from models.network import build_row
from models.registry import check_channels

# Shape of a tensor, or a list of such.
Shapes = Any
# An operation and what it is given, to shape and dtype of what it gives, FLOPs and activations.
Remembered = dict[Any, tuple[torch.Size, torch.dtype, int, int]]

_aten = torch.ops.aten
_LAYERS = {_aten.convolution, _aten._convolution, _aten.mm, _aten.addmm}
# They cost nothing and change no shape; a forward without them takes a third of the time.
_NEUTRAL = (nn.BatchNorm2d, nn.SiLU, nn.ReLU, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU, nn.Sigmoid, nn.Identity)


class Cost(NamedTuple):
    """Parameters, FLOPs (2 x MACs) and activations of a row, for one image, and what comes out of it."""

    params: int
    flops: int
    activations: int
    output: Shapes


@dataclass(frozen=True)
class Block:
    """A plain row with the channels and the shapes that it is fed.

    Attributes
    ----------
    c_in
        Channels of each input, by the rows' own rules.
    inputs
        Shape of each input; batch 1.
    imgsz
        Side of the image that they come from.
    remembered
        What operations gave, for the blocks of a space to share.
    """

    config: Config
    row: Row
    c_in: tuple[int, ...]
    inputs: tuple[Shapes, ...]
    imgsz: int
    remembered: Remembered = field(default_factory=dict, compare=False, repr=False)

    @property
    def channels(self) -> int:
        """Channels of the output, by the row's rule."""
        return lookup(self.row).channels(self.config, self.row, self.c_in)[1]

    @property
    def built_from(self) -> str:
        """Module and arguments; equal for equal modules."""
        entry = lookup(self.row)
        args, _ = entry.channels(self.config, self.row, self.c_in)
        written = [*map(str, args), *(f"{k}={v}" for k, v in self.row.kwargs.items())]
        n = self.config.depth(self.row)
        activation = self.config.activation or "nn.SiLU()"
        return f"{n} x {self.row.module}({', '.join(written)}), {activation}"

    @property
    def key(self) -> str:
        """What the block is and what it is fed, to be read by people; equal for equal costs."""
        return f"{self.built_from} <- {' + '.join(map(_written, self.inputs))}"

    def build(self, device: str = "cpu") -> nn.Module:
        """The module, in eval mode. The state of the random numbers stays as it is."""
        with torch.random.fork_rng(devices=[]), torch.device(device), default_activation(self.config.activation):
            return build_row(self.config, self.row, self.c_in)[0].eval()

    def build_meta(self) -> nn.Module:
        """The module on the meta device."""
        try:
            return self.build("meta")
        except InputError:  # it may be that its constructor computes with tensors
            return self.build().to("meta")

    def feed(self, device: str = "meta") -> Any:
        """Input of the module: a tensor, or a list of them."""
        inputs = [_tensors(shapes, device) for shapes in self.inputs]
        return inputs if isinstance(self.row.source, tuple) else inputs[0]

    def run(self, module: nn.Module) -> Any:
        """A forward of `module` on the meta device; `InputError` names the row."""
        try:
            output = module(self.feed())
        except (RuntimeError, IndexError, TypeError, ValueError) as e:
            fed = ", ".join(map(_written, self.inputs))
            message = (str(e).splitlines() or [type(e).__name__])[0]
            raise self.row.error(f"does not fit its input ({fed}): {message}") from e
        check_channels(self.row, getattr(output, "shape", ()), self.channels)
        return output

    @torch.no_grad()
    def cost(self, module: nn.Module) -> Cost:
        """Its cost, counted on `module`, which `build_meta` gave."""
        with _Counter(self.remembered) as counter:
            output = shapes_of(self.run(_lean(module)))
        return Cost(
            sum(p.numel() for p in module.parameters()),
            sum(flops for flops, _ in counter.costs.values()),
            sum(activations for _, activations in counter.costs.values()),
            output,
        )

    @torch.no_grad()
    def parts(self) -> dict[str, Any]:
        """What each submodule costs by itself, by name; and the shape of the output, under ``output``."""
        module = _lean(self.build_meta())
        with _Counter(self.remembered) as counter, _named(module, counter):
            output = shapes_of(self.run(module))
        found: dict[str, Any] = {
            name: (*counter.costs.get(name, (0, 0)), sum(p.numel() for p in m.parameters(recurse=False)))
            for name, m in module.named_modules()
        }
        return {**found, "output": (self.channels, output)}

    @torch.no_grad()
    def operations(self) -> dict[str, Any]:
        """What each submodule computes by itself: operations, shapes and numbers."""
        module = self.build_meta()
        with _Counter(self.remembered, record=True) as counter, _named(module, counter):
            self.run(module)
        return {name: tuple(operations) for name, operations in counter.operations.items()}

    @torch.no_grad()
    def work(self) -> dict[str, list[tuple[int, int]]]:
        """FLOPs of each operation and the elements that it reads and writes, by submodule; without its neutral parts.

        Batch norms and activations count as fused into the layer before them; views and constants move nothing.
        """
        module = _lean(self.build_meta())
        with _Counter(self.remembered, record=True) as counter, _named(module, counter):
            self.run(module)
        return counter.work


class _Counter(TorchDispatchMode):
    """Counts as `torch.utils.flop_counter` does, by the submodule that is running.

    What an operation gives is remembered by the shapes that it is given: the meta device takes half a millisecond for a
    convolution.
    """

    def __init__(self, remembered: Remembered, record: bool = False) -> None:
        super().__init__()
        self.remembered, self.record = remembered, record
        self.running = [""]
        self.costs: dict[str, tuple[int, int]] = {}
        self.operations: dict[str, list[Any]] = {}
        self.work: dict[str, list[tuple[int, int]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key, name = (func, _described(args), _described(kwargs)), self.running[-1]
        if key in self.remembered:
            shape, dtype, flops, activations = self.remembered[key]
            out: Any = torch.empty(shape, dtype=dtype, device="meta")
        else:
            out = func(*args, **kwargs)
            packet, flops, activations = func._overloadpacket, 0, 0
            if packet in flop_registry:
                flops = flop_registry[packet](*args, **kwargs, out_val=out)
                activations = out.numel() if packet in _LAYERS else 0
            if isinstance(out, Tensor) and out.is_meta and out.is_contiguous() and _is_pure(func):
                self.remembered[key] = out.shape, out.dtype, flops, activations
        if flops:
            before = self.costs.get(name, (0, 0))
            self.costs[name] = before[0] + flops, before[1] + activations
        if self.record:
            self.operations.setdefault(name, []).append(key)
            read = sum(map(_elements, tree_leaves((args, kwargs))))
            moved = 0 if _is_view(func) or not read else read + sum(map(_elements, tree_leaves(out)))
            self.work.setdefault(name, []).append((flops, moved))
        return out


def _is_pure(func: Any) -> bool:
    """Whether an operation changes nothing, and gives nothing that shares memory with what it was given."""
    return not func._schema.is_mutable and all(r.alias_info is None for r in func._schema.returns)


def _is_view(func: Any) -> bool:
    return not func._schema.is_mutable and any(r.alias_info is not None for r in func._schema.returns)


def _elements(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else 0


@contextmanager
def _named(module: nn.Module, counter: _Counter) -> Iterator[None]:
    handles = []
    for name, m in module.named_modules():
        handles.append(m.register_forward_pre_hook(lambda _, __, name=name: counter.running.append(name)))
        handles.append(m.register_forward_hook(lambda _, __, ___: counter.running.pop() and None))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _lean(module: nn.Module) -> nn.Module:
    """`module`, its neutral parts passing on what they are given."""
    for m in module.modules():
        if type(m) in _NEUTRAL:
            m.forward = _same  # type: ignore[method-assign]
    return module


def _same(x: Tensor) -> Tensor:
    return x


def _described(value: Any) -> Any:
    """Arguments as something that can be compared: of tensors the layout."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, dict):
        return tuple((k, _described(v)) for k, v in value.items())
    return tuple(map(_described, value)) if isinstance(value, (list, tuple)) else value


def shapes_of(output: Any) -> Shapes:
    """Shape of a tensor; of lists of tensors, a tuple of them."""
    if isinstance(output, Tensor):
        return output.shape
    return tuple(shapes_of(o) for o in output) if isinstance(output, (list, tuple)) else None


def _tensors(shapes: Shapes, device: str) -> Any:
    if isinstance(shapes, torch.Size):
        return torch.zeros(shapes, device=device)
    return [_tensors(s, device) for s in shapes] if shapes is not None else None


def _written(shapes: Shapes) -> str:
    if isinstance(shapes, torch.Size):
        return "x".join(map(str, shapes))
    inner: Sequence[Shapes] = shapes or ()
    return f"[{', '.join(map(_written, inner))}]"
