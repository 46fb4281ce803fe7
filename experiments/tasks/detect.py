"""Detection: its Lightning module, which `experiments.training.loop` builds on, and the task of searching detectors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, nn, optim

from data import Batch, Hyp, collate, detection, detection_split
from models.catalog import finds
from models.detector import Model
from models.errors import InputError
from models.files import save_detector, save_model_yaml
from models.grammar import read_config
from models.head import Head
from models.network import Network
from models.postprocess import non_max_suppression
from optimizer import calibrate_bn
from spaces import CostModel, Space

from ..run.lightning import interruptible
from .loaders import Part, arch_share, make_loader, part_loader, parts_of
from .masks import masks_of
from .metrics import NMS_FOR_AP, ignored_of, in_original_pixels, metrics_of, rated, shown_of
from .module import RATING_BATCHES, TaskModule
from .param_groups import build_optimizer
from .pixels import counts_of
from .resize import resized, resolution_of
from .whole import detector_space, head_of

if TYPE_CHECKING:
    from spaces import NASDETECTOR

    from .evaluator import Detection


class DetectionModule(TaskModule):
    """The loss of a detector's own head, and COCO's mAP.

    Logs the parts of the loss, such as ``train_box``, and their sum ``train_loss``, the same of validation, and of the
    latter ``map50`` and ``map50_95``, of a head that finds masks also ``mask_map50`` and ``mask_map50_95``;
    of one that finds labels ``miou`` and ``pixel_accuracy`` instead.

    Parameters
    ----------
    names
        Class names.
    imgsz
        Side of the images in pixels; the loss's gains depend on it.
    optimizer, learning_rate, momentum, weight_decay
        See `experiments.tasks.param_groups.build_optimizer`.

    Attributes
    ----------
    measured
        Everything that `DetectionMetrics.compute` found in the last validation.
    """

    sums_loss = True

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
        self._seen: list[tuple[Any, ...]] = []

    def set_model(self, model: nn.Module) -> None:
        """Set the network to train; its last row is the head."""
        super().set_model(model)
        self.head = cast(Head, cast(Any, model).head)
        self.loss = self.head.loss(self.imgsz)

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
        loss, parts = self.loss_of(output if self.model.training else output[1], batch)
        self.log_losses("train", parts, len(batch.images))
        return loss

    def loss_of(self, logits: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's loss of a batch, and its parts."""
        more = (batch.masks,) if self.head.finds != "boxes" else ()
        return self.loss(logits, batch.targets, *more)

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
        self.log_losses("val", self.loss_of(logits, batch)[1], len(batch.images))
        if self.head.finds == "labels":
            self._seen += [(counts,) for counts in counts_of(decoded, batch)]
            return
        behind = self.head.num_coefficients
        detections = non_max_suppression(decoded, **NMS_FOR_AP, form=self.head.form, num_coefficients=behind)
        found, objects = in_original_pixels(detections, batch)
        seen: list[Any] = [found, objects, ignored_of(batch)]
        if self.head.finds == "masks":
            seen.append(masks_of(self.head.prototypes(logits), [d[:, 6:] for d in detections], found, batch))
        self._seen += zip(*seen, strict=True)

    def on_validation_epoch_end(self) -> None:
        seen, self._seen = self._seen, []
        if self.trainer.sanity_checking:
            return
        metrics = metrics_of(self.head.finds, self.names)
        metrics.update(*zip(*_of_all_processes(seen), strict=True))
        self.measured = metrics.compute()
        for name in shown_of(self.head.finds):
            self.log(name, self.measured[name])

    def configure_optimizers(self) -> optim.Optimizer:
        return build_optimizer(self.model, self.optimizer, self.learning_rate, self.momentum, self.weight_decay)


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


class DetectTask:
    """A whole detector on its own loss; the metric is COCO's mAP50-95 on the validation images, of masks if any.

    Of a head that finds labels it is the mIoU.
    """

    metric, result, is_whole = "mAP50-95", "detector", True

    def __init__(self, options: Any, space: Space, accelerator: str) -> None:
        self.options, self.accelerator, self._config = options, accelerator, space.config
        if options.detector is not None:
            raise InputError("--detector is for --task classify: detection is searched with the space's own head")
        if (head := head_of(space, None)) is None:
            raise InputError(f"{space.config.file}: has no head; right would be a detector's YAML, or --task classify")
        head.check_imgsz(options.imgsz)
        self._finds = finds(head.config)
        self.data = detection(options.data, options.imgsz, hyp_of(options), options.seed, finds=self._finds)
        self.metric = "mIoU" if self._finds == "labels" else "mAP50-95"
        self.detector = Model(read_config(head.config, nc=self.data.nc))
        self.detector.names = dict(enumerate(self.data.names))
        self._parts = parts_of(self.data, options.seed, arch_share(options))

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.names

    def loader(self, part: str = "weights", seed: int | None = None) -> Any:
        return part_loader(self._parts, part, self.options, self.accelerator, seed, collate=collate)

    def module(self) -> DetectionModule:
        return DetectionModule(self.data.names, self.options.imgsz)

    def space(self) -> NASDETECTOR:
        from spaces import NASDETECTOR

        space = NASDETECTOR(self._config, self.data.nc)
        space.names = dict(enumerate(self.data.names))  # weights of classes are carried over by name
        return space

    def whole(self) -> Space:
        return detector_space(Space(self._config), self.detector, own_head=True)

    def costs(self, imgsz: int, latency: Any = None) -> CostModel:
        return CostModel(self.whole(), imgsz, latency)

    def hand_over(
        self, network: Network, folder: Path, arch: Mapping[str, Any], name: str | None = None, is_slice: bool = False
    ) -> Network:
        name, side = name or self.result, resolution_of(network, self.options.imgsz)
        network.names = dict(self.detector.names)
        searched = {"arch": dict(arch), "num_searched": len(network.config.rows) - 1, "is_slice": is_slice}
        save_detector(network, folder / f"{name}.pt", imgsz=side, **searched)
        save_model_yaml(network.config.raw, folder / f"{name}.yaml")
        return network

    def evaluator(self, **trainer: Any) -> Detection:
        from .evaluator import Detection

        loaders = {"train_dataloaders": self.loader("weights"), "val_dataloaders": self.loader("arch")}
        return Detection(self.data.names, self.options.imgsz, **loaders, **trainer)

    def network(self, cfg: Mapping[str, Any]) -> Model:
        return Model(read_config(cfg, nc=self.data.nc))

    def measure(self, network: Network, calibrated: bool = True) -> float:
        return self._map(self.calibrated(network) if calibrated else network, self._images)

    def rate(self, network: Network) -> float:
        return self._map(self.rated_as(network), functools.partial(self.as_they_are, "arch"))

    def rated_as(self, network: Network) -> Network:
        """The network that `rate` measures: with batch norm statistics from some training batches."""
        return self.calibrated(network, RATING_BATCHES)

    def calibrated(self, network: Network, batches: int | None = None) -> Network:
        module = self.module()
        module.set_model(network)
        device = next(network.parameters()).device
        found = self._few() if batches == RATING_BATCHES else itertools.islice(self._train(), batches)
        given = (b._replace(images=b.images.to(device)) for b in found)
        return calibrate_bn(network, map(module.inputs, given))

    def sample(self) -> Tensor:
        return self.module().network_input(torch.cat([batch.images for batch in self._few()]))

    def _train(self) -> Any:
        """Batches of the weights' images for this process alone, the same ones whenever it is asked."""
        return make_loader(self._parts["weights"], self.options.batch, seed=self.options.seed, collate=collate)

    @functools.cache  # noqa: B019  (a task lives as long as its run)
    def _few(self) -> list[Any]:
        """The batches of a rating's statistics; images are uint8."""
        return list(itertools.islice(self._train(), RATING_BATCHES))

    @functools.cache  # noqa: B019
    def _images(self, side: int) -> Any:
        """The validation images at a resolution."""
        if side == self.options.imgsz:
            return self.data.val
        return detection_split(self.options.data, "val", side, finds=self._finds)[0]

    @functools.cache  # noqa: B019
    def as_they_are(self, part: str, side: int) -> Part:
        """A part of the training images (see `loader`) at a resolution, without augmentation."""
        images, _ = detection_split(self.options.data, "train", side, finds=self._finds)
        return Part(images, self._parts[part].indices)

    def _map(self, network: Network, images: Callable[[int], Any]) -> float:
        """mAP50-95 on what `images` gives at the network's resolution."""
        module = self.module()
        module.set_model(network)
        trainer = pl.Trainer(
            accelerator=self.accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        split = images(resolution_of(network, self.options.imgsz))
        loader = make_loader(split, self.options.batch, seed=None, drop_last=False, collate=collate)
        with interruptible(trainer):
            trainer.validate(module, loader, verbose=False)
        return rated(module.measured)


def hyp_of(options: Any) -> Hyp | None:
    """The augmentation that is asked for; None for none."""
    given = getattr(options, "hyp", {})
    names = [f.name for f in fields(Hyp)]
    for name in given:
        if name not in names:
            raise InputError(f"--hyp {name}: right would be one of {', '.join(names)}")
    try:
        made = Hyp(**given)
    except InputError as e:
        raise InputError(f"--hyp {e}") from None
    return made if getattr(options, "augment", True) else None
