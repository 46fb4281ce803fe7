"""Cost providers by the name of the cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from models.errors import InputError
from spaces import CostModel

from .base import CostProvider
from .counted import COUNTED, Counted

# Name of a cost to what makes its provider.
PROVIDERS: dict[str, Callable[[CostModel], CostProvider]] = {name: partial(Counted, name=name) for name in COUNTED}


def providers_of(names: Sequence[str], model: CostModel) -> list[CostProvider]:
    """What is counted, always, and the providers of `names`.

    Raises
    ------
    InputError
        If there is none for a name.
    """
    for name in names:
        if name not in PROVIDERS:
            raise InputError(f"no cost is called '{name}'; there are {', '.join(PROVIDERS)}")
    return [PROVIDERS[name](model) for name in dict.fromkeys([*COUNTED, *names])]
