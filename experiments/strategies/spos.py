"""Single paths for the weights (SPOS, Guo et al. 2020, arXiv:1904.00420), and an evolutionary search afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from spaces import nni_compat  # isort: skip

import torch
from torch import Tensor, nn

from .base import OneShot, OneShotModule
from .derive import Arch
from .evolve import Evolution, evolve

assert nni_compat.nni is not None


class SinglePathModule(OneShotModule):
    """One path a step, drawn uniformly (section 3.2); afterwards, the arch that the search found."""

    best: Arch | None = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.step_weights((self._loss_of(path, batch, batch_idx) for path in self.paths()), batch_idx)

    def paths(self) -> Iterator[dict[str, int]]:
        """The paths of a step: label to index of a value."""
        yield {label: int(torch.randint(len(values), ())) for label, values in self.choices.items()}

    def _loss_of(self, path: dict[str, int], batch: Any, batch_idx: int) -> Tensor:
        self.active.update(path)
        return self.loss(batch, batch_idx)

    def probabilities(self) -> dict[str, Tensor]:
        return {label: torch.full((len(v),), 1 / len(v)) for label, v in self.choices.items()}

    def export(self) -> Arch:
        return super().export() if self.best is None else self.best


class FairModule(SinglePathModule):
    """FairNAS (Chu et al. 2021, arXiv:1907.01845, section 3.3, strict fairness).

    A step takes as many paths as the largest decision has values, and makes one update of their summed gradients. In a
    decision with that many values, each is on exactly one of the paths. Where another has fewer, each is on as many as
    every other, or one more: who has one more is drawn.
    """

    def paths(self) -> Iterator[dict[str, int]]:
        passes = max(len(v) for v in self.choices.values())
        columns = {label: self._column(len(v), passes) for label, v in self.choices.items()}
        for i in range(passes):
            yield {label: column[i] for label, column in columns.items()}

    @staticmethod
    def _column(size: int, passes: int) -> list[int]:
        rounds = [torch.randperm(size) for _ in range(-(-passes // size))]
        column: list[int] = torch.cat(rounds)[:passes].tolist()
        return column


class SPOS(OneShot):
    """Uniform single-path training, then an evolutionary search of the supernet (section 3.4).

    Parameters
    ----------
    rate
        Arch to what is to be large, for the search. By default minus the loss on the validation data, after the batch
        norms' statistics were taken anew on the path from the training data, as section 3.4 asks.
    evolution
        The search's numbers.
    gradient_clip_val, budget
        See `base.OneShotModule`.
    """

    module_class = SinglePathModule
    bilevel = False

    def __init__(
        self, rate: Callable[[Arch], float] | None = None, evolution: Evolution | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.rate, self.evolution = rate or self.minus_loss, evolution or Evolution()
        self.rated: list[tuple[Arch, float]] = []

    def _run(self) -> None:
        super()._run()
        module: Any = self.oneshot_module
        self.rated = evolve(self.choices, self.rate, self.budget, self.evolution)
        module.best = max(self.rated, key=lambda pair: pair[1])[0]
        module.activate(module.best)

    @torch.no_grad()
    def minus_loss(self, arch: Arch) -> float:
        """Minus the mean loss of `arch`, cut out of the supernet as it is, on the validation data."""
        module: Any = self.oneshot_module
        module.set_model(self.supernet)
        module.activate(arch)
        norms = [m for m in self.supernet.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [m.momentum for m in norms]
        try:
            self.supernet.train()
            for i, batch in enumerate(self.loaders[0]()):
                for m in norms:
                    m.momentum = 1 / (i + 1)  # the mean of all batches so far
                module.quiet_loss(batch)
            self.supernet.eval()
            losses = [module.quiet_loss(batch) for batch in self.loaders[1]()]
        finally:
            for m, momentum in zip(norms, momenta, strict=True):
                m.momentum = momentum
        return -float(torch.stack(losses).mean())


class FairNAS(SPOS):
    """SPOS with FairNAS' strictly fair training."""

    module_class = FairModule
