"""FBNet's search (Wu et al. 2019, arXiv:1812.03443, section 3.3): mixtures drawn by Gumbel-softmax, ever harder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spaces.fused import frozen

from .base import Alphas
from .perturb import Differentiable


class GumbelModule(Alphas):
    """Weights of the mixture are drawn anew for every batch.

    Parameters
    ----------
    temperature
        In the first and in the last epoch, falling exponentially between them. By default that of section 4.1: from 5
        by exp(-0.045) an epoch, over 90 epochs.
    """

    weight_decay = 5e-4  # section 4.1

    def __init__(self, *args: Any, temperature: tuple[float, float] = (5.0, 0.091), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first, self.last = temperature

    @property
    def temperature(self) -> float:
        """Of this epoch."""
        share = self.current_epoch / max((self.trainer.max_epochs or 1) - 1, 1)
        return float(self.first * (self.last / self.first) ** share)

    def draw(self) -> None:
        """Activate a mixture drawn from the architecture parameters (equation 6)."""
        tau = self.temperature
        self.mix({k: ((a + self._gumbel(a)) / tau).softmax(0) for k, a in zip(self.choices, self.alphas, strict=True)})

    def _gumbel(self, like: Tensor) -> Tensor:
        return -torch.empty(like.shape).exponential_(generator=self.generator).log_().to(like)

    def arch_step(self, batch: Any, batch_idx: int) -> None:
        self.draw()
        with frozen(self.model):
            loss = self.loss(batch["val"], batch_idx, "arch")
        self.step_alphas(loss + self.penalty(self.probabilities()))

    def activate_for_weights(self) -> None:
        self.draw()

    def watched(self) -> dict[str, Any]:
        return {**super().watched(), "temperature": self.temperature}


class GumbelDARTS(Differentiable):
    """FBNet's differentiable search.

    Parameters
    ----------
    temperature
        See `GumbelModule`.
    arc_learning_rate, warmup_epochs, gradient_clip_val, budget, derive, tuning, cost
        See `base.Bilevel`, `base.OneShotModule` and `perturb.Differentiable`.
    """

    module_class = GumbelModule
