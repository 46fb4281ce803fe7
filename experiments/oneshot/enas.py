"""ENAS (Pham et al. 2018, arXiv:1802.03268): a controller draws the paths, and learns from their losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..run.processes import average
from ..search.controller import Controller, Reinforce
from .base import Bilevel, OneShot
from .derive import Arch, most_probable


class ENASModule(Bilevel):
    """Weights and controller by turns, each on paths drawn from the controller.

    A path's reward is the first loss ever seen over its own: the paper's c / perplexity (section 2.2), for losses of
    any size.

    Parameters
    ----------
    samples
        Paths for each step of the controller.
    entropy_weight
        See `controller.Reinforce`.
    candidates
        So many archs are drawn for the export, of which the most probable one within the budget is taken.
    """

    def __init__(
        self, *args: Any, samples: int = 2, entropy_weight: float = 1e-4, candidates: int = 256, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.samples, self.candidates = samples, candidates
        self.controller = Controller([len(v) for v in self.choices.values()])
        self.reinforce = Reinforce(self.controller, self.arc_learning_rate, entropy_weight)
        self.register_buffer("first_loss", torch.tensor(float("nan")))

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer:
        return self.reinforce.optimizer

    def arch_step(self, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            indices = self.controller.sample(self.samples, self.generator)[0]
            rewards = torch.stack([self._reward(path, batch["val"], batch_idx) for path in indices])
        self.reinforce.update(indices, rewards)

    def _reward(self, path: Tensor, batch: Any, batch_idx: int) -> Tensor:
        self.take(path.tolist())
        loss = self.loss(batch, batch_idx, "arch")
        average([loss])
        if not self.first_loss.isfinite():
            self.first_loss.copy_(loss)
        certain = zip(self.choices.items(), path, strict=True)
        one_arch = {label: one_hot(i, len(values)).float() for (label, values), i in certain}
        return self.first_loss / loss.clamp_min(1e-6) - self.penalty(one_arch)

    def activate_for_weights(self) -> None:
        self.take(self.controller.sample(1, self.generator)[0][0].tolist())

    def probabilities(self) -> dict[str, Tensor]:
        """Marginals, estimated; decisions of the controller depend on one another."""
        generator = torch.Generator().manual_seed(self.current_epoch)  # looking on changes no draw of the search
        return dict(zip(self.choices, self.controller.marginals(generator=generator), strict=True))

    @torch.no_grad()
    def export(self) -> Arch:
        """The most probable of archs drawn from the controller, and of its greedy one, within the budget.

        Where none is, the most probable arch by the marginals that is.
        """
        drawn = self.controller.sample(self.candidates, torch.Generator().manual_seed(0))[0]
        indices = torch.cat([self.controller.greedy()[None], drawn])
        indices = indices[self.controller.log_prob(indices).argsort(descending=True, stable=True)]
        archs = [
            {label: values[i] for (label, values), i in zip(self.choices.items(), path, strict=True)}
            for path in indices.tolist()
        ]
        fits = [True] * len(archs) if self.budget is None else self.budget.feasible(archs)
        within = [arch for arch, ok in zip(archs, fits, strict=True) if ok]
        return within[0] if within else most_probable(self.export_probs(), self.budget)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["baseline"] = self.reinforce.baseline

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.reinforce.baseline = checkpoint["baseline"]


class ENAS(OneShot):
    """ENAS.

    Parameters
    ----------
    samples, entropy_weight, candidates
        See `ENASModule`.
    arc_learning_rate, warmup_epochs, gradient_clip_val, budget
        See `base.Bilevel` and `base.OneShotModule`.
    """

    module_class = ENASModule
