"""Cost providers by the name of the cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from models.errors import InputError
from spaces import CostModel

from .base import CostProvider
from .counted import COUNTED, Counted

# Name of a cost to what makes its provider.
PROVIDERS: dict[str, Callable[[CostModel], CostProvider]] = {name: partial(Counted, name=name) for name in COUNTED}


def providers_of(
    names: Sequence[str], model: CostModel, more: Mapping[str, Callable[[CostModel], CostProvider]] | None = None
) -> list[CostProvider]:
    """What is counted and what `more` tells (as `read_costs` gives it), always; `names` have to be among them.

    Raises
    ------
    InputError
        If there is none for a name.
    """
    makers = {**PROVIDERS, **(more or {})}
    for name in names:
        if name not in makers:
            raise InputError(f"no cost is called '{name}'; there are {', '.join(makers)} (--costs FILE tells more)")
    return [make(model) for make in makers.values()]
