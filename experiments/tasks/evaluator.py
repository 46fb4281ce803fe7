"""Evaluators and the traced Lightning parts that NNI scripts import as ``pl``."""

from spaces.nni_compat import DataLoader, Lightning, LightningModule, Trainer

from .classify import Classification, ClassificationModule
from .detect import Detection, DetectionModule

__all__ = [
    "Classification",
    "ClassificationModule",
    "DataLoader",
    "Detection",
    "DetectionModule",
    "Lightning",
    "LightningModule",
    "Trainer",
]
