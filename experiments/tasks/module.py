"""What the Lightning modules of the tasks share: a network that is set, not made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import nn

from ..run.callbacks import OrderlyInterrupt
from ..run.lightning import interruptible

# Batch norm statistics for a rating, of which a search makes a thousand; a measurement takes them from all batches.
RATING_BATCHES = 8


class TaskModule(pl.LightningModule):
    """Trains and measures the network that it is given."""

    _model: Any

    @property
    def model(self) -> Any:
        return self._model

    def set_model(self, model: nn.Module) -> None:
        """Set the network to train."""
        self._model = model

    def forward(self, x: Any) -> Any:
        return self.model(x)


def fit(module: Any, network: nn.Module, loader: Any, epochs: int, accelerator: str, callbacks: Sequence[Any]) -> None:
    """Train a network by its task's module, without a folder of its own."""
    module.set_model(network)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, OrderlyInterrupt()],
    )
    with interruptible(trainer):
        trainer.fit(module, loader)
