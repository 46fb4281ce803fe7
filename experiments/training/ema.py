"""Exponential moving average of a network's weights: what is validated and saved instead of the weights themselves."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

# YOLOv5's: about the mean of the last 10,000 updates; of a tenth of that at update 200, while the weights still move.
DECAY, TAU = 0.9999, 2000.0


def decay_at(updates: int, decay: float = DECAY, tau: float = TAU) -> float:
    """Weight of the past at the given update, counted from 1: ``decay (1 - exp(-updates / tau))``."""
    return decay * (1 - math.exp(-updates / tau))


class EMA(nn.Module):
    """The average of `network`'s parameters and floating-point buffers, as a network of its own in eval mode.

    Attributes
    ----------
    network
        The average. Its state and the number of updates are this module's state dict.
    updates
        How often `update` has been called.
    """

    def __init__(self, network: nn.Module, decay: float = DECAY, tau: float = TAU) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.tau, self.updates = decay, tau, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards `network`; what is not floating point, such as counters, is copied."""
        self.updates += 1
        d = decay_at(self.updates, self.decay, self.tau)
        new = network.state_dict()
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, average in self.network.state_dict().items():
            if average.dtype.is_floating_point:
                averages.append(average)
                values.append(new[name])
            else:
                average.copy_(new[name])
        torch._foreach_lerp_(averages, values, 1 - d)

    def train(self, mode: bool = True) -> EMA:
        """Stays in eval mode, whatever its owner is set to."""
        return super().train(False)

    def get_extra_state(self) -> Any:
        return {"updates": self.updates}

    def set_extra_state(self, state: Any) -> None:
        self.updates = state["updates"]
