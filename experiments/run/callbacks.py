"""Lightning callbacks of every run: history, checkpoint, progress."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch

from models.classes import some
from models.errors import InputError
from models.files import atomic

from .interrupts import deferred, heard
from .tables import write_csv


class History(pl.Callback):
    """Logged metrics by epoch, and the architecture's probabilities where there are any.

    Its rows are part of the checkpoint, so that ``metrics.csv`` of a resumed run is that of an uninterrupted one.

    Attributes
    ----------
    rows
        One a training epoch: ``epoch``, ``step`` and what was logged.
    probabilities
        One a training epoch: label to {value: probability}.
    before
        So many of them are of before a resume.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.probabilities: list[dict[str, dict[str, float]]] = []
        self.before = 0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "probabilities": self.probabilities}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.probabilities = state["rows"], state["probabilities"]
        for found in (self.rows, self.probabilities):
            if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
                raise TypeError("what was measured in its epochs is no list of mappings")
        self.before = len(self.rows)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        logged = _logged(trainer)
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **logged})
        if (export := getattr(module, "export_probs", None)) is not None:  # of a one-shot strategy
            self.probabilities.append(
                {k: {str(v): float(p) for v, p in dist.items()} for k, dist in cast(Any, export)().items()}
            )
        if not trainer.is_global_zero:
            return
        names = {k for row in self.rows for k in row} - {"epoch", "step"}
        write_csv(self.path, self.rows, ["epoch", "step", *sorted(names)])


class EpochLine(pl.Callback):
    """A line on the screen after every epoch. Stands last, so that what it announces has been saved.

    Parameters
    ----------
    title
        What the line begins with.
    shown
        Metrics in it, in this order; all of them, sorted, unless told otherwise.
    lowest
        A history, and the metric whose lowest value in it is shown as well.
    """

    def __init__(
        self, title: str, shown: Sequence[str] | None = None, lowest: tuple[History, str] | None = None
    ) -> None:
        self.title, self.shown, self.lowest = title, shown, lowest

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        logged = _logged(trainer)
        shown = sorted(logged) if self.shown is None else [k for k in self.shown if k in logged]
        metrics = "  ".join(f"{k} {logged[k]:.4f}" for k in shown)
        if self.lowest is not None:
            history, name = self.lowest
            if values := [row[name] for row in history.rows if name in row]:
                metrics += f"  lowest {name} {min(values):.4f}"
        took = time.perf_counter() - self._started
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        left = f", {_duration(took * (total - done))} left" if total > done else ""
        print(f"{self.title}  epoch {done}/{total}  {metrics}  {took:.1f} s{left}", flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _logged(trainer: pl.Trainer) -> dict[str, float]:
    return {k: float(v) for k, v in trainer.callback_metrics.items() if not k.startswith("prob/")}


def check_same_classes(before: Sequence[str] | None, now: Sequence[str] | None) -> None:
    """`InputError` if the classes of a run's data, in their order, are others by now."""
    if before is not None and now is not None and [*before] != [*now]:
        raise InputError(
            f"--resume: the classes of the data were {some(before)}, and are {some(now)} now; right would be the data "
            "that the run was begun with, or a new run with --weights"
        )


class LastCheckpoint(pl.Callback):
    """``last.ckpt`` after every epoch, atomically, with the state of the random generators.

    A run that is killed goes on from its last whole epoch; since data order and augmentation depend on seed and epoch
    alone, it ends where the uninterrupted run ends.

    Parameters
    ----------
    names
        Of the data's classes: a run is not gone on with on data that has others, or another order of them.
    """

    def __init__(self, path: Path, names: Sequence[str] | None = None) -> None:
        self.path, self.names = path, None if names is None else [*names]

    def state_dict(self) -> dict[str, Any]:
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
            "python": random.getstate(),
            "numpy": [v.tolist() if isinstance(v, np.ndarray) else v for v in np.random.get_state()],
            "names": self.names,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved: dict[str, Any] | None = state
        check_same_classes(state.get("names"), self.names)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Not sooner: between the checkpoint's restoring and here, Lightning and NNI draw numbers of their own.
        if (saved := getattr(self, "_saved", None)) is None:
            return
        torch.set_rng_state(saved["torch"].cpu())
        if len(saved["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in saved["cuda"]])
        version, internal, gauss = saved["python"]
        random.setstate((version, tuple(internal), gauss))
        np.random.set_state(tuple(saved["numpy"]))
        # Lightning made the loaders' iterators before, which draw their seeds then, and knew nothing of the epoch.
        iter(cast(Any, trainer.fit_loop)._data_fetcher)
        self._saved = None

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.path)  # all processes meet here; the first one writes, below
            return
        with atomic(self.path) as temporary:
            trainer.save_checkpoint(temporary)


class OrderlyInterrupt(pl.Callback):
    """Ctrl-C and SIGTERM take effect between two batches; asked again later, at once.

    Raised wherever the process happens to be, KeyboardInterrupt may leave a lock held for ever. TensorBoard's writer
    has been seen to, in `queue.put`: its thread waits, Lightning waits for its thread, and the process never ends.
    """

    def __init__(self) -> None:
        self._asked = False
        self._hearing = ExitStack()

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._hearing.enter_context(heard())
        self._hearing.enter_context(deferred(self._ask))

    def _ask(self) -> None:
        self._asked = True

    def _heed(self) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def on_train_batch_start(self, *_: Any) -> None:
        self._heed()

    def on_validation_batch_start(self, *_: Any) -> None:
        self._heed()

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._hearing.close()
        if self._asked and not trainer.interrupted:  # within the last batch
            raise KeyboardInterrupt

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._hearing.close()
