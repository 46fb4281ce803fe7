"""Supernets for tests: made, set to an arch, and with batch norms that do something."""

from __future__ import annotations

from random_state import randomized

# spaces before nni: its repairs come first.
from spaces import NASBACKBONE, NASDETECTOR, Space, read_arch  # noqa: F401  # isort: skip
import torch
from nni.nas.oneshot.pytorch.strategy import DARTS, RandomOneShot
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from spaces.blocks import MixedBottleneck

# Small, with every kind of searchable row: a stem with three kernels, C3 of two bottlenecks with and without shortcut.
SMALL = {
    "nc": 3,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "width_multiple": 0.5,
    "backbone": [
        [-1, 1, "NASConv", [16, 6, 2, 2]],
        [-1, 1, "NASConv", [32, 3, 2]],
        [-1, 2, "NASC3", [32]],
        [-1, 1, "NASConv", [48, 1]],
        [-1, 1, "NASConv", [64, 3, 2, 1]],
        [-1, 2, "NASC3", [64, False]],
        [-1, 1, "SPPF", [64, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 3], 1, "Concat", [1]],
        [-1, 1, "C3", [32, False]],
        [[-1, 6], 1, "Detect", ["nc", "anchors"]],
    ],
}


def supernet(space: nn.Module, seed: int = 0) -> nn.Module:
    """`space` with shared weights, one path at a time, in eval mode."""
    return randomized(RandomOneShot().mutate_model(space), seed)


def activate(net: nn.Module, arch: dict) -> nn.Module:
    """`net` with the path of `arch` active; labels that `arch` lacks mean the block as upstream builds it."""
    full = net.space.complete(arch)
    for module in net.modules():
        if isinstance(module, BaseSuperNetModule):
            module.resample(memo=dict(full))
    return net


def darts(space: nn.Module, seed: int = 0) -> nn.Module:
    """`space` with architecture parameters, in eval mode."""
    return randomized(DARTS().mutate_model(space), seed)


def decide(net: nn.Module, arch: dict) -> nn.Module:
    """`net` (of `darts`) with its mind made up: logits of 200 for `arch`, of -200 for everything else."""
    full = net.space.complete(arch)

    def one_hot(alpha: torch.Tensor, label: str) -> None:
        values = net.space.decisions[label].values
        alpha.data = torch.where(torch.tensor([v == full[label] for v in values]), 200.0, -200.0)

    for module in net.modules():
        if isinstance(module, MixedBottleneck):
            for label, alpha in module._arch_alpha.items():
                one_hot(alpha, label)
        elif hasattr(module, "_arch_alpha"):
            one_hot(module._arch_alpha, module.label)
    return net
