"""Parameters and FLOPs of a built network."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_params(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


def count_flops(network: nn.Module, imgsz: int, ch: int = 3) -> int:
    """FLOPs (2 x MACs) of convolutions and matrix products for one image of `imgsz` pixels a side.

    Counted by `torch.utils.flop_counter` in a forward on the meta device: nothing is computed.
    """
    return _counted(network, imgsz, ch).get_total_flops()


def flops_of_rows(network: nn.Module, imgsz: int, ch: int = 3) -> list[int]:
    """`count_flops` of each row of a network of a YAML."""
    counts = _counted(network, imgsz, ch).get_flop_counts()
    rows = (f"{type(network).__name__}.model.{i}" for i in range(len(network.model)))  # type: ignore[arg-type]
    return [sum(counts[row].values()) if row in counts else 0 for row in rows]


@torch.no_grad()
def _counted(network: nn.Module, imgsz: int, ch: int) -> FlopCounterMode:
    network = copy.deepcopy(network).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.zeros(1, ch, imgsz, imgsz, device="meta"))
    return counter
