"""Supernets: searchable modules that follow the path, or the mixture of paths, that is set in their `Active`.

What a strategy decides, it writes there; no module knows of probabilities, controllers or samplers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from models.errors import InputError

from .active import Active
from .nni_cells import MixedCell, MixedInput, MixedStage, carry_over
from .nni_compat import (
    NATIVE_MIXED_OPERATIONS,
    NDS,
    Categorical,
    CategoricalMultiple,
    MixedOperation,
    MixedOperationSamplingPolicy,
    ModelSpace,
    MutableModule,
    OneShotStrategy,
    subsets,
)
from .supernet_parts import Expression, MixedLayer, MixedRepeat, Searchable


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
        given = {"active": self.active, "mixed_op_sampling": ActivePolicy, "is_nds": self._is_nds}
        try:
            return hook(module, name, memo, given)
        except TypeError as e:  # what NNI raises for a choice that it has no searchable module for
            raise InputError(f"'{name}': {e}") from e

    def mutate_model(self, model: Any) -> Any:
        self.choices = decisions(model)
        self.active = model.active = cast(Active, getattr(model, "active", Active()))
        self.active.update(dict.fromkeys(self.choices, 0))
        self._is_nds = isinstance(model, NDS)
        supernet = super().mutate_model(model)
        if self._is_nds:
            supernet.carry_over = carry_over
        return supernet


def make_supernet(space: Any) -> Any:
    """Make a supernet of a model space, in place; returns it."""
    return SupernetStrategy().mutate_model(space)


def hooks() -> list[Any]:
    """NNI's hooks that make searchable modules of mutables; a mutable without one is refused."""
    own = [MixedLayer.mutate, MixedInput.mutate, MixedRepeat.mutate, MixedStage.mutate, MixedCell.mutate]
    return [*own, *(o.mutate for o in NATIVE_MIXED_OPERATIONS), _refuse]


def _refuse(module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> bool:
    if isinstance(module, MutableModule) and module.mutables and not isinstance(module, Searchable):
        native = [o.bound_type.__name__.removeprefix("Mutable") for o in NATIVE_MIXED_OPERATIONS]
        raise InputError(
            f"'{name}' is a {type(module).__name__} with a choice, which supernets know of "
            f"{', '.join(['LayerChoice', 'InputChoice', 'Repeat', 'Cell', *native])} only"
        )
    return True


def decisions(space: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Label to values of every decision of a model space.

    Raises
    ------
    InputError
        If one of them is no choice between values, or subsets of a certain size.
    """
    found = {}
    for label, mutable in cast(ModelSpace, space).simplify().items():
        if isinstance(mutable, CategoricalMultiple) and mutable.n_chosen is not None:
            found[str(label)] = tuple(subsets(mutable))
            continue
        if not isinstance(mutable, Categorical):
            raise InputError(f"'{label}' is a {type(mutable).__name__}; one-shot strategies take choices of one value")
        found[str(label)] = tuple(mutable.values)
    return found


def activate(supernet: nn.Module, arch: Mapping[str, Any]) -> nn.Module:
    """`supernet`, set to the path of `arch`."""
    cast(Any, supernet).active.set(arch, decisions(supernet))
    return supernet
