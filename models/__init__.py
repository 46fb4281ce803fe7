"""Plain networks: the YAML grammar, blocks, heads, detector and classifier.

Names are imported when they are first used, so that what needs no torch (the grammar) does not load it.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Call": "grammar",
    "Classifier": "classifier",
    "Config": "grammar",
    "Detect": "heads",
    "InputError": "errors",
    "Model": "detector",
    "Network": "network",
    "Row": "grammar",
    "check_imgsz": "detector",
    "count_flops": "complexity",
    "count_params": "complexity",
    "load_detector": "files",
    "load_plugin": "registry",
    "load_upstream": "upstream",
    "load_weights": "upstream",
    "read_config": "grammar",
    "register": "registry",
    "save_detector": "files",
    "save_model_yaml": "files",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
