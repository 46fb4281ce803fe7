"""What is done to a network after or around a search."""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "NMS": "export",
    "export_onnx": "export",
    "export_openvino": "export",
    "match_nas": "match",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
