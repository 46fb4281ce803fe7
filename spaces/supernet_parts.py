"""Layers and depths in a supernet: searchable modules that follow what is set in their `Active`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from .active import Active, Mixture
from .nni_compat import BaseSuperNetModule, Categorical, LayerChoice, MutableExpression, Repeat


class Searchable(BaseSuperNetModule):
    """Base of supernet modules: NNI's interface to them, which `Active` takes the place of."""

    active: Active

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        return {}

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        return {}

    def export_probs(self, memo: dict[str, Any]) -> dict[str, Any]:
        return {}


def weighted(mixture: Mixture, outputs: Callable[[int], Tensor]) -> Tensor:
    """Sum of the mixture's outputs, each by its weight."""
    return cast(Tensor, sum(mixture.weights[i] * outputs(i) for i in mixture.paths))


class MixedLayer(LayerChoice, Searchable):
    """`LayerChoice` in a supernet."""

    def __init__(self, choice: LayerChoice, active: Active) -> None:
        super().__init__(choice.candidates, label=choice.label)
        self.active = active

    @property
    def chosen(self) -> int | Mixture:
        """What is active of it."""
        return self.active[self.label]

    def forward(self, x: Tensor) -> Tensor:
        candidates, chosen = list(self), self.chosen
        return candidates[chosen](x) if isinstance(chosen, int) else weighted(chosen, lambda i: candidates[i](x))

    @classmethod
    def mutate(cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> Any:
        return cls(module, mutate_kwargs["active"]) if type(module) is LayerChoice else None


class MixedRepeat(Repeat, Searchable):
    """`Repeat` in a supernet: elastic depth, the first blocks of the deepest."""

    def __init__(self, repeat: Repeat, active: Active) -> None:
        super().__init__(list(repeat.blocks), cast(Any, repeat.depth_choice))
        self.active = active
        self._depth = Expression(cast(MutableExpression, repeat.depth_choice))

    def forward(self, x: Tensor) -> Tensor:
        depth = self._depth.value(self.active)
        if isinstance(depth, int):
            for block in itertools.islice(self.blocks, depth):
                x = block(x)
            return x
        states = {0: x} if 0 in depth else {}
        for d, block in enumerate(itertools.islice(self.blocks, max(depth)), start=1):
            x = block(x)
            if d in depth:
                states[d] = x
        return cast(Tensor, self.mix(states, depth))

    def mix(self, states: Mapping[int, Any], depth: Mapping[int, Any]) -> Any:
        """The sum of the states at each depth, each by its weight."""
        return sum(depth[d] * x for d, x in states.items())

    @classmethod
    def mutate(cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> Any:
        if type(module) is Repeat and isinstance(module.depth_choice, MutableExpression):
            return cls(module, mutate_kwargs["active"])
        return None


class Expression:
    """A value that follows from one or several decisions, such as ``round(ratio * width)``, ready to be looked up."""

    def __init__(self, expression: MutableExpression) -> None:
        choices = {label: cast(Categorical, spec).values for label, spec in expression.simplify().items()}
        self.labels = tuple(choices)
        self._values = {
            indices: expression.freeze({k: v[i] for (k, v), i in zip(choices.items(), indices, strict=True)})
            for indices in itertools.product(*(range(len(values)) for values in choices.values()))
        }

    def value(self, active: Active) -> Any:
        """The value, or (value to weight) where a decision is a mixture; decisions are independent of one another."""
        settings = [active[label] for label in self.labels]
        if all(isinstance(s, int) for s in settings):
            return self._values[cast(tuple[int, ...], tuple(settings))]
        weights: dict[Any, Any] = {}
        paths = [(s,) if isinstance(s, int) else s.paths for s in settings]
        for indices in itertools.product(*paths):
            each = [s.weights[i] for s, i in zip(settings, indices, strict=True) if not isinstance(s, int)]
            weight, value = math.prod(each[1:], start=each[0]), self._values[indices]
            weights[value] = weights[value] + weight if value in weights else weight
        return weights
