"""ProxylessNAS (Cai et al. 2019, arXiv:1812.00332): binary gates, so that no more than two paths are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from spaces.active import Mixture
from spaces.fused import frozen

from ..run.processes import average
from .base import Alphas
from .options import Options
from .perturb import Differentiable


class ProxylessModule(Alphas):
    """One path by the probabilities for the weights, two for the architecture.

    Parameters
    ----------
    update
        ``gradient``: section 3.2, two paths a decision, of which a gate lets one through. ``reinforce``: section 3.3.2,
        one path, its loss against the moving average of losses.
    """

    # The authors' Adam: without momentum and decay, what was not sampled stays as it is.
    betas = (0.0, 0.999)
    weight_decay = 0.0

    def __init__(self, *args: Any, update: Literal["gradient", "reinforce"] = "gradient", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.update = update
        self.register_buffer("baseline", torch.tensor(float("nan")))

    def arch_step(self, batch: Any, batch_idx: int) -> None:
        if self.update == "gradient":
            self._step_pairs(batch["val"], batch_idx)
        else:
            self._reinforce(batch["val"], batch_idx)

    def _step_pairs(self, batch: Any, batch_idx: int) -> None:
        pairs = [self._draw(alpha.detach().softmax(0), min(2, len(alpha))) for alpha in self.alphas]
        shares: dict[str, Tensor] = {}
        for label, alpha, pair in zip(self.choices, self.alphas, pairs, strict=True):
            others = torch.tensor([i not in pair for i in range(len(alpha))], device=alpha.device)
            p = shares[label] = alpha.masked_fill(others, -torch.inf).softmax(0)
            gate = one_hot(torch.tensor(self._draw(p.detach())[0]), len(p)).to(p)
            # The gate, with the gradient of the pair's softmax (equation 4).
            self.active[label] = Mixture(p - p.detach() + gate, pair)
        before = [alpha.detach()[list(pair)].logsumexp(0) for alpha, pair in zip(self.alphas, pairs, strict=True)]
        # Costs too are those of the pairs, as if there were nothing else: the others' parameters do not move.
        with frozen(self.model):
            loss = self.loss(batch, batch_idx, "arch")
        self.step_alphas(loss + self.penalty(shares))
        with torch.no_grad():
            # Section 3.2.1: what was not sampled keeps its probability.
            for alpha, pair, mass in zip(self.alphas, pairs, before, strict=True):
                alpha[list(pair)] += mass - alpha[list(pair)].logsumexp(0)

    def _reinforce(self, batch: Any, batch_idx: int) -> None:
        log_p = self._sample()
        with torch.no_grad():
            loss = self.loss(batch, batch_idx, "arch")
            average([loss])
            if not self.baseline.isfinite():
                self.baseline.copy_(loss)
            advantage = loss - self.baseline
            # As ENAS' decay of the moving average.
            self.baseline.lerp_(loss, 0.05)
        self.step_alphas(advantage * log_p + self.penalty(self.probabilities()))

    def _sample(self) -> Tensor:
        """Activate one path; its log probability."""
        path = [self._draw(alpha.detach().softmax(0))[0] for alpha in self.alphas]
        self.take(path)
        return torch.stack([alpha.log_softmax(0)[i] for alpha, i in zip(self.alphas, path, strict=True)]).sum()

    def _draw(self, p: Tensor, count: int = 1) -> tuple[int, ...]:
        """Different indices by their probabilities, in ascending order."""
        drawn: list[int] = torch.multinomial(p.cpu(), count, generator=self.generator).tolist()
        return tuple(sorted(drawn))

    def activate_for_weights(self) -> None:
        self._sample()


class Proxyless(Differentiable):
    """ProxylessNAS.

    Parameters
    ----------
    update
        See `ProxylessModule`.
    arc_learning_rate, warmup_epochs, gradient_clip_val, budget, derive, tuning, cost
        See `base.Bilevel`, `base.OneShotModule` and `perturb.Differentiable`.
    """

    module_class = ProxylessModule

    @classmethod
    def own(cls, options: Options) -> Mapping[str, Any]:
        return {"update": options.arch_update}
