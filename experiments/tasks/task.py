"""What a search is about: data, the space's network, its evaluator, and how a plain network is judged.

Two tasks with one shape: the classification proxy, and detection itself.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import nn

from data import EpochSampler, classification, collate, detection, detection_split
from models.classifier import Classifier
from models.detector import Model
from models.errors import InputError
from models.files import save_classifier, save_detector, save_model_yaml
from models.grammar import read_config
from models.network import Network
from models.plugins import load_plugins_of_run
from models.strides import check_imgsz
from optimizer import calibrate_bn, match_nas
from spaces import NASBACKBONE, NASDETECTOR, CostModel, Space, apply_policy
from spaces.kinds import RESOLUTION

from ..costs.budget import detector_space
from ..run import registry
from ..run.callbacks import OrderlyInterrupt
from ..run.lightning import accelerator_of, interruptible, quiet_lightning
from .detect import Part, halves, search_loaders
from .evaluator import Classification, ClassificationModule, DataLoader, Detection, DetectionModule
from .resize import resized, resolution_of

# Batch norm statistics for a rating, of which a search makes a thousand; a measurement takes them from all batches.
_RATING_BATCHES = 8


class SearchTask(Protocol):
    """A task that architectures are searched for.

    Attributes
    ----------
    metric
        Name of what `measure` gives; larger is better.
    result
        What a search leaves: ``detector``, or ``classifier`` where nothing gives a neck and a head.
    detector
        The detector whose neck and head the result gets; None where it is a classifier.
    is_whole
        Whether the networks that are searched are the results, not their backbones alone.
    num_batches
        Batches of the weights' training data in an epoch.
    """

    metric: str
    result: str
    detector: Model | None
    is_whole: bool
    num_batches: int

    def space(self) -> NASBACKBONE | NASDETECTOR:
        """The space as a network with choices."""

    def evaluator(self, **trainer: Any) -> Any:
        """The evaluator that an NNI strategy trains with."""

    def network(self, cfg: Mapping[str, Any]) -> Network:
        """The plain network of a frozen YAML."""

    def whole(self) -> Space:
        """The space of the results; its labels are those of the space that is searched."""

    def costs(self, imgsz: int, latency: Any = None) -> CostModel:
        """Costs of the results, at images of that side; see `CostModel`."""

    def hand_over(
        self, network: Network, folder: Path, arch: Mapping[str, Any], name: str | None = None, is_slice: bool = False
    ) -> Network:
        """Write the result that an arch's network gives, a plain YAML and its weights.

        Parameters
        ----------
        name
            Of the files, without suffix; `result` by default.
        is_slice
            Whether the weights are a trained supernet's, to be finetuned gently.
        """

    def measure(self, network: Network, calibrated: bool = True) -> float:
        """The metric on unseen data, after the batch norms' statistics were taken anew from the training data.

        A slice of a mixture has statistics of the mixture, and with YOLOv5's momentum of 0.03 a short training leaves
        the moving averages near their start, so every network of a comparison is measured like this.
        """

    def calibrated(self, network: Network, batches: int | None = None) -> Network:
        """A copy with batch norm statistics of so many batches of training data (all), at its resolution."""

    def rate(self, network: Network) -> float:
        """The metric on the data of the architecture, for searches to go by; statistics from some training batches."""

    def train(self, network: Network, epochs: int, callbacks: Sequence[pl.Callback]) -> float:
        """Train `network` with the search's optimiser, data and steps for the weights, then `measure` it."""


def _head_of(space: Space, detector: str | None) -> Model | None:
    """The detector that gives neck and head, if any; built before the search, so that an error comes before it."""
    if detector is not None:
        return Model(detector)
    if not space.config.has_head:
        return None
    return Model(read_config(space.freeze(space.upstream())))


def _fit(module: Any, network: nn.Module, loader: Any, epochs: int, accelerator: str, callbacks: Sequence[Any]) -> None:
    module.set_model(network)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, OrderlyInterrupt()],
    )
    with interruptible(trainer):
        trainer.fit(module, loader)


class ClassifyTask:
    """A backbone as an image classifier; the metric is the accuracy on the validation split."""

    metric = "accuracy"

    def __init__(self, options: Any, space: Space, accelerator: str) -> None:
        self.options, self.accelerator, self._config = options, accelerator, space.config
        self.detector = _head_of(space, options.detector)
        self.is_whole = self.detector is None
        self.result = "classifier" if self.is_whole else "detector"
        check_imgsz(options.imgsz, Classifier(space.freeze(space.upstream()), 2).imgsz_multiple)
        self.data = classification(options.data, options.imgsz, options.seed, options.data_root, space.config.ch)
        self.num_batches = len(self._loader(self.data.train))

    def _loader(self, split: Any) -> Any:
        # The last, smaller batch is left out: batch normalisation would take statistics of a few images from it.
        return DataLoader(
            split,
            batch_size=min(self.options.batch, len(split)),
            sampler=EpochSampler(split, self.options.seed),
            drop_last=True,
            num_workers=0,
        )

    def space(self) -> NASBACKBONE:
        return NASBACKBONE(self._config, self.data.nc)

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
            network = match_nas(self.detector, network, save=folder / f"{name}.pt", arch=arch)
        else:
            side = resolution_of(network, self.options.imgsz)
            save_classifier(network, folder / f"{name}.pt", self.data.names, imgsz=side, arch=arch, is_slice=is_slice)
        save_model_yaml(network.config.raw, folder / f"{name}.yaml")
        return network

    def evaluator(self, **trainer: Any) -> Classification:
        loaders = {
            "train_dataloaders": self._loader(self.data.train),
            "val_dataloaders": self._loader(self.data.arch),
        }
        return Classification(learning_rate=self.options.lr, **loaders, **trainer)

    def network(self, cfg: Mapping[str, Any]) -> Classifier:
        return Classifier(cfg, self.data.nc)

    def measure(self, network: Network, calibrated: bool = True) -> float:
        return self._accuracy(self.calibrated(network) if calibrated else network, self.data.val)

    def rate(self, network: Network) -> float:
        return self._accuracy(self.calibrated(network, _RATING_BATCHES), self.data.arch)

    def calibrated(self, network: Network, batches: int | None = None) -> Network:
        loader = self._few() if batches == _RATING_BATCHES else itertools.islice(self._loader(self.data.train), batches)
        return calibrate_bn(network, (self._input(network, x) for x, _ in loader))

    @functools.cache  # noqa: B019  (a task lives as long as its run)
    def _few(self) -> list[Any]:
        """The batches of a rating's statistics."""
        return list(itertools.islice(self._loader(self.data.train), _RATING_BATCHES))

    def _input(self, network: Network, images: torch.Tensor) -> torch.Tensor:
        return resized(images.to(next(network.parameters()).device), resolution_of(network, images.shape[-1]))

    @torch.no_grad()
    def _accuracy(self, network: Network, split: Any) -> float:
        network.eval()
        loader: Any = DataLoader(split, batch_size=self.options.batch, num_workers=0)
        right = sum(int((network(self._input(network, x)).argmax(1).cpu() == labels).sum()) for x, labels in loader)
        return right / len(split)

    def train(self, network: Network, epochs: int, callbacks: Sequence[pl.Callback]) -> float:
        module = ClassificationModule(learning_rate=self.options.lr)
        _fit(module, network, self._loader(self.data.train), epochs, self.accelerator, callbacks)
        return self.measure(network)


class DetectTask:
    """A whole detector on its own loss; the metric is COCO's mAP50-95 on the validation images."""

    metric, result, is_whole = "mAP50-95", "detector", True

    def __init__(self, options: Any, space: Space, accelerator: str) -> None:
        self.options, self.accelerator, self._config = options, accelerator, space.config
        if options.detector is not None:
            raise InputError("--detector is for --task classify: detection is searched with the space's own head")
        if (head := _head_of(space, None)) is None:
            raise InputError(f"{space.config.file}: has no head; right would be a detector's YAML, or --task classify")
        head.check_imgsz(options.imgsz)
        self.data = detection(options.data, options.imgsz, seed=options.seed)
        self.detector = Model(read_config(head.config, nc=self.data.nc))
        self.detector.names = dict(enumerate(self.data.names))
        self._loaders = search_loaders(self.data, options.batch, options.seed, bilevel=True)
        self.num_batches = len(self._loaders["train_dataloaders"])

    def _module(self) -> DetectionModule:
        return DetectionModule(self.data.names, self.options.imgsz, learning_rate=self.options.lr)

    def space(self) -> NASDETECTOR:
        return NASDETECTOR(self._config, self.data.nc)

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
        return Detection(self.data.names, self.options.imgsz, learning_rate=self.options.lr, **self._loaders, **trainer)

    def network(self, cfg: Mapping[str, Any]) -> Model:
        return Model(read_config(cfg, nc=self.data.nc))

    def measure(self, network: Network, calibrated: bool = True) -> float:
        return self._map(self.calibrated(network) if calibrated else network, self._images)

    def rate(self, network: Network) -> float:
        return self._map(self.calibrated(network, _RATING_BATCHES), self._seen_by_arch)

    def calibrated(self, network: Network, batches: int | None = None) -> Network:
        module = self._module()
        module.set_model(network)
        device = next(network.parameters()).device
        found = self._few() if batches == _RATING_BATCHES else itertools.islice(self._train(), batches)
        given = (b._replace(images=b.images.to(device)) for b in found)
        return calibrate_bn(network, map(module.inputs, given))

    def _train(self) -> Any:
        return search_loaders(self.data, self.options.batch, self.options.seed, bilevel=True)["train_dataloaders"]

    @functools.cache  # noqa: B019  (a task lives as long as its run)
    def _few(self) -> list[Any]:
        """The batches of a rating's statistics; images are uint8."""
        return list(itertools.islice(self._train(), _RATING_BATCHES))

    @functools.cache  # noqa: B019
    def _images(self, side: int) -> Any:
        """The validation images at a resolution."""
        return self.data.val if side == self.options.imgsz else detection_split(self.options.data, "val", side)[0]

    @functools.cache  # noqa: B019
    def _seen_by_arch(self, side: int) -> Part:
        """The architecture's half of the training images, as they are."""
        images, _ = detection_split(self.options.data, "train", side)
        return Part(images, halves(len(images), self.options.seed)[1])

    def _map(self, network: Network, images: Callable[[int], Any]) -> float:
        """mAP50-95 on what `images` gives at the network's resolution."""
        module = self._module()
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
        loader: Any = DataLoader(split, batch_size=self.options.batch, collate_fn=collate, num_workers=0)
        with interruptible(trainer):
            trainer.validate(module, loader, verbose=False)
        return float(module.measured["map50_95"])

    def train(self, network: Network, epochs: int, callbacks: Sequence[pl.Callback]) -> float:
        _fit(self._module(), network, self._loaders["train_dataloaders"], epochs, self.accelerator, callbacks)
        return self.measure(network)


def open_task(options: Any) -> tuple[Space, SearchTask, str]:
    """The space, the task and Lightning's accelerator of a search's options.

    Raises
    ------
    InputError
        If there is nothing to search, or the task cannot search it.
    """
    quiet_lightning()
    accelerator = accelerator_of(options.device)
    load_plugins_of_run(options.plugin)
    policy = getattr(options, "space", None)
    space = Space(options.cfg if policy is None else apply_policy(options.cfg, policy))
    task: SearchTask = registry.load("task", options.task)(options, space, accelerator)
    if not space.decisions:
        raise InputError(f"{options.cfg}: there is nothing to search, the YAML has no choices (try yolov5n_nas.yaml)")
    if options.detector is not None and RESOLUTION in space.decisions:
        raise InputError(
            f"{options.cfg}: resolution is a choice of the proxy's images, which are not those of --detector; "
            "right would be a YAML without it, or no --detector"
        )
    in_head = [label for label, row in space.row_of.items() if row >= space.config.num_backbone]
    if in_head and options.task == "classify":
        raise InputError(f"{options.cfg}: '{in_head[0]}' is a choice of the head: search it with --task detect")
    return space, task, accelerator
