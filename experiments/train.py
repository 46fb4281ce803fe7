"""Training a detector on people's own data: what `train.py` calls."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spaces import nni_compat  # isort: skip

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Subset

from data import Batch, DetectionData, DetectionSet, EpochSampler, Hyp, collate, detection
from models.complexity import count_flops, count_params
from models.detector import Model
from models.errors import InputError
from models.files import save_detector, save_model_yaml
from models.grammar import Config, read_config

from .anchors import fit_anchors
from .callbacks import History, LastCheckpoint
from .ema import EMA
from .oneshot import accelerator_of
from .optimizers import build_optimizer
from .proxy import interruptible, quiet_lightning
from .recipes import recipe_of
from .run_folder import RunFolder
from .schedule import Schedule
from .tasks.detect import DetectionModule
from .train_report import plot_training, print_report
from .weights import Start, read_weights, transfer

assert nni_compat.nni is not None

_CLIP_NORM = 10.0  # YOLOv5's
_PRECISIONS = {"auto": None, "32": "32-true", "16-mixed": "16-mixed", "bf16-mixed": "bf16-mixed"}


@dataclass(frozen=True)
class Options:
    """Options of a training; `train.py --help` explains them."""

    cfg: str | None
    weights: str | None
    data: str
    imgsz: int
    epochs: int
    batch: int
    recipe: str
    optimizer: str
    lr0: float | None
    lrf: float
    momentum: float
    weight_decay: float
    cosine: bool
    patience: int
    hyp: dict[str, float]
    augment: bool
    autoanchor: bool
    multi_scale: bool
    precision: str
    seed: int
    device: str
    devices: int
    strategy: str
    sync_bn: bool
    workers: int | None


class DetectorTraining(DetectionModule):
    """A detector with its data, schedule and average: YOLOv5's training loop.

    Parameters
    ----------
    model, data
        The network and what it learns from.
    schedule
        Learning rates, momentum and accumulation by iteration.
    loss_scale
        Factor of the loss, which is that of a batch's sum: see `recipes`.
    result
        Where the best average goes: ``detector.pt``.
    """

    def __init__(
        self,
        model: Model,
        data: DetectionData,
        options: Options,
        schedule: Schedule,
        loss_scale: float,
        weight_decay: float,
        workers: int,
        result: Path,
    ) -> None:
        super().__init__(
            data.names, options.imgsz, options.optimizer, schedule.lr0, options.momentum, weight_decay
        )
        self.automatic_optimization = False
        self.data, self.options, self.schedule = data, options, schedule
        self.loss_scale, self.workers, self.result = loss_scale, workers, result
        self.set_model(model.to(memory_format=torch.channels_last))
        self.ema = EMA(model)
        self.best: dict[str, Any] = {}
        self._last_step = -1
        self._seconds, self._since = 0.0, 0.0

    # Data. Loaders are built here since Lightning begins a resumed epoch before it tells a sampler which one it is.

    def train_dataloader(self) -> Any:
        world, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = ShardSampler(self.data.train, self.options.seed, self.trainer.current_epoch, rank, world)
        return self._loader(self.data.train, self.options.batch // world, sampler)

    def val_dataloader(self) -> Any:
        world, rank = self.trainer.world_size, self.trainer.global_rank
        share = Subset(self.data.val, range(rank, len(self.data.val), world))
        return self._loader(share, self.options.batch // world, None)

    def _loader(self, split: Any, batch: int, sampler: EpochSampler | None) -> Any:
        return DataLoader(
            split,
            batch_size=batch,
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.trainer.accelerator is not None and self.device.type == "cuda",
        )

    # Optimization

    def on_train_epoch_start(self) -> None:
        self._since = time.perf_counter()
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
        if self.options.multi_scale:
            images = resized(images, multi_scale_side(self.options.imgsz, self._stride, self.options.seed, iteration))
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

    def configure_optimizers(self) -> optim.Optimizer:
        return build_optimizer(self.model, self.optimizer, self.learning_rate, self.momentum, self.weight_decay)

    @property
    def _stride(self) -> int:
        return int(self.model.stride.max())

    # Validation of the average

    def validated_network(self) -> nn.Module:
        return self.ema.network

    def on_validation_start(self) -> None:
        if self.trainer.world_size > 1:  # statistics of batch norms are those of each process's own images
            for buffer in self.ema.network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self.trainer.sanity_checking:
            return
        if not np.isfinite(float(self.trainer.callback_metrics["val_loss"])):
            raise InputError(f"the loss is not finite in epoch {self.current_epoch + 1}: a smaller --lr0 may help")
        self.measured["fitness"] = fitness = 0.1 * self.measured["map50"] + 0.9 * self.measured["map50_95"]
        if not self.best or fitness > self.best["fitness"]:
            self.best = {"epoch": self.current_epoch + 1, **self.measured}
            if self.trainer.is_global_zero:
                self.save()
        elif self.current_epoch + 1 - self.best["epoch"] >= self.options.patience > 0:
            self.trainer.should_stop = True

    def save(self) -> None:
        """Write the average to ``detector.pt``."""
        network: Any = self.ema.network
        found = {k: self.best[k] for k in ("epoch", "map50", "map50_95")}
        save_detector(network, self.result, imgsz=self.options.imgsz, **found)

    # Checkpoint: beside Lightning's

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["training"] = {"best": self.best, "last_step": self._last_step, "seconds": self.seconds()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["training"]
        self.best, self._last_step, self._seconds = saved["best"], saved["last_step"], saved["seconds"]

    def on_train_epoch_end(self) -> None:
        self._seconds, self._since = self.seconds(), time.perf_counter()

    def seconds(self) -> float:
        """Time spent in epochs, those before a resume included."""
        return self._seconds + (time.perf_counter() - self._since if self._since else 0.0)


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


def resized(images: Tensor, side: int) -> Tensor:
    """(N, C, S, S) -> (N, C, side, side)."""
    if images.shape[-1] == side:
        return images
    return nn.functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


_RUN = "NAS_TRAIN_RUN"  # tells the other processes of a distributed training the run's folder


def is_first_process() -> bool:
    """Whether this is not a process that Lightning started to help the one at the keyboard."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def new_run(project: str, name: str, exist_ok: bool) -> RunFolder:
    """A new run's folder, the same in all processes of a distributed training."""
    if not is_first_process() and _RUN in os.environ:
        path = Path(os.environ[_RUN])
        return RunFolder(path.parent, path.name, exist_ok=True)
    run = RunFolder(project, name, exist_ok)
    os.environ[_RUN] = str(run.path)
    return run


def train(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train, and write the result into the run's folder (DESIGN §5).

    Returns
    -------
    The content of ``results.json``: the best epoch's measurements, parameters, FLOPs, minutes.
    """
    say = _Say(is_first_process())
    accelerator = accelerator_of(options.device)
    _check(options)
    start = read_weights(options.weights) if options.weights and not resume else None
    config = _config(options, run, start, resume)
    Model(config).check_imgsz(options.imgsz)
    data = detection(options.data, options.imgsz, _hyp(options), options.seed)
    for split in (data.train, data.val):
        say(str(split.report))
    if not resume:
        config = _for_data(config, data, options, say)

    quiet_lightning()
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    pl.seed_everything(options.seed, verbose=False)
    model = Model(config)
    model.names = dict(enumerate(data.names))
    if start is not None:
        say(f"weights: {transfer(start, model)}")
    if is_first_process():
        run.write_config(asdict(options))
        save_model_yaml(config.raw, run.path / "detector.yaml")

    batches = -(-(len(data.train) // options.devices) // (options.batch // options.devices))
    recipe = recipe_of(options.recipe, options.epochs, batches, options.batch)
    sgd = options.optimizer == "sgd"
    schedule = Schedule(
        epochs=options.epochs,
        batches=batches,
        lr0=options.lr0 or (0.01 if sgd else 0.001),
        lrf=options.lrf,
        momentum=options.momentum,
        warmup=recipe.warmup,
        accumulate=recipe.accumulate,
        cosine=options.cosine,
        warmup_bias_lr=0.1 if sgd else 0.0,
    )
    flops = count_flops(model, options.imgsz, config.ch)
    say(
        f"{config.file}: {count_params(model):,} parameters, {flops / 1e9:.2f} GFLOPs at {options.imgsz}; "
        f"{options.epochs} epochs of {batches} batches, warm-up of {recipe.warmup}, "
        f"{round(recipe.accumulate)} to a step"
    )
    workers = options.workers
    if workers is None:
        workers = min(8, (os.cpu_count() or 1) // options.devices) if accelerator == "gpu" else 0
    module = DetectorTraining(
        model,
        data,
        options,
        schedule,
        recipe.loss_scale,
        options.weight_decay * recipe.decay_scale,
        workers,
        run.path / "detector.pt",
    )
    history = History(run.path / "metrics.csv", "train", shown=_SHOWN)
    trainer = _trainer(options, run, accelerator, history)
    checkpoint = run.path / "last.ckpt"
    # Our own file, in the run's own folder: it holds optimizer and loops, which weights_only refuses.
    again: dict[str, Any] = {"ckpt_path": str(checkpoint), "weights_only": False} if resume and checkpoint.exists() else {}
    with interruptible(trainer):
        trainer.fit(module, **again)

    results = {
        "best": module.best,
        "epochs": len(history.rows),
        "minutes": round(module.seconds() / 60, 2),
        "params": count_params(model),
        "flops": flops,
    }
    if trainer.is_global_zero:
        run.write_json("results.json", results)
        plot_training(history.rows, run.path / "results.png")
        title = f"{options.data}, best of {len(history.rows)} epochs: {module.best['epoch']}; {results['minutes']} minutes"
        print_report(module.best, title, run.path, options.data)
    return results


_SHOWN = ("train_box", "train_obj", "train_cls", "val_loss", "map50", "map50_95")


class _Say:
    """Prints in the first process only."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, line: str) -> None:
        if self.on:
            print(line, flush=True)


def _check(options: Options) -> None:
    if options.cfg is None and options.weights is None:
        raise InputError("say what to train: --cfg models/yolov5n.yaml, or --weights detector.pt")
    if options.batch % options.devices:
        raise InputError(f"--batch {options.batch} cannot be shared out evenly between --devices {options.devices}")
    if options.precision not in _PRECISIONS:
        raise InputError(f"--precision {options.precision}: right would be one of {', '.join(_PRECISIONS)}")


def _hyp(options: Options) -> Hyp | None:
    names = [f.name for f in fields(Hyp)]
    for name in options.hyp:
        if name not in names:
            raise InputError(f"--hyp {name}: right would be one of {', '.join(names)}")
    return Hyp(**options.hyp) if options.augment else None


def _config(options: Options, run: RunFolder, start: Start | None, resume: bool) -> Config:
    if resume:
        return read_config(run.path / "detector.yaml")
    config = read_config(options.cfg if start is None or options.cfg is not None else start.cfg)  # type: ignore[arg-type]
    if config.ch != 3:
        raise InputError(f"{config.file}: takes {config.ch} channels, but images have 3")
    return config


def _for_data(config: Config, data: DetectionData, options: Options, say: _Say) -> Config:
    """With the data's classes and names, and anchors that fit its boxes."""
    anchors = None
    if options.autoanchor:
        fitted = fit_anchors(config, data.train, options.seed)
        before = "" if fitted.recall_before is None else f" instead of {fitted.recall_before:.4f}"
        if fitted.replaced:
            anchors = fitted.anchors
            say(f"anchors: by k-means, best possible recall {fitted.recall:.4f}{before}: {anchors}")
        else:
            say(f"anchors: the YAML's, best possible recall {fitted.recall:.4f}")
    raw = {**config.raw, "names": list(data.names)}
    named = read_config(raw, data.nc, anchors=anchors)
    return Config(**{**named.__dict__, "file": config.file})


def _trainer(options: Options, run: RunFolder, accelerator: str, history: History) -> pl.Trainer:
    precision: Any = _PRECISIONS[options.precision] or ("16-mixed" if accelerator == "gpu" else "32-true")
    try:
        return pl.Trainer(
            max_epochs=options.epochs,
            accelerator=accelerator,
            devices=options.devices,
            strategy=options.strategy,
            precision=precision,
            sync_batchnorm=options.sync_bn,
            logger=TensorBoardLogger(run.path, name="", version=""),
            callbacks=[history, LastCheckpoint(run.path / "last.ckpt")],
            enable_checkpointing=False,
            enable_progress_bar=Console().is_terminal,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
        )
    except (ValueError, RuntimeError, pl.utilities.exceptions.MisconfigurationException) as e:
        raise InputError(f"--device, --devices, --strategy or --precision: {str(e).splitlines()[0]}") from None
