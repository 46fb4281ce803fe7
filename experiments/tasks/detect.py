"""Detection as an NNI evaluator, for searches; `experiments.training.train` builds on its module."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn, optim
from torch.utils.data import Dataset

from data import Batch, DetectionData, EpochSampler, Item, collate
from models.errors import InputError
from models.loss import DetectionLoss, scaled_gains
from models.postprocess import non_max_suppression
from spaces.nni_compat import DataLoader, Lightning, LightningModule, Trainer, nni

from .metrics import NMS_FOR_AP, DetectionMetrics, in_original_pixels
from .optimizers import build_optimizer
from .resize import resized, resolution_of


@nni.trace
class DetectionModule(LightningModule):
    """YOLOv5's loss and COCO's mAP for any network with a `Detect` head.

    Logs ``train_box``, ``train_obj``, ``train_cls`` and their sum ``train_loss``, the same of validation, and of the
    latter ``map50`` and ``map50_95``.

    Parameters
    ----------
    names
        Class names.
    imgsz
        Side of the images in pixels; the loss's gains depend on it.
    optimizer, learning_rate, momentum, weight_decay
        See `experiments.tasks.optimizers.build_optimizer`.

    Attributes
    ----------
    measured
        Everything that `DetectionMetrics.compute` found in the last validation.
    """

    def __init__(
        self,
        names: Sequence[str],
        imgsz: int = 640,
        optimizer: str = "adamw",
        learning_rate: float = 0.001,
        momentum: float = 0.937,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__()
        self.names, self.imgsz = list(names), imgsz
        self.optimizer, self.learning_rate = optimizer, learning_rate
        self.momentum, self.weight_decay = momentum, weight_decay
        self.measured: dict[str, Any] = {}
        self._seen: list[tuple[Tensor, Tensor]] = []

    def set_model(self, model: nn.Module) -> None:
        """Set the network to train; its last row is the head."""
        super().set_model(model)
        head = cast(Any, model).head
        self.loss = DetectionLoss(head, scaled_gains(head.nl, head.nc, self.imgsz))

    def forward(self, x: Tensor) -> Any:
        return self.model(x)

    def network_input(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) as the network takes it: 0 to 1, channels last, in which convolutions are fastest."""
        return images.float().div_(255).contiguous(memory_format=torch.channels_last)

    def inputs(self, batch: Batch) -> Tensor:
        """What the network takes of a batch: the images at its resolution."""
        return self.network_input(resized(batch.images, resolution_of(self.model, batch.images.shape[-1])))

    def at_side(self, batch: Batch, side: int) -> Batch:
        """The batch with its images at another resolution; boxes are shares of the image."""
        return batch._replace(images=resized(batch.images, side))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        output = self(self.inputs(batch))
        # In eval mode, in which the search after a single-path training asks for losses, it is (decoded, logits).
        loss, parts = self.loss(output if self.model.training else output[1], batch.targets)
        self.log_losses("train", parts, len(batch.images))
        return loss

    def log_losses(self, split: str, parts: dict[str, Tensor], batch_size: int) -> None:
        """Log the parts of a batch's loss and their sum, as means of the epoch."""
        logged = {f"{split}_{name}": part for name, part in parts.items()}
        logged[f"{split}_loss"] = torch.stack([*parts.values()]).sum()
        for name, value in logged.items():
            self.log(name, value, on_step=False, on_epoch=True, batch_size=batch_size, sync_dist=_world() > 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Detect, and take detections and objects back to the pixels of the original images."""
        network = self.validated_network()
        # In full precision: half a pixel is the step of float16 at 640.
        with torch.autocast(batch.images.device.type, enabled=False):
            decoded, logits = network(self.network_input(batch.images))
        self.log_losses("val", self.loss(logits, batch.targets)[1], len(batch.images))
        detections = non_max_suppression(decoded, **NMS_FOR_AP)
        self._seen += zip(*in_original_pixels(detections, batch), strict=True)

    def validated_network(self) -> nn.Module:
        """The network that is validated."""
        return self.model

    def on_validation_epoch_end(self) -> None:
        seen, self._seen = self._seen, []
        if self.trainer.sanity_checking:
            return
        metrics = DetectionMetrics(self.names)
        metrics.update(*zip(*_of_all_processes(seen), strict=True))
        self.measured = metrics.compute()
        for name in ("map50", "map50_95"):
            self.log(name, self.measured[name])
        if nni.get_current_parameter() is not None:
            nni.report_intermediate_result(self.measured["map50_95"])

    def configure_optimizers(self) -> optim.Optimizer:
        return build_optimizer(self.model, self.optimizer, self.learning_rate, self.momentum, self.weight_decay)

    def on_fit_end(self) -> None:
        # One-shot strategies that train the architecture on the validation loader have no mAP to report.
        if nni.get_current_parameter() is not None and self.measured:
            nni.report_final_result(self.measured["map50_95"])


@nni.trace
class Detection(Lightning):
    """Evaluator for detection: trains, and reports mAP50-95 after every epoch and at the end.

    Parameters
    ----------
    names, imgsz, optimizer, learning_rate, momentum, weight_decay
        As in `DetectionModule`.
    train_dataloaders, val_dataloaders
        Loaders that collate with `data.collate`; `search_loaders` makes them. In a one-shot search with DARTS the first
        trains weights, the second the architecture.
    **trainer_kwargs
        For `lightning.Trainer`, such as ``max_epochs``.
    """

    def __init__(
        self,
        names: Sequence[str],
        imgsz: int = 640,
        optimizer: str = "adamw",
        learning_rate: float = 0.001,
        momentum: float = 0.937,
        weight_decay: float = 5e-4,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        fit_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        super().__init__(
            DetectionModule(names, imgsz, optimizer, learning_rate, momentum, weight_decay),
            Trainer(**trainer_kwargs),
            train_dataloaders=train_dataloaders,
            val_dataloaders=val_dataloaders,
            datamodule=datamodule,
            fit_kwargs=fit_kwargs,
        )


def search_loaders(data: DetectionData, batch: int, seed: int) -> dict[str, Any]:
    """``train_dataloaders`` and ``val_dataloaders`` of a search's evaluator.

    Training images are shared out between weights and architecture, so that ``data.val`` stays unseen.
    """
    if len(data.train) < 2:
        raise InputError("a search takes 2 training images or more: one for the weights, one for the architecture")
    weights, arch = halves(len(data.train), seed)
    return {
        "train_dataloaders": _train_loader(Part(data.train, weights), batch, seed),
        "val_dataloaders": _train_loader(Part(data.train, arch), batch, seed),
    }


def halves(num_images: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training images for the weights and for the architecture, as many of each."""
    order = np.random.default_rng(seed).permutation(num_images).tolist()
    half = num_images // 2
    return order[:half], order[half : 2 * half]


def _train_loader(split: Any, batch: int, seed: int) -> Any:
    return DataLoader(
        split,
        batch_size=min(batch, len(split)),
        sampler=EpochSampler(split, seed),
        collate_fn=collate,
        drop_last=True,
        num_workers=0,
    )


class Part(Dataset[Item]):
    """Some images of a training set."""

    def __init__(self, whole: Any, indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Item:
        return self.whole[self.indices[i]]

    def set_epoch(self, epoch: int) -> None:
        self.whole.set_epoch(epoch)


def _world() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _of_all_processes(seen: list[Any]) -> list[Any]:
    """In the order of the images: rank r of W has seen images r, r + W, …"""
    if _world() == 1:
        return seen
    shares: list[Any] = [None] * _world()
    distributed.all_gather_object(shares, seen)
    together = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return [image for image in together if image is not None]
