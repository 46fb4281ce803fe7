"""The training loop of a plain network, as a Lightning module over its task's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn, optim

from models.errors import InputError

from ..run.processes import broadcast_buffers
from ..tasks.module import TaskModule
from .engine import Engine, engine_state
from .lessons import Lessons


class Training(pl.LightningModule):
    """A plain network that learns; what is validated and kept is the average of its weights.

    Parameters
    ----------
    learner
        The task's module, which gives losses and measurements.
    network
        What it learns on.
    engine
        The recipe.
    lessons
        What the network learns from another one, beside its own loss.

    Attributes
    ----------
    seconds
        Time that whole epochs took, those before a resume included.
    """

    def __init__(self, learner: TaskModule, network: nn.Module, engine: Engine, lessons: Lessons | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        learner.set_model(network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.learner, self.engine, self.lessons = learner, engine, lessons
        self.seconds = 0.0

    @property
    def model(self) -> Any:
        """The network that learns."""
        return self.learner.model

    @property
    def average(self) -> Any:
        """The average of its weights, in eval mode."""
        assert self.engine.average is not None
        return self.engine.average.network

    def setup(self, stage: str) -> None:
        cast(Any, self.learner).log = self.log

    def configure_optimizers(self) -> optim.Optimizer:
        # What lessons have weights of, such as adapters, learns as the network does.
        learns = self.model if self.lessons is None else nn.ModuleList([self.model, self.lessons])
        return self.engine.optimizer(learns)

    def on_train_start(self) -> None:
        self.engine.begin(self, self.model)
        self.learner.judge(self.average)

    def on_train_epoch_start(self) -> None:
        self._started = time.perf_counter()
        self.engine.begin_epoch(self.optimizers())

    def training_step(self, batch: Any, batch_idx: int) -> None:
        batch = self.engine.resized(self, self.learner, batch, batch_idx)
        if self.lessons is None:
            loss = cast(Tensor, self.learner.training_step(batch, batch_idx))
        else:
            loss = self.lessons.loss(self.learner, batch, batch_idx)
        # DDP averages over processes itself.
        given = self, self.model, self.optimizers(), [loss], batch_idx, self.manual_backward
        loss, rates = self.engine.step(*given)
        if self.loggers:
            step = {"step/loss": float(loss), "step/lr": rates.lr, "step/momentum": rates.momentum}
            for logger in self.loggers:
                logger.log_metrics(step, step=self.engine.iteration(self, batch_idx))

    def on_before_optimizer_step(self, optimizer: optim.Optimizer) -> None:
        self.engine.clip(optimizer)

    # Validation of the average

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.learner.validation_step(batch, batch_idx)

    def on_validation_start(self) -> None:
        broadcast_buffers(self.average)

    def on_validation_epoch_end(self) -> None:
        self.learner.on_validation_epoch_end()
        self.seconds += time.perf_counter() - self._started

    # Checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["engine"] = {**self.engine.state_dict(), "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = engine_state(checkpoint)
        self.engine.load_state_dict(state)
        self.seconds = state["seconds"]

    def on_fit_end(self) -> None:
        self.engine.finish(self.model)


class Best(pl.Callback):
    """Keeps the best epoch by its validation, and stops when none has been better for long.

    Parameters
    ----------
    fitness
        Measurements to what is to be large.
    save
        Called when an epoch is the best so far, with what was measured.
    patience
        Epochs without a better one after which training stops; 0: never.

    Attributes
    ----------
    best
        What was measured in the best epoch so far, ``epoch`` counted from 1.

    A run that is gone on with for more epochs than it was begun with is asked for them: one that stopped early does so
    again only after `patience` of the new ones.
    """

    def __init__(
        self, fitness: Callable[[dict[str, Any]], float], save: Callable[[Any, dict[str, Any]], None], patience: int
    ) -> None:
        self.fitness, self.save, self.patience = fitness, save, patience
        self.best: dict[str, Any] = {}
        self._stopped = False
        self._epochs: int | None = None  # that the run was to have
        self._since = 0  # epochs after which patience begins

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stopped": self._stopped, "epochs": self._epochs, "since": self._since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self._stopped = state["best"], state["stopped"]
        self._epochs, self._since = state.get("epochs"), state.get("since", 0)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._epochs is not None and cast(int, trainer.max_epochs) > self._epochs:
            self._stopped, self._since = False, trainer.current_epoch
        self._epochs = trainer.max_epochs
        trainer.should_stop = self._stopped  # a run that stopped early has nothing to go on with

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        training = cast(Training, module)
        measured: dict[str, Any] = getattr(training.learner, "measured", None) or {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")
        }
        fitness = self.fitness(measured)
        if not math.isfinite(fitness + float(trainer.callback_metrics.get("val_loss", 0.0))):
            raise InputError(
                f"what validation measured in epoch {trainer.current_epoch + 1} is not finite: a smaller --lr0 may "
                "help; what was saved before stands"
            )
        if not self.best or fitness > self.best["fitness"]:
            self.best = {"epoch": trainer.current_epoch + 1, **measured, "fitness": fitness}
            if trainer.is_global_zero:
                self.save(training.average, self.best)
        elif trainer.current_epoch + 1 - max(self.best["epoch"], self._since) >= self.patience > 0:
            self._stopped = trainer.should_stop = True
