"""Lightning on a command line: devices by name, a quiet screen, and Ctrl-C as Ctrl-C."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from models.errors import InputError
from models.plain_files import load_plain, write_plain

from .cli import AUTO
from .device import device_of

_PRECISIONS = {"32": "32-true", "16-mixed": "16-mixed", "bf16-mixed": "bf16-mixed"}


def accelerator_of(device: str) -> str:
    """Lightning's name of a device, which `device_of` has looked at."""
    kind = device_of(device).partition(":")[0]
    return "gpu" if kind == "cuda" else kind


def _index_of(device: str) -> int | None:
    """Which CUDA device is meant, where that is said."""
    _, _, number = device_of(device).partition(":")
    return int(number) if number else None


def placed(device: str) -> dict[str, Any]:
    """A Lightning trainer's argument for a device that is given by its number; nothing for another."""
    index = _index_of(device)
    return {} if index is None else {"devices": [index]}


def quiet_lightning() -> None:
    """Keep Lightning's tips and NNI's routine messages off the screen."""
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("nni.nas.experiment", "nni.experiment", "nni"):
        # NNI logs a failure and raises it as well; the raised one is enough.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


def trainer_options(options: Any, accelerator: str) -> dict[str, Any]:
    """Arguments of a Lightning trainer that follow from a run's options on devices, and those that all runs share.

    Raises
    ------
    InputError
        The options cannot be had together.
    """
    devices, nodes = getattr(options, "devices", 1), getattr(options, "num_nodes", 1)
    if devices * nodes > 1 and options.batch == AUTO:
        raise InputError("--batch auto: is for one device; right would be a number, which several share")
    if devices * nodes > 1 and options.batch % (devices * nodes):
        number = f"--devices {devices}" + (f" on --num-nodes {nodes}" if nodes > 1 else "")
        raise InputError(f"--batch {options.batch} cannot be shared out evenly between {number}")
    if getattr(options, "sync_bn", False) and accelerator != "gpu":
        raise InputError("--sync-bn: PyTorch has it for CUDA only; right would be --device cuda, or to leave it out")
    if options.precision not in ("auto", *_PRECISIONS):
        raise InputError(f"--precision {options.precision}: right would be one of auto, {', '.join(_PRECISIONS)}")
    index = _index_of(getattr(options, "device", "auto"))
    automatic = "16-mixed" if accelerator == "gpu" else "32-true"
    return {
        "accelerator": accelerator,
        "devices": devices if devices * nodes > 1 or index is None else [index],
        "num_nodes": nodes,
        "precision": _PRECISIONS.get(options.precision, automatic),
        "sync_batchnorm": getattr(options, "sync_bn", False),
        "use_distributed_sampler": False,  # the loaders' own know of processes
        "plugins": [PlainCheckpoints()],
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }


class PlainCheckpoints(TorchCheckpointIO):
    """Checkpoints are plain files; those of earlier versions nearly were. A run's folder may be somebody else's."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_plain(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        content: dict[str, Any] = load_plain(path, may_trust=True)
        _check_counts(content.get("loops") if isinstance(content, dict) else None)
        return content


_COUNTS = ("ready", "started", "processed", "completed")  # of Lightning's progress


def _check_counts(value: Any, counts: bool = False) -> None:
    """`TypeError` if what Lightning counts steps and epochs by holds no number, which it would find out later."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _COUNTS and not isinstance(inner, int):
                raise TypeError(f"a count of steps is a {type(inner).__name__}")
            _check_counts(inner, counts or str(key).endswith("progress"))
    elif counts and not isinstance(value, int):
        raise TypeError(f"a count of steps is a {type(value).__name__}")


def make_trainer(options: Any, accelerator: str, **more: Any) -> pl.Trainer:
    """A trainer of `trainer_options`; `InputError` for what Lightning refuses of them."""
    given = trainer_options(options, accelerator) | more
    try:
        return pl.Trainer(**given)
    except (ValueError, RuntimeError, MisconfigurationException) as e:
        raise InputError(f"--device, --devices, --strategy or --precision: {str(e).splitlines()[0]}") from None


class _Begun(pl.Callback):
    """Whether training has begun, and so everything of a checkpoint has been taken."""

    begun = False

    def on_train_epoch_start(self, *_: Any) -> None:
        self.begun = True

    def on_train_end(self, *_: Any) -> None:  # of a run that has nothing left to do
        self.begun = True


@contextmanager
def restoring(trainer: pl.Trainer, checkpoint: Path | None) -> Iterator[None]:
    """Whatever a checkpoint of another kind or shape leads to before training begins is an `InputError` within."""
    if checkpoint is None:
        yield
        return
    watch = _Begun()
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    try:
        yield
    except InputError:
        raise
    except Exception as e:
        if watch.begun:
            raise
        reason = (str(e).strip().splitlines() or [""])[0]
        raise InputError(
            f"{checkpoint}: cannot be gone on with: {type(e).__name__}: {reason}; right would be the run's own "
            "last.ckpt, or a new run"
        ) from e


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Ctrl-C within is a KeyboardInterrupt again, which Lightning turns into an exit with status 1."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
