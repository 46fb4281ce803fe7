"""Data sets and transforms: classification and detection. Knows nothing of searching.

Public names are loaded when first used (PEP 562), so that `import data` costs no torch and `--help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augment import Hyp
    from .canvas import Letterbox, letterbox, to_tensor
    from .classify import ClassificationData, classification
    from .detect import Batch, DetectionData, DetectionSet, Item, Meta, collate, detection, detection_split
    from .formats import coco_ids
    from .images import UnreadableImageError, read_rgb
    from .report import Report
    from .seeded import EpochSampler

_HOME = {
    "Batch": "detect",
    "ClassificationData": "classify",
    "DetectionData": "detect",
    "DetectionSet": "detect",
    "EpochSampler": "seeded",
    "Hyp": "augment",
    "Item": "detect",
    "Letterbox": "canvas",
    "Meta": "detect",
    "Report": "report",
    "UnreadableImageError": "images",
    "classification": "classify",
    "coco_ids": "formats",
    "collate": "detect",
    "detection": "detect",
    "detection_split": "detect",
    "letterbox": "canvas",
    "read_rgb": "images",
    "to_tensor": "canvas",
}

__all__ = [
    "Batch", "ClassificationData", "DetectionData", "DetectionSet", "EpochSampler", "Hyp", "Item", "Letterbox", "Meta",
    "Report", "UnreadableImageError", "classification", "coco_ids", "collate", "detection",
    "detection_split", "letterbox", "read_rgb", "to_tensor",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
