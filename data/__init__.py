"""Data sets and transforms: classification and detection. Knows nothing of searching.

Public names are loaded when first used (PEP 562), so that `import data` costs no torch and `--help` answers at once.
"""

from typing import TYPE_CHECKING

from models.lazy import lazy_exports

if TYPE_CHECKING:
    from .augment import Hyp
    from .canvas import Letterbox, letterbox, to_tensor
    from .classify import ClassificationData, classification
    from .detect import (
        Batch,
        DetectionData,
        DetectionSet,
        Item,
        Meta,
        collate,
        detection,
        detection_sources,
        detection_split,
        require_boxes,
    )
    from .formats import coco_ids
    from .images import UnreadableImageError, read_rgb
    from .report import Report
    from .seeded import EpochSampler, InOrder

_HOME = {
    "Batch": "detect",
    "ClassificationData": "classify",
    "DetectionData": "detect",
    "DetectionSet": "detect",
    "EpochSampler": "seeded",
    "Hyp": "augment",
    "InOrder": "seeded",
    "Item": "detect",
    "Letterbox": "canvas",
    "Meta": "detect",
    "Report": "report",
    "UnreadableImageError": "images",
    "classification": "classify",
    "coco_ids": "formats",
    "collate": "detect",
    "detection": "detect",
    "detection_sources": "detect",
    "detection_split": "detect",
    "letterbox": "canvas",
    "read_rgb": "images",
    "require_boxes": "detect",
    "to_tensor": "canvas",
}

__all__ = [
    "Batch", "ClassificationData", "DetectionData", "DetectionSet", "EpochSampler", "Hyp", "InOrder", "Item",
    "Letterbox", "Meta", "Report", "UnreadableImageError", "classification", "coco_ids", "collate", "detection",
    "detection_sources", "detection_split", "letterbox", "read_rgb", "require_boxes", "to_tensor",
]  # fmt: skip

__getattr__ = lazy_exports(__name__, _HOME)
