"""Landmarks: K points of an image, regressed by a backbone, global average pooling and a linear layer (PFLD).

Losses and NME are those of PFLD, Guo et al. 2019 (arXiv:1902.10859), sections 3.1 and 4.1; the wing loss that of Feng
et al. 2018 (arXiv:1711.06753), section 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, optim

from data.landmarks import landmarks
from models.classifier import Classifier
from models.errors import InputError
from models.files import save_landmarks, save_model_yaml
from models.grammar import read_config
from models.network import Network
from models.strides import check_imgsz
from spaces import CostModel, Space

from ..run.processes import summed
from .classify import ClassifyTask
from .loaders import arch_share, make_loader
from .module import TaskModule
from .resize import resized, resolution_of

if TYPE_CHECKING:
    from spaces import NASBACKBONE

LOSSES = ("l2", "wing")
# In shares of the side; Feng et al. take 10 and 2 of 256 pixels.
_WING_WIDTH, _WING_CURVE = 10 / 256, 2 / 256


def wing(error: Tensor, width: float = _WING_WIDTH, curve: float = _WING_CURVE) -> Tensor:
    """Of coordinates' errors: logarithmic below `width`, linear above, continuous. Any shape."""
    size = error.abs()
    offset = width - width * math.log(1 + width / curve)
    return torch.where(size < width, width * torch.log(1 + size / curve), size - offset)


def landmark_loss(points: Tensor, targets: Tensor, loss: str = "l2", pose: float = 1.0) -> Tensor:
    """Mean over images of the sum over points, weighed by pose.

    Parameters
    ----------
    points
        (N, 2 K) x0, y0, x1, … in shares of the side.
    targets
        (N, 2 K + 1) the same, and Σ (1 - cos) of the angles of the pose.
    pose
        An image counts 1 + `pose` times that sum. PFLD takes the sum alone, by which an image that looks straight ahead
        counts nothing.
    """
    error = points.float() - targets[:, :-1]
    each = error.square() if loss == "l2" else wing(error)
    return (each.sum(1) * (1 + pose * targets[:, -1])).mean()


def nme(points: Tensor, targets: Tensor, normalise: tuple[int, int]) -> Tensor:
    """(N,) normalised mean error: mean distance of the points, as a share of the distance of two of the true ones."""
    true = targets[:, :-1].unflatten(1, (-1, 2))
    error = (points.float().unflatten(1, (-1, 2)) - true).norm(dim=2).mean(1)
    apart = (true[:, normalise[0]] - true[:, normalise[1]]).norm(dim=1)
    return error / apart.clamp(min=1e-6)


def score(error: float) -> float:
    """What searches maximise: 1 - NME, 0 at least."""
    return max(1 - error, 0.0)


class LandmarksModule(TaskModule):
    """Loss and NME; logs ``train_loss``, ``train_nme``, ``val_loss``, ``val_nme``."""

    regresses = True

    def __init__(
        self,
        normalise: tuple[int, int],
        loss: str = "l2",
        pose: float = 1.0,
        learning_rate: float = 0.001,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalise, self.loss, self.pose = normalise, loss, pose
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def configure_optimizers(self) -> optim.Optimizer:
        """NNI's; the engine makes its own."""
        return optim.Adam(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch."""
        points, targets = self(self.inputs(batch)), batch[1]
        found = landmark_loss(points, targets, self.loss, self.pose)
        error = nme(points.detach(), targets, self.normalise).mean()
        for name, value in (("train_loss", found), ("train_nme", error)):
            self.log(name, value, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(targets))
        return found

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        points, targets = self.validated_network()(self.inputs(batch)), batch[1]
        size = len(targets)
        self.log("val_loss", landmark_loss(points, targets, self.loss, self.pose), prog_bar=True, batch_size=size)
        self.log("val_nme", nme(points, targets, self.normalise).mean(), prog_bar=True, batch_size=size)

    def inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """What the network takes of a batch: the images at its resolution."""
        return resized(batch[0], resolution_of(self.model, batch[0].shape[-1]))

    def at_side(self, batch: tuple[Tensor, Tensor], side: int) -> tuple[Tensor, Tensor]:
        """The batch with its images at another resolution; points are in shares of the side."""
        return resized(batch[0], side), batch[1]


class LandmarksTask(ClassifyTask):
    """A backbone as a regressor of points; the metric is 1 - NME on the validation split, 0 at least.

    The network is `models.Classifier`, whose outputs are the 2 K coordinates.
    """

    metric = "nme_score"
    result = "landmarks"
    detector = None
    is_whole = True

    def __init__(self, options: Any, space: Space, accelerator: str) -> None:
        self.options, self.accelerator = options, accelerator
        if options.detector is not None:
            raise InputError("--detector: --task landmarks gives no detector; right would be a search without it")
        self._config = space.config.backbone()
        check_imgsz(options.imgsz, Classifier(space.freeze(space.upstream()), 2).imgsz_multiple)
        share = arch_share(options) or 0.5
        self.data: Any = landmarks(options.data, options.imgsz, options.seed, share, space.config.ch)
        self._parts: dict[str, Any] = {"weights": self.data.train, "arch": self.data.arch, "all": self.data.both}

    def module(self) -> Any:
        return LandmarksModule(self.data.normalise, self.options.point_loss, self.options.pose)

    def space(self) -> NASBACKBONE:
        from spaces import NASBACKBONE

        space = NASBACKBONE(self._config, len(self.names))
        space.names = dict(enumerate(self.names))
        return space

    def whole(self) -> Space:
        return Space(read_config(self._config, nc=len(self.names)))

    def costs(self, imgsz: int, latency: Any = None) -> CostModel:
        return CostModel(self.whole(), imgsz, latency, classifier=True)

    def network(self, cfg: Mapping[str, Any]) -> Classifier:
        return Classifier(cfg, len(self.names))

    def hand_over(
        self, network: Network, folder: Path, arch: Mapping[str, Any], name: str | None = None, is_slice: bool = False
    ) -> Network:
        name = name or self.result
        side = resolution_of(network, self.options.imgsz)
        kept = {"imgsz": side, "arch": arch, "is_slice": is_slice}
        save_landmarks(network, folder / f"{name}.pt", self.names, self.data.normalise, **kept)
        save_model_yaml(network.config.raw, folder / f"{name}.yaml")
        return network

    def evaluator(self, **trainer: Any) -> Any:
        from .evaluator import Landmarks

        loaders = {"train_dataloaders": self.loader("weights"), "val_dataloaders": self.loader("arch")}
        return Landmarks(self.data.normalise, **loaders, **trainer)

    def error(self, network: Network, split: Any = None) -> float:
        """NME on the validation images, or on those of a split."""
        split = self.data.val if split is None else split
        return mean_nme(network, split, self.data.normalise, self.options.batch)

    def _metric(self, network: Network, split: Any) -> float:
        return score(self.error(network, split))


@torch.no_grad()
def mean_nme(network: Network, split: Any, normalise: tuple[int, int], batch: int, workers: int = 0) -> float:
    """Of a split, at the network's resolution; over all processes."""
    network.eval()
    device, total = next(network.parameters()).device, 0.0
    for images, targets in make_loader(split, batch, seed=None, drop_last=False, workers=workers):
        side = resolution_of(network, images.shape[-1])
        points = network(resized(images.to(device), side)).cpu()
        total += float(nme(points, targets, normalise).sum())
    return summed(total, device) / len(split)
