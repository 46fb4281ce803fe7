"""Classifiers that a search left: what `val.py` and `train.py` do with a ``classifier.pt``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from data import EpochSampler, classification
from models.classifier import Classifier
from models.complexity import count_flops, count_params
from models.errors import InputError
from models.files import load_classifier, save_classifier, save_model_yaml
from models.strides import check_imgsz

from ..run.callbacks import EpochLine, History, LastCheckpoint, OrderlyInterrupt
from ..run.console import say
from ..run.device import device_of
from ..run.folder import RunFolder
from ..run.lightning import accelerator_of, interruptible, quiet_lightning
from ..tasks.classify import ClassificationModule

_LR, _FINETUNE = 0.001, 0.1  # of Adam; a trained supernet's slice takes that share of it


def validate(options: Any, run: RunFolder) -> dict[str, Any]:
    """Measure the classifier of a file on the validation images of a set.

    Returns
    -------
    The content of ``results.json``: ``accuracy``, ``accuracy_top5`` (where there are more than five classes), ``loss``
    (cross entropy), ``images``, ``imgsz``.
    """
    network, content = load_classifier(options.weights)
    imgsz, data = _open(options, network, content)
    if options.split != "val":
        raise InputError(f"--split {options.split}: a classifier is measured on val")
    device = device_of(options.device)
    network.to(device)
    logits, labels = [], []
    with torch.no_grad():
        for images, given in DataLoader(data.val, options.batch, num_workers=options.workers):
            logits.append(network(images.to(device)).cpu())
            labels.append(given)
    scores, right = torch.cat(logits), torch.cat(labels)
    among = scores.argsort(1, descending=True) == right[:, None]
    results: dict[str, Any] = {
        "imgsz": imgsz,
        "images": len(right),
        "accuracy": among[:, :1].sum().item() / len(right),
        **({"accuracy_top5": among[:, :5].sum().item() / len(right)} if data.nc > 5 else {}),
        "loss": float(torch.nn.functional.cross_entropy(scores, right)),
    }
    run.write_config(asdict(options))
    run.write_json("results.json", results)
    top5 = f", top-5 {results['accuracy_top5']:.4f}" if "accuracy_top5" in results else ""
    line = f"accuracy {results['accuracy']:.4f}{top5}, loss {results['loss']:.4f}"
    say(
        f"{options.weights} on {options.data} ({len(right):,} images, {imgsz} pixels): {line}",
        f"results in {run.path}",
    )
    return results


def finetune(options: Any, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train the classifier of a file further, by Adam on all training images; keeps the best epoch's.

    The learning rate falls by a line, from ``lr0`` (0.001; of a supernet's slice a tenth) to ``lrf`` of it.

    Returns
    -------
    The content of ``results.json``: ``accuracy`` of the best epoch and ``before``, ``epoch``, parameters, FLOPs.
    """
    quiet_lightning()
    accelerator = accelerator_of(options.device)
    network, content = load_classifier(options.weights)
    imgsz, data = _open(options, network, content)
    pl.seed_everything(options.seed, verbose=False)
    workers = options.workers or 0
    batch, sampler = min(options.batch, len(data.both)), EpochSampler(data.both, options.seed)
    train: Any = DataLoader(data.both, batch, sampler=sampler, drop_last=True, num_workers=workers)
    val: Any = DataLoader(data.val, batch, num_workers=workers)
    lr = options.lr0 or _LR * (_FINETUNE if content.get("is_slice") else 1)
    module = ClassificationModule(learning_rate=lr, weight_decay=options.weight_decay)
    module.set_model(network)
    size = {"params": count_params(network), "flops": count_flops(network, imgsz, network.config.ch)}
    kept = {"imgsz": imgsz, "arch": content.get("arch"), "is_slice": content.get("is_slice", False)}
    best = _Best(run.path / "classifier.pt", data.names, kept)
    history = History(run.path / "metrics.csv")
    checkpoint = run.path / "last.ckpt"
    # Our own file, in the run's own folder: it holds optimizer and loops, which weights_only refuses.
    again: dict[str, Any] = {}
    if resume and checkpoint.exists():
        again = {"ckpt_path": str(checkpoint), "weights_only": False}
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator=accelerator,
        devices=1,
        logger=TensorBoardLogger(run.path, name="", version=""),
        callbacks=[
            _LinearDecay(options.lrf),
            best,
            history,
            LastCheckpoint(checkpoint),
            EpochLine("finetune"),
            OrderlyInterrupt(),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )
    run.write_config(asdict(options), anew=not resume)
    save_model_yaml(network.config.raw, run.path / "classifier.yaml")
    with interruptible(trainer):
        if not again:
            trainer.validate(module, val, verbose=False)
            best.before = float(trainer.callback_metrics["val_acc"])
        trainer.fit(module, train, val, **again)
    results = {"accuracy": best.accuracy, "before": best.before, "epoch": best.epoch, **size}
    run.write_json("results.json", results)
    say(
        f"accuracy {best.accuracy:.4f} in epoch {best.epoch} of {options.epochs}, {best.before:.4f} before",
        f"results in {run.path}",
    )
    return results


def _open(options: Any, network: Classifier, content: dict[str, Any]) -> tuple[int, Any]:
    """Side of the images, and the data; `InputError` if they do not fit the classifier."""
    imgsz = check_imgsz(options.imgsz or content["imgsz"], network.imgsz_multiple)
    data = classification(options.data, imgsz, getattr(options, "seed", 0), None, network.config.ch)
    if data.nc != network.config.nc:
        raise InputError(
            f"--data {options.data} has {data.nc} classes, but {options.weights} was made for {network.config.nc}"
        )
    return imgsz, data


class _LinearDecay(pl.Callback):
    """Learning rate by a line from what the optimizer has to a share of it, step by step."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        total = (trainer.max_epochs or 1) * int(trainer.num_training_batches)
        done = trainer.global_step / max(total - 1, 1)
        for group in trainer.optimizers[0].param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * (1 - done * (1 - self.share))


class _Best(pl.Callback):
    """Writes the classifier whenever its accuracy on the validation images is the best so far."""

    def __init__(self, path: Path, names: Any, kept: dict[str, Any]) -> None:
        self.path, self.names, self.kept = path, names, kept
        self.accuracy, self.epoch, self.before = -1.0, 0, -1.0

    def state_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "epoch": self.epoch, "before": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.accuracy, self.epoch, self.before = state["accuracy"], state["epoch"], state["before"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        accuracy = float(trainer.callback_metrics["val_acc"])
        if accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, trainer.current_epoch + 1
            save_classifier(module.model, self.path, self.names, **self.kept)
