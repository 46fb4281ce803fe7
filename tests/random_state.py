"""Batch norms that do something: what a fresh network's statistics would hide."""

from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T", bound=nn.Module)


def randomized(module: T, seed: int = 0) -> T:
    """`module` in eval mode, with random statistics, weights and biases in every batch norm."""
    generator = torch.Generator().manual_seed(seed)
    for bn in module.modules():
        if isinstance(bn, nn.BatchNorm2d):
            for tensor, low in ((bn.weight, 0.5), (bn.bias, -0.5), (bn.running_mean, -0.5), (bn.running_var, 0.5)):
                tensor.data = low + torch.rand(tensor.shape, generator=generator)
    return module.eval()
