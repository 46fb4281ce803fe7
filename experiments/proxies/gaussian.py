"""Networks of Gaussian weights without shortcuts, which `zen` and `mae_det` look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.network import Network

from .base import copied


class _Nothing(nn.Module):
    """A shortcut that adds nothing, whatever shape the branch has."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


@torch.no_grad()
def gaussian(network: Network) -> Network:
    """A copy with weights from N(0, 1), biases 0, and shortcuts taken away.

    Both papers leave out residual links. Here those are the blocks' ``add`` and ``shortcut``; what a transformer layer
    adds to stays.
    """
    network = copied(network)
    for module in list(network.modules()):
        if isinstance(getattr(module, "add", None), bool) or isinstance(getattr(module, "shortcut", None), nn.Module):
            module.add, module.shortcut = False, _Nothing()  # type: ignore[assignment]
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_()
        elif name.endswith("bias"):
            parameter.zero_()
    return network
