"""Cost providers by name, of a space and of what else they are told."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from models.errors import InputError
from models.plugins import load_plugin
from spaces.space import Space

from ..run import registry
from ..run.amounts import parse_amount
from .base import CostProvider

Maker = Callable[..., CostProvider]


def counted(space: Space, imgsz: int, *, name: str) -> CostProvider:
    """``params``, ``flops`` or ``activations``."""
    from spaces import CostModel

    from .counted import Counted

    return Counted(CostModel(space, imgsz, classifier=space.config.is_classifier), name)


def roofline(
    space: Space, imgsz: int, *, peak: float, bandwidth: float, cost: str = "latency", **hardware: Any
) -> CostProvider:
    """A `Roofline`, whose figures may be amounts."""
    from .roofline import Roofline

    told = {"peak": peak, "bandwidth": bandwidth, **hardware}
    # YAML takes 2e12 for text; 2T is shorter anyway.
    amounts = {k: parse_amount(v) if isinstance(v, str) else v for k, v in told.items()}
    return Roofline(space, imgsz, cost, **amounts)


def make_provider(kind: str, space: Space, imgsz: int, hw_config: Mapping[str, Any] | None = None) -> CostProvider:
    """A provider of the registry, or by ``FILE.py:NAME``: a function (space, imgsz, **hw_config) of one's own.

    Raises
    ------
    InputError
        If there is none of that name, or `hw_config` does not fit it.
    """
    make = _known(kind) if kind in registry.names("provider") else _own(kind)
    told = {str(k): v for k, v in (hw_config or {}).items()}
    try:
        inspect.signature(make).bind(space, imgsz, **told)
    except TypeError as e:
        raise InputError(f"provider '{kind}': hw_config {told}: {e}") from None
    try:
        return make(space, imgsz, **told)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError) as e:
        first = (str(e).splitlines() or [""])[0]
        raise InputError(f"provider '{kind}': hw_config {told}: {type(e).__name__}: {first}") from e


def _known(kind: str) -> Maker:
    return functools.partial(registry.load("provider", kind), **registry.KINDS["provider"][kind].defaults)


def _own(kind: str) -> Maker:
    path, _, name = kind.rpartition(":")
    if not path.endswith(".py"):
        known = ", ".join(registry.names("provider"))
        raise InputError(f"no provider is called '{kind}'; there are {known}, and FILE.py:NAME")
    make = getattr(load_plugin(path), name, None)
    if not callable(make):
        raise InputError(f"{path}: has no function '{name}'")
    return make
