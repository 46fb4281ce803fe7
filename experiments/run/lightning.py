"""Lightning on a command line: devices by name, a quiet screen, and Ctrl-C as Ctrl-C."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl

from .device import device_of


def accelerator_of(device: str) -> str:
    """Lightning's name of a device, which `device_of` has looked at."""
    return "gpu" if device_of(device).startswith("cuda") else "cpu"


def quiet_lightning() -> None:
    """Keep Lightning's tips and NNI's routine messages off the screen."""
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("nni.nas.experiment", "nni.experiment", "nni"):
        # NNI logs a failure and raises it as well; the raised one is enough.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Ctrl-C within is a KeyboardInterrupt again, which Lightning turns into an exit with status 1."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
