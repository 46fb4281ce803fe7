"""DrNAS (Chen et al. 2021, arXiv:2006.10355): mixtures are drawn from Dirichlet distributions, which learn."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Dirichlet

from spaces.fused import frozen

from .base import Alphas


class DirichletModule(Alphas):
    """DARTS whose mixture is drawn anew for every batch; the gradient passes the draw by implicit reparametrisation.

    Parameters
    ----------
    anchor
        Weight of the distance of the concentrations from 1, that is from all mixtures being equally likely (equation 7
        and appendix A.1 of the paper).
    """

    weight_decay: ClassVar[float] = 0.0  # the distance from 1 stands in its place

    def __init__(self, *args: Any, anchor: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.anchor = anchor

    def concentrations(self) -> list[Tensor]:
        """(n,) above 0 for every decision."""
        return [F.elu(alpha) + 1 for alpha in self.alphas]

    def probabilities(self) -> dict[str, Tensor]:
        """Means of the distributions."""
        return {k: beta / beta.sum() for k, beta in zip(self.choices, self.concentrations(), strict=True)}

    def draw(self) -> None:
        """Activate a mixture drawn from the distributions."""
        with torch.random.fork_rng(devices=()):  # distributions take no generator of their own
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
            drawn = [Dirichlet(beta.cpu()).rsample().to(beta.device) for beta in self.concentrations()]
        self.mix(dict(zip(self.choices, drawn, strict=True)))

    def arch_step(self, batch: Any, batch_idx: int) -> None:
        self.draw()
        with frozen(self.model):
            loss = self.loss(batch["val"], batch_idx, "arch")
        distance = torch.stack([(beta - 1).norm() for beta in self.concentrations()]).sum()
        self.step_alphas(loss + self.anchor * distance + self.penalty(self.probabilities()))

    def activate_for_weights(self) -> None:
        self.draw()
