"""Image classification: its Lightning module, and the task of searching backbones, or classifiers, on it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn, optim
from torchmetrics.classification import MulticlassAccuracy

from data import classification
from models.classifier import Classifier
from models.detector import check_imgsz
from models.files import save_classifier, save_model_yaml
from models.grammar import read_config
from models.network import Network
from optimizer import calibrate_bn, match_nas
from spaces import CostModel, Space

from ..run.processes import summed
from .loaders import arch_share, make_loader, part_loader
from .module import RATING_BATCHES, TaskModule
from .resize import resized, resolution_of
from .whole import detector_space, head_of

if TYPE_CHECKING:
    from spaces import NASBACKBONE

    from .evaluator import Classification


class ClassificationModule(TaskModule):
    """Cross entropy and accuracy; logs ``train_loss``, ``train_acc``, ``val_loss``, ``val_acc``."""

    def __init__(
        self,
        criterion: type[nn.Module] = nn.CrossEntropyLoss,
        learning_rate: float = 0.001,
        weight_decay: float = 0.0,
        optimizer: type[optim.Optimizer] = optim.Adam,
    ) -> None:
        super().__init__()
        self.criterion, self.optimizer = criterion(), optimizer
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        # Over all samples alike, accuracy needs no number of classes.
        self.accuracy = MulticlassAccuracy(average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch. Logged as means of the epoch; a one-shot strategy's architecture steps count as well."""
        labels = batch[1]
        logits = self(self.inputs(batch))
        loss: Tensor = self.criterion(logits, labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        right = (logits.argmax(1) == labels).float().mean()
        self.log("train_acc", right, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        labels = batch[1]
        logits = self.validated_network()(self.inputs(batch))
        self.log("val_loss", self.criterion(logits, labels), prog_bar=True)
        self.log("val_acc", self.accuracy(logits, labels), prog_bar=True)

    def configure_optimizers(self) -> optim.Optimizer:
        make: Any = self.optimizer
        optimizer: optim.Optimizer = make(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        return optimizer

    def inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """What the network takes of a batch: the images at its resolution."""
        return resized(batch[0], resolution_of(self.model, batch[0].shape[-1]))

    def at_side(self, batch: tuple[Tensor, Tensor], side: int) -> tuple[Tensor, Tensor]:
        """The batch with its images at another resolution."""
        return resized(batch[0], side), batch[1]


class ClassifyTask:
    """A backbone as an image classifier; the metric is the accuracy on the validation split."""

    metric = "accuracy"

    def __init__(self, options: Any, space: Space, accelerator: str) -> None:
        self.options, self.accelerator, self._config = options, accelerator, space.config
        self.detector = head_of(space, options.detector)
        self.is_whole = self.detector is None
        self.result = "classifier" if self.is_whole else "detector"
        check_imgsz(options.imgsz, Classifier(space.freeze(space.upstream()), 2).imgsz_multiple)
        share = arch_share(options) or 0.5
        given = options.data, options.imgsz, options.seed, options.data_root, space.config.ch
        self.data = classification(*given, share)
        self._parts: dict[str, Any] = {"weights": self.data.train, "arch": self.data.arch, "all": self.data.both}

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.names

    def loader(self, part: str = "weights", seed: int | None = None) -> Any:
        return part_loader(self._parts, part, self.options, self.accelerator, seed)

    def module(self) -> ClassificationModule:
        return ClassificationModule()

    def space(self) -> NASBACKBONE:
        from spaces import NASBACKBONE

        space = NASBACKBONE(self._config, self.data.nc)
        space.names = dict(enumerate(self.data.names))  # weights of classes are carried over by name
        return space

    def whole(self) -> Space:
        if self.detector is None:
            return Space(read_config(self._config, nc=self.data.nc))
        return detector_space(Space(self._config), self.detector, self.options.detector is None)

    def costs(self, imgsz: int, latency: Any = None) -> CostModel:
        return CostModel(self.whole(), imgsz, latency, classifier=self.detector is None)

    def hand_over(
        self, network: Network, folder: Path, arch: Mapping[str, Any], name: str | None = None, is_slice: bool = False
    ) -> Network:
        name = name or self.result
        if self.detector is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.options.seed)  # of neck and head, which are new: whatever was drawn before
                network = match_nas(self.detector, network, save=folder / f"{name}.pt", arch=arch)
        else:
            side = resolution_of(network, self.options.imgsz)
            save_classifier(network, folder / f"{name}.pt", self.data.names, imgsz=side, arch=arch, is_slice=is_slice)
        save_model_yaml(network.config.raw, folder / f"{name}.yaml")
        return network

    def evaluator(self, **trainer: Any) -> Classification:
        from .evaluator import Classification

        return Classification(train_dataloaders=self.loader("weights"), val_dataloaders=self.loader("arch"), **trainer)

    def network(self, cfg: Mapping[str, Any]) -> Classifier:
        return Classifier(cfg, self.data.nc)

    def measure(self, network: Network, calibrated: bool = True) -> float:
        return self._metric(self.calibrated(network) if calibrated else network, self.data.val)

    def rate(self, network: Network) -> float:
        return self._metric(self.calibrated(network, RATING_BATCHES), self.data.arch)

    def calibrated(self, network: Network, batches: int | None = None) -> Network:
        loader = self._few() if batches == RATING_BATCHES else itertools.islice(self._alone("weights"), batches)
        return calibrate_bn(network, (self._input(network, x) for x, _ in loader))

    def sample(self) -> torch.Tensor:
        return torch.cat([images for images, _ in self._few()])

    @functools.cache  # noqa: B019  (a task lives as long as its run)
    def _few(self) -> list[Any]:
        """The batches of a rating's statistics."""
        return list(itertools.islice(self._alone("weights"), RATING_BATCHES))

    def _alone(self, part: str) -> Any:
        """Batches of a part for this process alone, the same ones whenever it is asked."""
        return make_loader(self._parts[part], self.options.batch, seed=self.options.seed)

    def _input(self, network: Network, images: torch.Tensor) -> torch.Tensor:
        return resized(images.to(next(network.parameters()).device), resolution_of(network, images.shape[-1]))

    @torch.no_grad()
    def _metric(self, network: Network, split: Any) -> float:
        network.eval()
        loader = make_loader(split, self.options.batch, seed=None, drop_last=False)
        right = sum(int((network(self._input(network, x)).argmax(1).cpu() == labels).sum()) for x, labels in loader)
        return summed(right, next(network.parameters()).device) / len(split)
