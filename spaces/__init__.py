"""Search spaces: choices in the grammar, searchable blocks, and spaces as NNI model spaces.

Names are imported when they are first used: what is pure Python (`freeze`, `Space`) loads neither torch nor NNI.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Decision": "choices",
    "NASBACKBONE": "model_space",
    "NASDETECTOR": "model_space",
    "Space": "space",
    "fixed_arch": "model_space",
    "freeze": "space",
    "read_arch": "space",
    "slice_weights": "model_space",
    "space_of": "space",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _EXPORTS[name] == "model_space":
        import_module(".nni_compat", __name__)
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
