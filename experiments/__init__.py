"""Strategies, tasks and the experiments themselves.

Names are imported when they are first used, so that scripts answer ``--help`` without loading torch.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "RetiariiExeConfig": "experiment",
    "RetiariiExperiment": "experiment",
}
# These work without NNI: what a search hands over needs none.
_WITHOUT_NNI = {
    "DetectionMetrics": "metrics",
    "detect_image": "predict",
    "evaluate": "validate",
    "open_detector": "detectors",
}
_MODULES = {"evaluator": "evaluator", "strategy": "strategies"}
__all__ = sorted({**_EXPORTS, **_WITHOUT_NNI, **_MODULES})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _WITHOUT_NNI:
        return getattr(import_module(f".{_WITHOUT_NNI[name]}", __name__), name)
    import_module("spaces.nni_compat")
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
