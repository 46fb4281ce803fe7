"""Kernels of several sizes out of one, by a matrix between sizes that follow one another.

So in Once-for-All (Cai et al. 2020, arXiv:1908.09791, section 3.3): weights that are the centre of a large kernel have
another part to play in a small one. A convolution whose kernel is open has, for every size but the largest, a matrix of
(area, area) that the centre of the next larger kernel is multiplied by. All its channels share them. They begin as
identities: the small kernel is the centre then. What is cut out has plain kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from .elastic_slices import Cut

PREFIX = "to_kernel_"
Side = tuple[int, ...]


def is_transform(name: str) -> bool:
    """Whether a parameter, by its name in its module or in the network, is one of these matrices."""
    return name.rpartition(".")[2].startswith(PREFIX)


def add_transforms(conv: nn.Module, sides: Sequence[Side]) -> int:
    """Give a convolution the matrices of its `sides`, the largest first, unless it has them. Returns how many."""
    weight = cast(Tensor, conv.weight)
    added = 0
    for side in sides[1:]:
        if (name := _name(side)) not in conv._parameters:
            eye = torch.eye(_area(side), dtype=weight.dtype, device=weight.device)
            conv.register_parameter(name, nn.Parameter(eye))
            added += 1
    return added


@contextmanager
def identities(network: nn.Module) -> Iterator[None]:
    """Within it, small kernels are the centres of large ones, in whatever type weights have there."""
    matrices = {name: p for name, p in network.named_parameters() if is_transform(name)}
    kept = {name: p.data for name, p in matrices.items()}
    try:
        for p in matrices.values():
            p.data = torch.eye(len(p), dtype=torch.float64, device=p.device)
        yield
    finally:
        for name, p in matrices.items():
            p.data = kept[name]


def cut_of(cut: Cut | None, layer: nn.Module, key: str) -> Cut | _SmallKernel | None:
    """What gives a part of a layer's tensor, given what cuts it: with matrices, where its kernel is smaller."""
    if cut is None or key != "weight" or not any(map(is_transform, layer._parameters)):
        return cut
    whole = tuple(cast(Tensor, layer.weight).shape)
    return cut if cut.shape[2:] == whole[2:] else _SmallKernel(cut, whole, layer._parameters)


class _SmallKernel:
    """A part of a weight whose kernel is smaller than the whole's.

    Parameters
    ----------
    cut
        What would be the part, were it the centre.
    whole
        Shape of the whole weight.
    parameters
        The layer's, in which the matrices are looked up when they are needed.
    """

    is_view = False

    def __init__(self, cut: Cut, whole: Sequence[int], parameters: Mapping[str, Tensor | None]) -> None:
        self.shape, self._parameters = cut.shape, parameters
        full = tuple(slice(0, n) for n in whole[2:])
        # Blocks differ in their channels alone: the channels at the whole kernel.
        blocks = [((*source[:2], *full), (*target[:2], *full)) for source, target in cut.blocks]
        channels = Cut((*cut.shape[:2], *whole[2:]), blocks, whole)
        self._channels = None if channels.shape == tuple(whole) and len(blocks) == 1 else channels
        sides = [tuple(map(int, name.removeprefix(PREFIX).split("x"))) for name in parameters if is_transform(name)]
        larger = [side for side in sides if all(a >= b for a, b in zip(side, cut.shape[2:], strict=True))]
        self._chain = sorted(larger, key=_area, reverse=True)

    def __call__(self, whole: Tensor) -> Tensor:
        kernel = whole if self._channels is None else self._channels(whole)
        for side in self._chain:
            centre = _centre(kernel, side)
            # Of two dimensions, so that PyTorch's matmul has one way to go whether or not gradients are recorded.
            matrix: Any = self._parameters[_name(side)]
            kernel = (centre.reshape(-1, _area(side)) @ matrix).view(centre.shape)
        kernel = _centre(kernel, self.shape[2:]).contiguous()
        return kernel if torch.is_grad_enabled() else kernel.requires_grad_(whole.requires_grad)


def _centre(kernel: Tensor, side: Sequence[int]) -> Tensor:
    for dim, n in enumerate(side, start=2):
        kernel = kernel.narrow(dim, kernel.shape[dim] // 2 - n // 2, n)
    return kernel


def _name(side: Side) -> str:
    return PREFIX + "x".join(map(str, side))


def _area(side: Sequence[int]) -> int:
    return int(torch.Size(side).numel())
