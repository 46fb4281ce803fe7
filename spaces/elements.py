"""Where in a supernet a network's weights are: the numbers of the elements that `slice_weights` reads.

What is put into a supernet goes where a slice is taken from, so that there is one rule of slicing: whatever row,
candidate or operation a space is made of.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .kernel_transform import identities, is_transform
from .model_space import NASBACKBONE, NASDETECTOR, slice_weights


class Elements:
    """The elements of a supernet's parameters and buffers, numbered one after the other.

    Matrices of kernels (`kernel_transform`) are none of a plain network's elements, and have no numbers.

    Attributes
    ----------
    tensors
        Of the supernet, by name.
    spans
        Their names to the number of their first element, and of the one behind their last.
    total
        Number of elements.
    """

    def __init__(self, supernet: NASBACKBONE | NASDETECTOR) -> None:
        self.supernet = supernet
        both = itertools.chain(supernet.named_parameters(), supernet.named_buffers())
        self.tensors: dict[str, Tensor] = {name: t for name, t in both if not is_transform(name)}
        starts = list(itertools.accumulate((t.numel() for t in self.tensors.values()), initial=0))
        self.spans = {name: (a, b) for name, a, b in zip(self.tensors, starts, starts[1:], strict=False)}
        self.total = starts[-1]
        self._names, self._starts = list(self.tensors), torch.tensor(starts)

    @torch.no_grad()
    def of(self, arch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tensor of the plain network of `arch` to the number of each of its elements, int64 of the tensor's shape."""
        data, default = {name: t.data for name, t in self.tensors.items()}, torch.get_default_dtype()
        try:
            for name, t in self.tensors.items():
                start, end = self.spans[name]
                # Float64 holds the numbers of 9e15 elements; what is not a float keeps its kind.
                kind = torch.float64 if t.is_floating_point() else torch.int64
                t.data = torch.arange(start, end, dtype=kind, device=t.device).view(t.shape)
            torch.set_default_dtype(torch.float64)  # of modules that are made anew when NNI freezes
            with torch.random.fork_rng(devices=()), identities(self.supernet):
                _, state = slice_weights(self.supernet, arch)
        finally:
            torch.set_default_dtype(default)
            for name, t in self.tensors.items():
                t.data = data[name]
        return {key: numbers.long() for key, numbers in state.items()}

    def inside(self, numbers: Tensor) -> tuple[str, Tensor]:
        """(name of the supernet's tensor that one plain tensor is read from, the elements' numbers in it)."""
        at = int(torch.searchsorted(self._starts, numbers.reshape(-1)[0].cpu(), right=True)) - 1
        return self._names[at], numbers - int(self._starts[at])

    def read(self, where: Mapping[str, Tensor], tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A plain network's state, from where `of` says that it is; from other `tensors`, what these have of it."""
        given = self.tensors if tensors is None else tensors
        inside = {key: self.inside(numbers) for key, numbers in where.items()}
        return {key: given[name].detach().take(at) for key, (name, at) in inside.items() if name in given}

    @torch.no_grad()
    def write(
        self, where: Mapping[str, Tensor], state: Mapping[str, Tensor], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Put a plain network's state, or a part of it, where `of` says that it is; or into other `tensors`."""
        given = self.tensors if tensors is None else tensors
        for key, value in state.items():
            name, at = self.inside(where[key])
            tensor = given[name]
            tensor.put_(at, value.to(tensor))
