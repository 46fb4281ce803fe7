"""Rows to networks: what `Model`, `Classifier` and the supernets have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from . import limits
from .blocks import Conv, RepConv, RepVGGDW, default_activation
from .catalog import lookup
from .errors import InputError
from .grammar import Call, Config, Row
from .registry import check_channels
from .size_guard import SizeGuard
from .strides import POOLED

# What modules raise of an input that they do not fit.
_UNFIT = (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError)

_Module = TypeVar("_Module", bound=nn.Module)
BuildRow = Callable[[Config, Row, Sequence[int]], tuple[nn.Module, int]]


def _plain(value: Any) -> Any:
    """Constructor arguments as PyTorch wants them: lists of numbers as tuples, calls left to the blocks."""
    if isinstance(value, Call) and value.name.removeprefix("torch.").removeprefix("nn.") not in dir(nn):
        raise InputError(f"{value} is not of torch.nn")
    if isinstance(value, list) and all(isinstance(v, (int, float)) for v in value):
        return tuple(value)
    return value


def build_row(config: Config, row: Row, c_in: Sequence[int]) -> tuple[nn.Module, int]:
    """Build a plain row.

    Parameters
    ----------
    c_in
        Channels of the row's inputs.

    Returns
    -------
    module, channels of its output
    """
    entry = lookup(row)
    n = config.depth(row)
    try:
        args, c_out = entry.channels(config, row, c_in)
    except InputError:
        raise
    except Exception as e:  # of arguments of another kind than the rule reckons with
        raise _unbuilt(row, e) from e
    if entry.repeats:
        args.insert(2, n)
        n = 1
    if n > 1 and c_out != sum(c_in):
        raise row.error(f"repeated {n} times it must keep its width, but it turns {sum(c_in)} channels into {c_out}")
    try:
        modules = [entry.cls(*map(_plain, args), **row.kwargs) for _ in range(n)]
    except Exception as e:  # whatever a constructor says of what it cannot take
        raise _unbuilt(row, e) from e
    return (modules[0] if n == 1 else nn.Sequential(*modules)), c_out


def _unbuilt(row: Row, error: Exception) -> InputError:
    first = (str(error).splitlines() or [""])[0].replace(f"{row.module}.__init__() ", "")
    said = isinstance(error, (TypeError, ValueError, RuntimeError, ArithmeticError, AssertionError)) and first
    message = first if said else f"{type(error).__name__}: {first}"
    return row.error(f"cannot be built from {list(row.args)}: {message}")


class Network(nn.Module):
    """Rows in sequence, each fed by the rows that its `from` names.

    Attributes
    ----------
    config
        The YAML it was built from.
    model
        One module a row; state dict keys begin ``model.{row}.`` as upstream's do.
    channels
        Output channels of each row.
    names
        Class names by index, where they are known.
    """

    model: nn.ModuleList
    names: dict[int, str]

    def __init__(self) -> None:
        super().__init__()

    def build(self, config: Config, build: BuildRow = build_row) -> None:
        """Build every row of `config` with `build`; `InputError` if that is more than `limits` has for a network."""
        self.config, self._is_plain = config, build is build_row
        self.channels: list[int] = []
        layers, repeats = [], 0
        plain, supernet = (limits.PARAMETERS, limits.TENSORS), (limits.SUPERNET_PARAMETERS, limits.SUPERNET_TENSORS)
        guard = SizeGuard(*(plain if self._is_plain else supernet))
        with default_activation(config.activation), guard:
            for row in config.rows:
                repeats += config.depth(row) if isinstance(row.number, int) else 0
                if repeats > limits.REPEATS:
                    raise row.error(f"with it there are {repeats:,} repeats; {limits.REPEATS:,} are the most")
                c_in = [config.ch if j < 0 else self.channels[j] for j in row.sources]
                layer, c_out = build(config, row, c_in)
                guard.row(layer)
                layers.append(layer)
                self.channels.append(c_out)
        self.model = nn.ModuleList(layers)
        read_again = {j for row in config.rows for j in row.sources if j != row.index - 1}
        self._kept = read_again

    def run_rows(self, x: Tensor, given: list[Any] | None = None) -> Any:
        """The output of the last row. `given`, if it is there, is filled with the shape of what each row gives."""
        given = [] if given is None else given
        kept: dict[int, Any] = {-1: x} if -1 in self._kept else {}
        previous: Any = x
        for row, layer in zip(self.config.rows, self.model, strict=True):
            inputs = [previous if j == row.index - 1 else kept[j] for j in row.sources]
            try:
                previous = layer(inputs if isinstance(row.source, tuple) else inputs[0])
            except torch.OutOfMemoryError:
                raise
            except _UNFIT as e:
                self.check_channels(given)
                shapes = ", ".join("x".join(map(str, i.shape)) for i in inputs if isinstance(i, Tensor))
                raise row.error(
                    f"does not fit its input ({shapes}): {(str(e).splitlines() or [type(e).__name__])[0]}"
                ) from e
            given.append(getattr(previous, "shape", ()))
            if row.index in self._kept:
                kept[row.index] = previous
        return previous

    def check_channels(self, given: Sequence[Sequence[int]]) -> None:
        """After a failure: `InputError` if a row has given other channels than its rule says, as a plug-in's may."""
        if self._is_plain:
            for row, shape, channels in zip(self.config.rows, given, self.channels, strict=False):
                check_channels(row, shape, channels)

    def forward(self, x: Tensor) -> Any:
        return self.run_rows(x)

    def fuse(self) -> Self:
        """Fold batch normalisation, and convolutions side by side, into convolutions, in place; for inference only."""
        return fuse(self).eval()

    @torch.no_grad()
    def reductions(self, size: int = 256) -> list[float]:
        """Stride of each row's output in pixels of the input, measured by a forward; NaN where it is no map."""
        strides: list[float] = []

        def measure(_: nn.Module, __: Any, output: Any) -> None:
            spatial = isinstance(output, Tensor) and output.ndim == 4
            strides.append(size / output.shape[-2] if spatial else float("nan"))

        handles = [layer.register_forward_hook(measure) for layer in self.model]
        was_training = self.training
        try:
            self.eval()._shapes(size, strides)
        finally:
            for handle in handles:
                handle.remove()
            self.train(was_training)
        # A map of one cell may stand for any stride from `size` up; a pool over everything has no larger map.
        larger = size in strides and size < POOLED
        return self.reductions(size * 4) if larger else strides

    def _shapes(self, size: int, strides: list[float]) -> None:
        """Run the rows for the shapes alone: nothing is computed, so that no image and no width is too large for it."""
        rows = _Rows(self)
        state = {k: v.to("meta") for k, v in (*rows.named_parameters(), *rows.named_buffers())}
        try:
            functional_call(rows, state, (torch.zeros(1, self.config.ch, size, size, device="meta"),))
        except Exception:
            if not any(_is_foreign(module) for module in self.modules()):
                raise
            strides.clear()  # a plug-in's may want to see numbers: begin again
            device = next((p.device for p in self.parameters()), None)
            self.run_rows(torch.zeros(1, self.config.ch, size, size, device=device))


def fuse(module: _Module) -> _Module:
    """Fold batch normalisation, and convolutions side by side, into convolutions, in place."""
    for part in list(module.modules()):
        if isinstance(part, (Conv, RepConv, RepVGGDW)):
            part.fuse()
    return module


class _Rows(nn.Module):
    """The rows of a network as a module that is called."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network.run_rows(x)


def _is_foreign(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] not in ("models", "spaces", "optimizer", "torch", "nni")
