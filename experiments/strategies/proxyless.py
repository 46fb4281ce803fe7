"""ProxylessNAS (Cai et al. 2019, arXiv:1812.00332): binary gates, so that no more than two paths are in memory."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor

from spaces.active import Mixture

from .base import Alphas, OneShot


class ProxylessModule(Alphas):
    """One path by the probabilities for the weights, two for the architecture.

    Parameters
    ----------
    update
        ``gradient``: section 3.2, two paths a decision, of which a gate lets one through. ``reinforce``: section 3.3.2,
        one path, its loss against the moving average of losses.
    """

    def __init__(self, *args: Any, update: Literal["gradient", "reinforce"] = "gradient", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.update = update
        self.register_buffer("baseline", torch.tensor(float("nan")))

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer:
        # Without momentum and decay (section 4.1's Adam has betas of 0 and 0.999 in the authors' code): what was not
        # sampled stays as it is.
        return torch.optim.Adam(self.alphas, self.arc_learning_rate, betas=(0.0, 0.999))

    def arch_step(self, batch: Any, batch_idx: int) -> None:
        if self.update == "reinforce":
            self._reinforce(batch["val"], batch_idx)
            return
        pairs = [self._two_of(alpha) for alpha in self.alphas]
        for label, alpha, pair in zip(self.choices, self.alphas, pairs, strict=True):
            gates = self._gates(alpha, pair)
            self.active[label] = Mixture(gates, pair)
        mass = [alpha.detach()[list(pair)].logsumexp(0) for alpha, pair in zip(self.alphas, pairs, strict=True)]
        self.step_alphas(self.loss(batch["val"], batch_idx, "arch") + self.penalty())
        with torch.no_grad():
            # Section 3.2: the pair is rescaled so that the values that were not sampled keep their probability.
            for alpha, pair, before in zip(self.alphas, pairs, mass, strict=True):
                alpha[list(pair)] += before - alpha[list(pair)].logsumexp(0)

    @staticmethod
    @torch.no_grad()
    def _two_of(alpha: Tensor) -> tuple[int, ...]:
        drawn = torch.multinomial(alpha.softmax(0), min(2, len(alpha)))
        return tuple(sorted(cast(list[int], drawn.tolist())))

    @staticmethod
    def _gates(alpha: Tensor, pair: tuple[int, ...]) -> Tensor:
        """(n,): 1 for one of the pair, 0 else; the gradient is that of the pair's softmax (equation 4)."""
        p = alpha[list(pair)].softmax(0)
        open_gate = torch.zeros_like(p).index_fill(0, torch.multinomial(p.detach(), 1), 1)
        gates = open_gate + p - p.detach()
        return torch.zeros_like(alpha).index_put((torch.tensor(pair, device=alpha.device),), gates)

    def _reinforce(self, batch: Any, batch_idx: int) -> None:
        log_p = self._sample()
        with torch.no_grad():
            loss = self.loss(batch, batch_idx, "arch")
            advantage = loss - self.baseline if self.baseline.isfinite() else torch.zeros_like(loss)
            # As ENAS' decay of the moving average.
            self.baseline.copy_(0.95 * self.baseline + 0.05 * loss if self.baseline.isfinite() else loss)
        self.step_alphas(advantage * log_p + self.penalty())

    def _sample(self) -> Tensor:
        """Activate one path; its log probability."""
        log_p = torch.zeros((), device=self.alphas[0].device)
        for label, alpha in zip(self.choices, self.alphas, strict=True):
            chosen = int(torch.multinomial(alpha.detach().softmax(0), 1))
            self.active[label] = chosen
            log_p = log_p + alpha.log_softmax(0)[chosen]
        return log_p

    @torch.no_grad()
    def activate_for_weights(self) -> None:
        self._sample()


class Proxyless(OneShot):
    """ProxylessNAS.

    Parameters
    ----------
    update
        See `ProxylessModule`.
    arc_learning_rate, warmup_epochs, gradient_clip_val, budget
        See `base.Bilevel` and `base.OneShotModule`.
    """

    module_class = ProxylessModule
