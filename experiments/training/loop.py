"""The training loop of a detector: YOLOv5's, as a Lightning module."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Subset

from data import Batch, DetectionData, EpochSampler, collate
from models.detector import Model
from models.errors import InputError
from models.files import save_detector

from ..tasks.detect import DetectionModule
from ..tasks.resize import resized
from .ema import EMA
from .schedule import Schedule

_CLIP_NORM = 10.0  # YOLOv5's


class DetectorTraining(DetectionModule):
    """A detector with its data, its schedule and the average of its weights, which is what is validated and saved.

    Parameters
    ----------
    model, data
        The network and what it learns from.
    schedule
        Learning rates, momentum and accumulation by iteration.
    imgsz, batch
        Side of the images in pixels; images to a batch, over all processes.
    weight_decay, loss_scale
        As the recipe has scaled them.
    multi_scale
        Vary the side of the images from batch to batch.
    patience
        Epochs without a better mAP after which training stops; 0: never.
    workers
        Processes that load data; None: none on the CPU, where they would take the cores, up to 8 on CUDA.
    result
        Where the best average goes: ``detector.pt``.

    Attributes
    ----------
    best
        What was measured in the best epoch so far, ``epoch`` counted from 1.
    arch
        Of the search that the detector comes from, if it comes from one; goes into the result.
    seconds
        Time that whole epochs took, those before a resume included.
    """

    def __init__(
        self,
        model: Model,
        data: DetectionData,
        schedule: Schedule,
        *,
        imgsz: int,
        batch: int,
        optimizer: str,
        weight_decay: float,
        loss_scale: float,
        multi_scale: bool,
        patience: int,
        seed: int,
        workers: int | None,
        result: Path,
    ) -> None:
        super().__init__(data.names, imgsz, optimizer, schedule.lr0, schedule.momentum, weight_decay)
        self.automatic_optimization = False
        self.data, self.schedule, self.batch = data, schedule, batch
        self.loss_scale, self.multi_scale, self.patience = loss_scale, multi_scale, patience
        self.seed, self.workers, self.result = seed, workers, result
        self.set_model(model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.ema = EMA(model)
        self.best: dict[str, Any] = {}
        self.arch: dict[str, Any] | None = None
        self.seconds = 0.0
        self._stopped = False
        self._last_step = -1  # iteration of the optimizer's last step

    _SAVED = ("best", "arch", "seconds", "_stopped", "_last_step")  # in the checkpoint, beside what Lightning saves

    # Data. Loaders are built here since Lightning begins a resumed epoch before it tells a sampler which one it is.

    def train_dataloader(self) -> Any:
        world, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = ShardSampler(self.data.train, self.seed, self.trainer.current_epoch, rank, world)
        return self._loader(self.data.train, sampler)

    def val_dataloader(self) -> Any:
        world, rank = self.trainer.world_size, self.trainer.global_rank
        return self._loader(Subset(self.data.val, range(rank, len(self.data.val), world)), None)

    def _loader(self, split: Any, sampler: EpochSampler | None) -> Any:
        cuda, workers = self.device.type == "cuda", self.workers
        if workers is None:
            workers = min(8, (os.cpu_count() or 1) // self.trainer.num_devices) if cuda else 0
        return DataLoader(
            split,
            batch_size=self.batch // self.trainer.world_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=cuda,
        )

    # Optimization

    def on_train_epoch_start(self) -> None:
        self._started = time.perf_counter()
        # As YOLOv5 does: batches at an epoch's end that made no step are dropped. So a checkpoint needs no gradients.
        self.optimizers().zero_grad()  # type: ignore[union-attr]

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        iteration = self.current_epoch * self.schedule.batches + batch_idx
        optimizer: Any = self.optimizers()
        rates = self.schedule.at(iteration)
        for group in optimizer.param_groups:
            group["lr"] = rates.bias_lr if group["name"] == "bias" else rates.lr
            if "momentum" in group:
                group["momentum"] = rates.momentum
        images = self.network_input(batch.images)
        if self.multi_scale:
            side = multi_scale_side(self.imgsz, self.model.imgsz_multiple, self.seed, iteration)
            images = resized(images, side)
        loss, parts = self.loss(self(images), batch.targets)
        # Processes are averaged over; the batch of all of them is to count as that of one.
        self.manual_backward(loss * (self.loss_scale * self.trainer.world_size))
        if iteration - self._last_step >= rates.accumulate:
            optimizer.step()
            optimizer.zero_grad()
            self.ema.update(self.model)
            self._last_step = iteration
        self.log_losses("train", parts, len(batch.images))
        if self.logger is not None:
            step = {"step/loss": sum(parts.values()), "step/lr": rates.lr, "step/momentum": rates.momentum}
            self.logger.log_metrics({k: float(v) for k, v in step.items()}, step=iteration)

    def on_before_optimizer_step(self, optimizer: optim.Optimizer) -> None:
        # Lightning has unscaled half precision's gradients by now.
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP_NORM)

    # Validation of the average, which ends an epoch

    def validated_network(self) -> nn.Module:
        return self.ema.network

    def on_validation_start(self) -> None:
        if self.trainer.world_size > 1:  # statistics of batch norms are those of each process's own images
            for buffer in self.ema.network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.seconds += time.perf_counter() - self._started
        if not np.isfinite(float(self.trainer.callback_metrics["val_loss"])):
            raise InputError(f"the loss is not finite in epoch {self.current_epoch + 1}: a smaller --lr0 may help")
        self.measured["fitness"] = fitness = 0.1 * self.measured["map50"] + 0.9 * self.measured["map50_95"]
        if not self.best or fitness > self.best["fitness"]:
            self.best = {"epoch": self.current_epoch + 1, **self.measured}
            if self.trainer.is_global_zero:
                self.save()
        elif self.current_epoch + 1 - self.best["epoch"] >= self.patience > 0:
            self._stopped = self.trainer.should_stop = True

    def save(self) -> None:
        """Write the average to ``detector.pt``."""
        network: Any = self.ema.network
        found = {k: self.best[k] for k in ("epoch", "map50", "map50_95")}
        save_detector(network, self.result, imgsz=self.imgsz, arch=self.arch, **found)

    # Checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["training"] = {name: getattr(self, name) for name in self._SAVED}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name in self._SAVED:
            setattr(self, name, checkpoint["training"][name])

    def on_train_start(self) -> None:
        self.trainer.should_stop = self._stopped  # a run that stopped early has nothing to go on with


class ShardSampler(EpochSampler):
    """The share of one process of an epoch: shares of a batch make up the batch of a single process."""

    def __init__(self, dataset: Any, seed: int, epoch: int, rank: int, world: int) -> None:
        super().__init__(dataset, seed, epoch)
        self.rank, self.world = rank, world

    def __iter__(self) -> Any:
        return iter([*super().__iter__()][self.rank : len(self) * self.world : self.world])

    def __len__(self) -> int:
        return len(self.dataset) // self.world


def multi_scale_side(imgsz: int, stride: int, seed: int, iteration: int) -> int:
    """Side of an iteration's images: a multiple of `stride` between half and one and a half times `imgsz`."""
    low, high = -(-imgsz // (2 * stride)), imgsz * 3 // (2 * stride)
    return int(np.random.default_rng([seed, iteration]).integers(low, high + 1)) * stride
