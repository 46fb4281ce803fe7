"""Runs a training: of one network in a run's folder, or of one that a search compares with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from torch import nn

from models.classes import names_of

from ..run.callbacks import EpochLine, History, LastCheckpoint, OrderlyInterrupt
from ..run.console import say
from ..run.folder import RunFolder
from ..run.lightning import interruptible, make_trainer, placed, restoring
from ..run.loggers import loggers_of
from ..run.pinned import has_bars
from ..tasks.task import SearchTask
from .engine import Engine
from .loop import Best, Training
from .options import Learning


def fit(
    options: Any,
    run: RunFolder,
    training: Training,
    loaders: tuple[Any, Any],
    best: Best,
    accelerator: str,
    title: str,
    shown: Sequence[str] | None = None,
    resume: bool = False,
) -> tuple[pl.Trainer, History]:
    """Train a network in a run's folder, and keep its best epoch.

    Parameters
    ----------
    loaders
        Of training and of validation.
    title, shown
        See `EpochLine`.
    resume
        Go on from ``last.ckpt``.
    """
    names = names_of(training.model)
    history, checkpoint = History(run.path / "metrics.csv"), run.path / "last.ckpt"
    again: dict[str, Any] = {"ckpt_path": str(checkpoint)} if resume else {}
    trainer = make_trainer(
        options,
        accelerator,
        max_epochs=options.epochs,
        strategy=options.strategy,
        logger=loggers_of(options.logger, run.path, asdict(options)),
        callbacks=[OrderlyInterrupt(), best, history, LastCheckpoint(checkpoint, names), EpochLine(title, shown)],
        enable_progress_bar=has_bars(),
    )
    with interruptible(trainer), restoring(trainer, checkpoint if resume else None):
        trainer.fit(training, *loaders, **again)
    if resume and len(history.rows) == history.before and trainer.is_global_zero:
        had = f"the {len(history.rows)} epochs of {run.path} are done"
        say(f"nothing was left to train: {had}; right would be --epochs MORE")
    return trainer, history


def train_alone(
    task: SearchTask,
    network: nn.Module,
    learning: Learning,
    epochs: int,
    accelerator: str,
    callbacks: Sequence[pl.Callback] = (),
    *,
    batch: int,
    seed: int,
    part: str = "weights",
    finetunes: bool = False,
    device: str | None = None,
) -> None:
    """Train a plain network of a search as all networks are trained; it becomes the average of its weights.

    Parameters
    ----------
    batch, finetunes
        See `Engine`.
    seed
        Of the order of the images.
    part
        Of the training images, see `SearchTask.loader`.
    device
        What it is trained on, where `learning` does not say.
    """
    learner = task.module()
    engine = Engine(learning, batch, finetunes=finetunes, sums_loss=learner.sums_loss, seed=seed)
    trainer = make_trainer(
        learning,
        accelerator,
        max_epochs=epochs,
        logger=False,
        callbacks=[*callbacks, OrderlyInterrupt()],
        enable_progress_bar=False,
        **({} if device is None else placed(device)),
    )
    with interruptible(trainer):
        trainer.fit(Training(learner, network, engine), task.loader(part, seed))
