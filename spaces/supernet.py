"""Supernets: searchable modules that follow the path, or the mixture of paths, that is set in their `Active`.

What a strategy decides, it writes there; no module knows of probabilities, controllers or samplers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from models.errors import InputError

from .active import Active, Mixture
from .nni_compat import (
    NATIVE_MIXED_OPERATIONS,
    BaseSuperNetModule,
    Categorical,
    LayerChoice,
    MixedOperation,
    MixedOperationSamplingPolicy,
    ModelSpace,
    MutableExpression,
    MutableModule,
    OneShotStrategy,
    Repeat,
)


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
        mixed = [depth[0] * x] if 0 in depth else []
        for d, block in enumerate(itertools.islice(self.blocks, max(depth)), start=1):
            x = block(x)
            if d in depth:
                mixed.append(depth[d] * x)
        return cast(Tensor, sum(mixed))

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


class ActivePolicy(MixedOperationSamplingPolicy):
    """Arguments of NNI's mixed operations (value choices) by what is active."""

    def __init__(self, operation: MixedOperation, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> None:
        self.active: Active = mutate_kwargs["active"]
        self._expressions = {name: Expression(e) for name, e in operation.mutable_arguments.items()}

    def resample(self, operation: MixedOperation, memo: dict[str, Any]) -> dict[str, Any]:
        return {}

    export = export_probs = resample

    def forward_argument(self, operation: MixedOperation, name: str) -> Any:
        if name in self._expressions:
            return self._expressions[name].value(self.active)
        # As the module has it now: a batch norm's momentum changes while its statistics are taken anew.
        return getattr(operation, name, operation.init_arguments[name])


class SupernetStrategy(OneShotStrategy):
    """What of a strategy of NNI makes a supernet of a model space: its modules follow the `active` of this."""

    active: Active
    choices: dict[str, tuple[Any, ...]]

    def default_mutation_hooks(self) -> list[Any]:
        return hooks()

    def run_hook(self, hook: Any, name: str, module: nn.Module, memo: dict[str, Any]) -> Any:
        try:
            return hook(module, name, memo, {"active": self.active, "mixed_op_sampling": ActivePolicy})
        except TypeError as e:  # what NNI raises for a choice that it has no searchable module for
            raise InputError(f"'{name}': {e}") from e

    def mutate_model(self, model: Any) -> Any:
        self.choices = decisions(model)
        self.active = model.active = cast(Active, getattr(model, "active", Active()))
        self.active.update(dict.fromkeys(self.choices, 0))
        return super().mutate_model(model)


def make_supernet(space: Any) -> Any:
    """Make a supernet of a model space, in place; returns it."""
    return SupernetStrategy().mutate_model(space)


def hooks() -> list[Any]:
    """NNI's hooks that make searchable modules of mutables; a mutable without one is refused."""
    return [MixedLayer.mutate, MixedRepeat.mutate, *(o.mutate for o in NATIVE_MIXED_OPERATIONS), _refuse]


def _refuse(module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> bool:
    if isinstance(module, MutableModule) and module.mutables and not isinstance(module, Searchable):
        raise InputError(
            f"'{name}' is a {type(module).__name__} with a choice, which supernets know of LayerChoice, Repeat, "
            f"{', '.join(o.bound_type.__name__.removeprefix('Mutable') for o in NATIVE_MIXED_OPERATIONS)} only"
        )
    return True


def decisions(space: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Label to values of every decision of a model space.

    Raises
    ------
    InputError
        If one of them is not a choice of one out of several.
    """
    found = {}
    for label, mutable in cast(ModelSpace, space).simplify().items():
        if not isinstance(mutable, Categorical):
            raise InputError(f"'{label}' is a {type(mutable).__name__}; one-shot strategies take choices of one value")
        found[str(label)] = tuple(mutable.values)
    return found


def activate(supernet: nn.Module, arch: Mapping[str, Any]) -> nn.Module:
    """`supernet`, set to the path of `arch`."""
    cast(Any, supernet).active.set(arch, decisions(supernet))
    return supernet
