"""Training a plain backbone on the classification proxy, to judge what a search found."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spaces import nni_compat  # isort: skip

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from data import EpochSampler

from .tasks.classify import ClassificationModule

assert nni_compat.nni is not None


def train_loader(split: Any, batch: int, seed: int) -> DataLoader[Any]:
    """Batches in an order that depends on seed and epoch alone; the last, smaller one is left out.

    Batch normalisation would take statistics of a few images from it. A split that fills no batch is one batch.
    """
    return DataLoader(
        split, batch_size=min(batch, len(split)), sampler=EpochSampler(split, seed), drop_last=True, num_workers=0
    )


def val_loader(split: Any, batch: int) -> DataLoader[Any]:
    """Batches in order."""
    return DataLoader(split, batch_size=batch, num_workers=0)


def quiet_lightning() -> None:
    """Keep Lightning's tips and NNI's routine messages off the screen; warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("nni.nas.experiment", "nni.experiment", "nni"):
        # NNI logs a failure and raises it as well; the raised one is enough.
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Ctrl-C within is a KeyboardInterrupt again, which Lightning turns into an exit with status 1."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


@torch.no_grad()
def accuracy(network: nn.Module, split: Any, batch: int) -> float:
    """Share of images of `split` that `network` names rightly, in eval mode."""
    device = next(network.parameters()).device
    network.eval()
    right = sum(
        int((network(images.to(device)).argmax(1).cpu() == labels).sum()) for images, labels in val_loader(split, batch)
    )
    return right / len(split)


def recalibrated_accuracy(network: nn.Module, data: Any, batch: int, seed: int) -> float:
    """Accuracy on ``data.val`` after the batch norms' statistics were taken anew from ``data.train``.

    A slice of a mixture has statistics of the mixture, and with YOLOv5's momentum of 0.03 a short training leaves the
    moving averages near their start, so every network of a comparison is measured like this. `network` is changed.
    """
    device = next(network.parameters()).device
    torch.optim.swa_utils.update_bn(train_loader(data.train, batch, seed), network, device=device)
    return accuracy(network, data.val, batch)


def train_plain(
    network: nn.Module,
    data: Any,
    *,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    accelerator: str,
    callbacks: list[pl.Callback],
) -> float:
    """Train `network` on ``data.train``, with the optimiser and the steps of a search of as many epochs.

    Returns
    -------
    `recalibrated_accuracy`
    """
    pl.seed_everything(seed, verbose=False)
    module = ClassificationModule(learning_rate=lr)
    module.set_model(network)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    with interruptible(trainer):
        trainer.fit(module, train_loader(data.train, batch, seed))
    return recalibrated_accuracy(network, data, batch, seed)
