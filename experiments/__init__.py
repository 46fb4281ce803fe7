"""Strategies, tasks and the experiments themselves.

Names are imported when they are first used, so that scripts answer ``--help`` without loading torch.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "RetiariiExeConfig": "experiment",
    "RetiariiExperiment": "experiment",
}
_MODULES = {"evaluator": "evaluator", "strategy": "strategies"}
__all__ = sorted({**_EXPORTS, **_MODULES})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("spaces.nni_compat")
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
