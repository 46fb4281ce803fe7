"""The classification proxy as an NNI evaluator."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn, optim
from torchmetrics.classification import MulticlassAccuracy

from spaces.nni_compat import Lightning, SupervisedLearningModule, Trainer, nni

from .resize import resized, resolution_of


@nni.trace
class ClassificationModule(SupervisedLearningModule):
    """Cross entropy and accuracy; logs ``train_loss``, ``train_acc``, ``val_loss``, ``val_acc``."""

    def __init__(
        self,
        criterion: type[nn.Module] = nn.CrossEntropyLoss,
        learning_rate: float = 0.001,
        weight_decay: float = 0.0,
        optimizer: type[optim.Optimizer] = optim.Adam,
    ) -> None:
        # Over all samples alike, accuracy needs no number of classes, which NNI's own module has to be told.
        super().__init__(
            criterion,
            {"acc": MulticlassAccuracy(average="micro")},
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            optimizer=optimizer,
            export_onnx=False,
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch. Logged as means of the epoch; a one-shot strategy's architecture steps count as well."""
        labels = batch[1]
        logits = self(self.inputs(batch))
        loss = self.criterion(logits, labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        right = (logits.argmax(1) == labels).float().mean()
        self.log("train_acc", right, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        return loss

    def inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """What the network takes of a batch: the images at its resolution."""
        return resized(batch[0], resolution_of(self.model, batch[0].shape[-1]))

    def at_side(self, batch: tuple[Tensor, Tensor], side: int) -> tuple[Tensor, Tensor]:
        """The batch with its images at another resolution."""
        return resized(batch[0], side), batch[1]

    def on_fit_end(self) -> None:
        # A run resumed after its last epoch trains nothing and has nothing new to report.
        if "train_acc" in self.trainer.callback_metrics:
            super().on_fit_end()


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
