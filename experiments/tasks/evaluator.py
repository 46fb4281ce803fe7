"""The tasks as NNI's evaluators, which NNI scripts import as ``pl``: what trains is traced, and reports to NNI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn, optim

from spaces.nni_compat import DataLoader, Lightning, LightningModule, Trainer, nni

from . import classify, detect, landmarks

__all__ = [
    "Classification",
    "ClassificationModule",
    "DataLoader",
    "Detection",
    "DetectionModule",
    "Landmarks",
    "LandmarksModule",
    "Lightning",
    "LightningModule",
    "Trainer",
]


class _Reports:
    """Reports the result of each validation, and the last one at the end, where this process is a trial of NNI."""

    trainer: Any

    def result(self) -> float | None:
        """What there is to report."""
        raise NotImplementedError

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()  # type: ignore[misc]
        if nni.get_current_parameter() is not None and not self.trainer.sanity_checking:
            nni.report_intermediate_result(self.result())

    def on_fit_end(self) -> None:
        # One-shot strategies that train the architecture on the validation loader may have nothing to report, nor has
        # a run that was resumed after its last epoch.
        if nni.get_current_parameter() is not None and (result := self.result()) is not None:
            nni.report_final_result(result)


@nni.trace
class ClassificationModule(_Reports, classify.ClassificationModule, LightningModule):
    """`experiments.tasks.classify.ClassificationModule` for NNI."""

    def result(self) -> float | None:
        logged = self.trainer.callback_metrics
        found = logged.get("val_acc", logged.get("train_acc"))
        return None if found is None else found.item()


@nni.trace
class DetectionModule(_Reports, detect.DetectionModule, LightningModule):
    """`experiments.tasks.detect.DetectionModule` for NNI."""

    def result(self) -> float | None:
        return detect.rated(self.measured) if self.measured else None


@nni.trace
class LandmarksModule(_Reports, landmarks.LandmarksModule, LightningModule):
    """`experiments.tasks.landmarks.LandmarksModule` for NNI, to which 1 - NME is reported."""

    def result(self) -> float | None:
        logged = self.trainer.callback_metrics
        found = logged.get("val_nme", logged.get("train_nme"))
        return None if found is None else landmarks.score(found.item())


@nni.trace
class Classification(Lightning):
    """Evaluator for image classification, with the arguments of NNI's `Classification`.

    Parameters
    ----------
    criterion, learning_rate, weight_decay, optimizer
        Class of the loss, learning rate and weight decay of the optimizer class; defaults as in NNI.
    train_dataloaders, val_dataloaders
        In a one-shot search the first trains weights, the second the architecture.
    num_classes
        Accepted as NNI accepts it; accuracy does not need it.
    **trainer_kwargs
        For `lightning.Trainer`, such as ``max_epochs``.
    """

    def __init__(
        self,
        criterion: type[nn.Module] = nn.CrossEntropyLoss,
        learning_rate: float = 0.001,
        weight_decay: float = 0.0,
        optimizer: type[optim.Optimizer] = optim.Adam,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        fit_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        super().__init__(
            ClassificationModule(criterion, learning_rate, weight_decay, optimizer),
            Trainer(**trainer_kwargs),
            train_dataloaders=train_dataloaders,
            val_dataloaders=val_dataloaders,
            datamodule=datamodule,
            fit_kwargs=fit_kwargs,
        )


@nni.trace
class Detection(Lightning):
    """Evaluator for detection: trains, and reports mAP50-95 after every epoch and at the end.

    Parameters
    ----------
    names, imgsz, optimizer, learning_rate, momentum, weight_decay
        As in `DetectionModule`.
    train_dataloaders, val_dataloaders
        Loaders that collate with `data.collate`; `search_loaders` makes them. In a one-shot search with DARTS the first
        trains weights, the second the architecture.
    **trainer_kwargs
        For `lightning.Trainer`, such as ``max_epochs``.
    """

    def __init__(
        self,
        names: Sequence[str],
        imgsz: int = 640,
        optimizer: str = "adamw",
        learning_rate: float = 0.001,
        momentum: float = 0.937,
        weight_decay: float = 5e-4,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        fit_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        super().__init__(
            DetectionModule(names, imgsz, optimizer, learning_rate, momentum, weight_decay),
            Trainer(**trainer_kwargs),
            train_dataloaders=train_dataloaders,
            val_dataloaders=val_dataloaders,
            datamodule=datamodule,
            fit_kwargs=fit_kwargs,
        )


@nni.trace
class Landmarks(Lightning):
    """Evaluator for landmarks.

    Parameters
    ----------
    normalise, loss, pose
        As in `experiments.tasks.landmarks.LandmarksModule`.
    learning_rate, weight_decay
        Of Adam.
    train_dataloaders, val_dataloaders
        In a one-shot search the first trains weights, the second the architecture.
    **trainer_kwargs
        For `lightning.Trainer`, such as ``max_epochs``.
    """

    def __init__(
        self,
        normalise: tuple[int, int],
        loss: str = "l2",
        pose: float = 1.0,
        learning_rate: float = 0.001,
        weight_decay: float = 0.0,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        fit_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        super().__init__(
            LandmarksModule(normalise, loss, pose, learning_rate, weight_decay),
            Trainer(**trainer_kwargs),
            train_dataloaders=train_dataloaders,
            val_dataloaders=val_dataloaders,
            datamodule=datamodule,
            fit_kwargs=fit_kwargs,
        )
