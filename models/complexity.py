"""Parameters and FLOPs of a built network."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_params(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def count_flops(network: nn.Module, imgsz: int, ch: int = 3) -> int:
    """FLOPs (2 x MACs) of convolutions and matrix products for one image of `imgsz` pixels a side.

    Counted by `torch.utils.flop_counter` in a forward on the meta device: nothing is computed.
    """
    network = copy.deepcopy(network).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.zeros(1, ch, imgsz, imgsz, device="meta"))
    return counter.get_total_flops()
