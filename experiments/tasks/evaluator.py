"""Evaluators and the traced Lightning parts that NNI scripts import as ``pl``."""

from spaces import nni_compat  # isort: skip

from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer

from .classify import Classification, ClassificationModule
from .detect import Detection, DetectionModule

assert nni_compat.nni is not None

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
