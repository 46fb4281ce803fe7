"""Cost providers by name, of a space and of what else they are told."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.registry import load_plugin
from spaces.space import Space

from ..run.amounts import parse_amount
from .base import CostProvider

Maker = Callable[..., CostProvider]


def _counted(name: str) -> Maker:
    def make(space: Space, imgsz: int) -> CostProvider:
        from spaces import CostModel

        from .counted import Counted

        return Counted(CostModel(space, imgsz, classifier=space.config.is_classifier), name)

    return make


def _measured(backend: str) -> Maker:
    def make(space: Space, imgsz: int, device: str = "cpu", threads: int | None = None) -> CostProvider:
        from .latency import Latency

        return Latency(space, imgsz, backend, device, threads)

    return make


def _table(space: Space, imgsz: int, path: str, device: str = "cpu", threads: int | None = None) -> CostProvider:
    from .table import TableLatency

    return TableLatency(space, imgsz, path, device, threads)


def _roofline(
    space: Space, imgsz: int, *, peak: float, bandwidth: float, cost: str = "latency", **hardware: Any
) -> Any:
    from .roofline import Roofline

    told = {"peak": peak, "bandwidth": bandwidth, **hardware}
    # YAML takes 2e12 for text; 2T is shorter anyway.
    amounts = {k: parse_amount(v) if isinstance(v, str) else v for k, v in told.items()}
    return Roofline(space, imgsz, cost, **amounts)


MAKERS: dict[str, Maker] = {
    **{name: _counted(name) for name in ("params", "flops", "activations")},
    **{name: _measured(name) for name in ("torch", "compile", "onnxruntime", "openvino")},
    "table": _table,
    "roofline": _roofline,
}


def make_provider(kind: str, space: Space, imgsz: int, hw_config: Mapping[str, Any] | None = None) -> CostProvider:
    """A provider by its name in `MAKERS`, or by ``FILE.py:NAME``: a function (space, imgsz, **hw_config) of one's own.

    Raises
    ------
    InputError
        If there is none of that name, or `hw_config` does not fit it.
    """
    make = MAKERS.get(kind) or _own(kind)
    told = dict(hw_config or {})
    try:
        inspect.signature(make).bind(space, imgsz, **told)
    except TypeError as e:
        raise InputError(f"provider '{kind}': hw_config {told}: {e}") from None
    return make(space, imgsz, **told)


def _own(kind: str) -> Maker:
    path, _, name = kind.rpartition(":")
    if not path.endswith(".py"):
        raise InputError(f"no provider is called '{kind}'; there are {', '.join(MAKERS)}, and FILE.py:NAME")
    load_plugin(path)
    make = getattr(sys.modules[f"plugin_{Path(path).stem}"], name, None)
    if not callable(make):
        raise InputError(f"{path}: has no function '{name}'")
    return make
