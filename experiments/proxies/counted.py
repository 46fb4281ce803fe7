"""The trivial proxies: the larger a network, the better. What does not beat them is of no use."""

from __future__ import annotations

from torch import Tensor

from models.blocks.mobile import InvertedResidual
from models.complexity import count_flops, count_params
from models.network import Network

from .base import Loss


def params(network: Network, images: Tensor, loss: Loss) -> float:
    """Number of parameters."""
    return count_params(network)


def flops(network: Network, images: Tensor, loss: Loss) -> float:
    """FLOPs (2 x MACs) for an image of that size."""
    return count_flops(network, images.shape[-1], images.shape[1])


def blocks(network: Network, images: Tensor, loss: Loss) -> float:
    """Number of active blocks: the depths of all rows with weights, without blocks whose branch is left out."""
    total = 0
    for row, layer in zip(network.config.rows, network.model, strict=True):
        if any(True for _ in layer.parameters()):
            left_out = sum(isinstance(m, InvertedResidual) and hasattr(m, "skip") for m in layer.modules())
            total += network.config.depth(row) - left_out
    return total
