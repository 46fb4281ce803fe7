"""DARTS (Liu et al. 2019, arXiv:1806.09055): the mixture of all values, weighed by a softmax, is trained by gradient.

Decisions on widths and depths are mixed as masks and as weighed prefixes (FBNetV2, arXiv:2004.05565, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor

from spaces.fused import frozen

from ..run.processes import average
from .base import Alphas, OneShotModule
from .drnas import DirichletModule
from .options import Options
from .perturb import Differentiable


class DARTSModule(Alphas):
    """First order: the architecture's gradient at the weights as they are (section 2.3, ξ = 0)."""

    def arch_step(self, batch: Any, batch_idx: int) -> None:
        probabilities = self.probabilities()
        self.mix(probabilities)
        with frozen(self.model):
            loss = self.loss(batch["val"], batch_idx, "arch")
        self.step_alphas(loss + self.penalty(probabilities))

    def activate_for_weights(self) -> None:
        self.mix(self.probabilities())


class DARTS(Differentiable):
    """First-order DARTS.

    Parameters
    ----------
    relax
        ``softmax`` of the architecture parameters, or mixtures drawn from a ``dirichlet`` distribution (`drnas`).
    arc_learning_rate, warmup_epochs, gradient_clip_val, budget, derive, tuning, cost
        See `base.Bilevel`, `base.OneShotModule` and `perturb.Differentiable`.
    """

    module_class = DARTSModule

    def __init__(self, *, relax: Literal["softmax", "dirichlet"] = "softmax", **settings: Any) -> None:
        super().__init__(**settings)
        self.relax = relax

    def configure_oneshot_module(self, training_module: Any) -> OneShotModule:
        kind = DirichletModule if self.relax == "dirichlet" else DARTSModule
        return self.make_module(kind, training_module)

    @classmethod
    def own(cls, options: Options) -> Mapping[str, Any]:
        return {"relax": options.relax}


class SecondOrderDARTSModule(DARTSModule):
    """Second order: the gradient at the weights after one more step of their own (section 2.3, equations 6 to 8).

    The step is plain gradient descent at the optimiser's learning rate, as in the paper's equation 6. The product of
    its Hessian with a vector is the finite difference of equation 8.
    """

    def arch_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = cast(Any, self.architecture_optimizers())
        for alpha, grad in zip(self.alphas, self.unrolled_gradient(batch, batch_idx), strict=True):
            alpha.grad = grad
        optimizer.step()

    def unrolled_gradient(self, batch: Any, batch_idx: int) -> list[Tensor]:
        """Gradient of the validation loss after the step, for every architecture parameter."""
        weights = [p for p in self.model.parameters() if p.requires_grad]
        before = [w.detach().clone() for w in weights]
        # Statistics of batch norms move with every forward; these are trials, and leave no trace.
        buffers = [(b, b.clone()) for b in self.model.buffers()]
        rate = float(self.weights_optimizer().param_groups[0]["lr"])

        step = self._gradient(batch["train"], batch_idx, None, weights)
        self._move(weights, before, step, -rate)
        toward = self._gradient(batch["val"], batch_idx, "arch", [*self.alphas, *weights], penalised=True)
        gradient, vector = toward[: len(self.alphas)], toward[len(self.alphas) :]
        # Footnote 2 of the paper.
        epsilon = 0.01 / float(torch.stack([v.norm() for v in vector]).norm().clamp_min(1e-12))
        sides = []
        for sign in (1, -1):
            self._move(weights, before, vector, sign * epsilon)
            sides.append(self._gradient(batch["train"], batch_idx, None, list(self.alphas)))
        with torch.no_grad():
            for w, old in zip(weights, before, strict=True):
                w.copy_(old)
            for buffer, old in buffers:
                buffer.copy_(old)
        plus, minus = sides
        return [g - rate * (p - m) / (2 * epsilon) for g, p, m in zip(gradient, plus, minus, strict=True)]

    def _gradient(
        self, batch: Any, batch_idx: int, log_as: str | None, of: list[Tensor], penalised: bool = False
    ) -> list[Tensor]:
        probabilities = self.probabilities()
        self.mix(probabilities)
        loss = self.loss(batch, batch_idx, log_as)
        if penalised:
            loss = loss + self.penalty(probabilities)
        gradients = list(torch.autograd.grad(loss, of, allow_unused=True, materialize_grads=True))
        average(gradients)
        return gradients

    @staticmethod
    @torch.no_grad()
    def _move(weights: list[Tensor], start: list[Tensor], direction: list[Tensor], by: float) -> None:
        for w, origin, d in zip(weights, start, direction, strict=True):
            w.copy_(origin + by * d)


class SecondOrderDARTS(Differentiable):
    """Second-order DARTS; parameters as of `DARTS`."""

    module_class = SecondOrderDARTSModule
