"""Deciding by measurement (DARTS-PT: Wang et al. 2021, arXiv:2108.04392, section 5): whose loss hurts most, stays.

The size of an architecture parameter says little of what its value is worth to the supernet. So decisions are taken one
after another in a random order: each value is masked in turn, and the loss of what is left is measured on the
architecture's data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from spaces.active import Mixture

from .base import Alphas, Context, OneShot, batch_statistics
from .derive import Arch, Budget
from .options import Options

DERIVES = ("probable", "perturb")
_BATCHES = 8  # that losses are measured on, the same for all values
_CLIP_NORM = 10.0  # the engine's
_SURE = 2.0  # standard errors between the two best values; nearer ones are undecided


class Decided(NamedTuple):
    """An arch, and the labels whose two best values could not be told apart: the cheaper one was taken."""

    arch: Arch
    undecided: tuple[str, ...]


def decide(
    module: Alphas,
    batches: Sequence[Any],
    budget: Budget | None = None,
    cost: Callable[[Arch], float] | None = None,
    tune: Callable[[], None] = lambda: None,
) -> Decided:
    """Take all decisions of a trained mixture; the supernet is set to the arch.

    Parameters
    ----------
    module
        Draws the order of the decisions by its generator.
    batches
        Of the architecture's data, two at least.
    budget
        A value is taken only if the cheapest of everything that is not decided keeps the limits with it.
    cost
        Of an arch, for what cannot be told apart; without it the better one on average is taken.
    tune
        Called after each decision: trains the weights of what is left for a moment.
    """
    weights = {label: p.detach() for label, p in module.probabilities().items()}
    module.mix(weights)
    labels = list(module.choices)
    cheapest = {} if budget is None else {k: v for k, v in budget.cheapest().items() if k in module.choices}
    arch: Arch = {}
    undecided = []
    for k in torch.randperm(len(labels), generator=module.generator).tolist():
        label, values = labels[k], module.choices[labels[k]]
        allowed = [True] * len(values)
        if budget is not None:
            allowed = budget.feasible([{**cheapest, **arch, label: value} for value in values])
        possible = [i for i, ok in enumerate(allowed) if ok]
        best = possible[0]
        if len(possible) > 1:
            losses = {i: _loss_without(module, label, weights[label], i, batches) for i in possible}
            best, second, *_ = sorted(possible, key=lambda i: -float(losses[i].mean()))
            gap = losses[best] - losses[second]
            if float(gap.mean()) <= _SURE * float(gap.std()) / math.sqrt(len(gap)):
                undecided.append(label)
                if cost is not None:
                    rest = {other: module.choices[other][int(p.argmax())] for other, p in weights.items()} | arch
                    best = min((best, second), key=lambda i: cost({**rest, label: values[i]}))
        arch[label] = values[best]
        module.active[label] = best
        tune()
    return Decided({label: arch[label] for label in labels}, tuple(label for label in labels if label in undecided))


@torch.no_grad()
def _loss_without(module: Alphas, label: str, weights: Tensor, masked: int, batches: Sequence[Any]) -> Tensor:
    """(batches,) losses of the supernet without one value of a decision."""
    left = tuple(i for i in range(len(weights)) if i != masked)
    kept = weights.clone()
    kept[masked] = 0.0
    before = module.active[label]
    module.active[label] = Mixture(kept / kept.sum(), left)
    losses = []
    with batch_statistics(module.model), torch.random.fork_rng(devices=()):
        for number, batch in enumerate(batches):
            torch.default_generator.manual_seed(number)  # what is random is so alike for all values
            losses.append(module.quiet_loss(batch).double())
    module.active[label] = before
    return torch.stack(losses).cpu()


class Differentiable(OneShot):
    """Base of the strategies with an architecture parameter for every value.

    Parameters
    ----------
    derive
        ``probable``: the most probable arch within the budget; ``perturb``: see `decide`.
    tuning
        Steps of the weights after each decision of ``perturb``.
    cost
        Of an arch, for decisions of ``perturb`` that are near.
    budget, **settings
        See `OneShot`.
    """

    leaves_slices: ClassVar[bool] = False

    def __init__(
        self,
        *,
        derive: Literal["probable", "perturb"] = "probable",
        tuning: int = 2,
        cost: Callable[[Arch], float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.derive, self.tuning, self.cost = derive, tuning, cost

    @classmethod
    def from_options(cls, options: Options, context: Context) -> Self:
        return cls(
            derive=options.derive,
            cost=lambda arch: context.costs.of(arch)["flops"],
            budget=context.budget,
            arc_learning_rate=options.arch_lr,
            **cls.own(options),
        )

    @classmethod
    def own(cls, options: Options) -> Mapping[str, Any]:
        """Settings of this strategy alone."""
        return {}

    def _run(self) -> None:
        super()._run()
        if self.derive == "perturb":
            module: Any = self.oneshot_module
            module.to(module.trainer.strategy.root_device)  # Lightning leaves it on the CPU
            batches = list(itertools.islice(self.loaders[1](), _BATCHES))
            module.decided = decide(module, batches, self.budget, self.cost, self._tuner(module))

    def _tuner(self, module: Any) -> Callable[[], None]:
        """Some steps of the weights, at the last learning rate of their training."""
        own = module.weights_optimizer().param_groups[0]["lr"]
        engine = module.engine
        optimizer = module.training_module.configure_optimizers() if engine is None else engine.optimizer(module.model)
        for group in optimizer.param_groups:
            group["lr"] = own
        stream = itertools.chain.from_iterable(self.loaders[0]() for _ in itertools.count())

        def tune() -> None:
            for batch in itertools.islice(stream, self.tuning):
                optimizer.zero_grad()
                module.quiet_loss(batch).backward()
                torch.nn.utils.clip_grad_norm_(module.model.parameters(), _CLIP_NORM)
                optimizer.step()

        return tune
