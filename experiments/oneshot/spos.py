"""Single paths for the weights (SPOS, Guo et al. 2020, arXiv:1904.00420), and an evolutionary search afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from .base import Context, OneShot, OneShotModule
from .derive import Arch
from .evolve import Evolution, evolve
from .journal import Journal, fingerprint
from .options import Options
from .processes import average

# Batches that batch norm statistics are taken from, for every arch that is rated.
_STATISTICS_BATCHES = 20


class SinglePathModule(OneShotModule):
    """One path a step, drawn uniformly (section 3.2); afterwards, the arch that the search found."""

    best: Arch | None = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.step_weights((self._loss_of(path, batch, batch_idx) for path in self.paths()), batch_idx)

    def paths(self) -> Iterable[Iterable[int]]:
        """The paths of a step: the index of a value for each decision."""
        drawn = torch.rand(len(self.choices), dtype=torch.float64, generator=self.generator).tolist()
        return [[int(share * len(values)) for share, values in zip(drawn, self.choices.values(), strict=True)]]

    def _loss_of(self, path: Iterable[int], batch: Any, batch_idx: int) -> Tensor:
        self.take(path)
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

    def paths(self) -> Iterable[Iterable[int]]:
        passes = max(len(v) for v in self.choices.values())
        return zip(*(self._column(len(v), passes) for v in self.choices.values()), strict=True)

    def _column(self, size: int, passes: int) -> list[int]:
        """One decision's values on all paths."""
        rounds = [torch.randperm(size, generator=self.generator) for _ in range(-(-passes // size))]
        column: list[int] = torch.cat(rounds)[:passes].tolist()
        return column


class SPOS(OneShot):
    """Uniform single-path training, then an evolutionary search of the supernet (section 3.4).

    Parameters
    ----------
    rate
        Arch to what is to be large, for the search. By default minus the loss on the validation data, after the batch
        norms' statistics were taken anew on the path from training data, as section 3.4 asks.
    evolution
        The search's numbers.
    ratings
        File that keeps the ratings, so that a search that was killed goes on where it was.
    gradient_clip_val, budget
        See `base.OneShotModule`.
    """

    module_class = SinglePathModule
    bilevel = False

    def __init__(
        self,
        rate: Callable[[Arch], float] | None = None,
        evolution: Evolution | None = None,
        ratings: Path | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.rate, self.evolution, self.ratings = rate or self.minus_loss, evolution or Evolution(), ratings
        self.rated: list[tuple[Arch, float]] = []

    @classmethod
    def from_options(cls, options: Options, context: Context) -> Self:
        evolution = Evolution(options.population, options.generations, seed=options.seed)
        ratings = context.folder / "ratings.txt"
        return cls(rate=context.rate, evolution=evolution, ratings=ratings, budget=context.budget)

    def _run(self) -> None:
        super()._run()
        module: Any = self.oneshot_module
        module.to(module.trainer.strategy.root_device)  # Lightning leaves it on the CPU
        rate: Callable[[Arch], float] = self._agreed
        if self.ratings is not None and module.trainer.world_size == 1:
            rate = Journal(self.ratings, fingerprint(self.supernet.state_dict())).remembering(rate)
        self.rated = evolve(self.choices, rate, self.budget, self.evolution)
        module.best = max(self.rated, key=lambda pair: pair[1])[0]
        module.activate(module.best)

    def _agreed(self, arch: Arch) -> float:
        """The rating's mean over all processes."""
        rating = torch.tensor(self.rate(arch), dtype=torch.float64, device=self.oneshot_module.device)
        average([rating])
        return float(rating)

    @torch.no_grad()
    def calibrate(self, arch: Arch) -> None:
        """Activate `arch`, with the batch norms' statistics of its own: means over batches of the training data."""
        module: Any = self.oneshot_module
        module.activate(arch)
        self.supernet.train()
        norms = [m for m in self.supernet.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [m.momentum for m in norms]
        for i, batch in enumerate(_batches(self.loaders[0](), _STATISTICS_BATCHES)):
            for m in norms:
                m.momentum = 1 / (i + 1)  # the mean of all batches so far
            module.quiet_loss(batch)
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum

    @torch.no_grad()
    def minus_loss(self, arch: Arch) -> float:
        """Minus the mean loss of `arch`, cut out of the supernet as it is, on the validation data."""
        module: Any = self.oneshot_module
        as_trained = {name: buffer.clone() for name, buffer in self.supernet.named_buffers()}
        self.calibrate(arch)
        self.supernet.eval()
        loss = torch.stack([module.quiet_loss(batch) for batch in _batches(self.loaders[1]())]).mean()
        for name, buffer in self.supernet.named_buffers():
            buffer.copy_(as_trained[name])
        return -float(loss)


def _batches(loader: Any, count: int | None = None) -> Iterator[Any]:
    """The first batches of a loader, the same ones whenever it is asked."""
    sampler: Any = getattr(loader, "sampler", None)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield from itertools.islice(loader, count)


class FairNAS(SPOS):
    """SPOS with FairNAS' strictly fair training."""

    module_class = FairModule
