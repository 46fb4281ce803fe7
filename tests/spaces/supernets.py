"""Supernets for tests: made, set to an arch or a mixture, and with batch norms that do something."""

from __future__ import annotations

from tests.random_state import randomized

# spaces before nni: its repairs come first.
from spaces import NASBACKBONE, NASDETECTOR, Space, read_arch  # noqa: F401  # isort: skip
import torch
from nni.nas.oneshot.pytorch.strategy import DARTS, OneShotStrategy
from torch import nn

from spaces.active import Mixture
from spaces.supernet import ActivePolicy, decisions, hooks

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


class Shared(OneShotStrategy):
    """The supernet of our strategies, without a strategy."""

    def default_mutation_hooks(self):
        return hooks()

    def run_hook(self, hook, name, module, memo):
        return hook(module, name, memo, {"active": self.active, "mixed_op_sampling": ActivePolicy})

    def mutate_model(self, space):
        self.active = space.active
        self.active.update(dict.fromkeys(decisions(space), 0))
        return super().mutate_model(space)


def supernet(space: nn.Module, seed: int = 0) -> nn.Module:
    """`space` with shared weights, set to the first value of everything, in eval mode."""
    return randomized(Shared().mutate_model(space), seed)


def activate(net: nn.Module, arch: dict) -> nn.Module:
    """`net` with the path of `arch` active; labels that `arch` lacks mean the block as upstream builds it."""
    net.activate(arch)
    return net


def mix(net: nn.Module, weights: dict[str, torch.Tensor], paths: dict[str, tuple[int, ...]] | None = None) -> nn.Module:
    """`net` with a mixture of all values of every decision, or of `paths`, active."""
    for label, w in weights.items():
        net.active[label] = Mixture(w, (paths or {}).get(label, tuple(range(len(w)))))
    return net


def decide(net: nn.Module, arch: dict) -> nn.Module:
    """`net` with a mixture active in which everything but `arch` weighs nothing."""
    full = net.space.complete(arch)
    values = {label: torch.tensor([v == full[label] for v in d.values]) for label, d in net.space.decisions.items()}
    return mix(net, {label: chosen.float() for label, chosen in values.items()})


def darts(space: nn.Module, seed: int = 0) -> nn.Module:
    """`space` with NNI's own architecture parameters, in eval mode."""
    return randomized(DARTS().mutate_model(space), seed)
