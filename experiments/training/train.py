"""Training a detector on people's own data: what `train.py` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import nn

from data import DetectionData, Hyp, detection
from models.complexity import count_flops, count_params
from models.detector import Model
from models.errors import InputError
from models.files import is_classifier, save_model_yaml
from models.grammar import Config, read_config
from models.plugins import load_plugins_of_run

from ..run.callbacks import EpochLine, History, LastCheckpoint, OrderlyInterrupt
from ..run.folder import RunFolder, is_first_process
from ..run.lightning import accelerator_of, interruptible, quiet_lightning
from .anchors import fit_anchors
from .loop import DetectorTraining
from .options import Options
from .recipes import recipe_of
from .report import plot_training, print_report
from .schedule import Schedule
from .weights import Start, read_weights, transfer

_PRECISIONS = {"auto": None, "32": "32-true", "16-mixed": "16-mixed", "bf16-mixed": "bf16-mixed"}
_FINETUNE = 0.1  # share of the learning rate where the weights are trained: those of a supernet's slice
_SHOWN = ("train_box", "train_obj", "train_cls", "val_loss", "map50", "map50_95")


def train(
    options: Options, run: RunFolder, resume: bool = False, slice_of: Callable[[str, str], Start] | None = None
) -> dict[str, Any]:
    """Train, and write the result into the run's folder.

    Parameters
    ----------
    slice_of
        Opens ``--supernet`` and cuts ``--arch`` out of it.

    Returns
    -------
    The content of ``results.json``: the best epoch's measurements, parameters, FLOPs, minutes.
    """
    load_plugins_of_run(options.plugin)
    if options.weights is not None and is_classifier(options.weights):
        from .classifiers import finetune

        return finetune(options, run, resume)
    say = _Say(is_first_process())
    accelerator = accelerator_of(options.device)
    _check(options, accelerator)
    checkpoint = run.path / "last.ckpt"
    resume = resume and checkpoint.exists()
    start = None if resume else _start(options, slice_of)
    if start is not None and start.is_slice and options.lr0 is None:
        options = replace(options, lr0=_lr0(options) * _FINETUNE)
    config = _config(options, run, start, resume)
    Model(config).check_imgsz(options.imgsz)
    data = detection(options.data, options.imgsz, _hyp(options), options.seed)
    for split in (data.train, data.val):
        say(str(split.report))
    if not resume:
        config = _for_data(config, data, options, say)

    quiet_lightning()
    pl.seed_everything(options.seed, verbose=False)
    model = Model(config)
    model.names = dict(enumerate(data.names))
    if start is not None:
        say(f"weights: {transfer(start, model)}")

    size = {"params": count_params(model), "flops": count_flops(model, options.imgsz, config.ch)}
    say(f"{config.file}: {size['params']:,} parameters, {size['flops'] / 1e9:.2f} GFLOPs at {options.imgsz}")
    module = _module(options, model, data, run, say)
    module.arch = start.arch if start else None
    history = History(run.path / "metrics.csv")
    trainer = _trainer(options, run, accelerator, history)
    if is_first_process():
        run.write_config(asdict(options), anew=not resume)
        save_model_yaml(config.raw, run.path / "detector.yaml")
    # Our own file, in the run's own folder: it holds optimizer and loops, which weights_only refuses.
    again: dict[str, Any] = {"ckpt_path": str(checkpoint), "weights_only": False} if resume else {}
    with interruptible(trainer):
        trainer.fit(module, **again)

    epochs, minutes = len(history.rows), round(module.seconds / 60, 2)
    results = {"best": module.best, "epochs": epochs, "minutes": minutes, **size}
    if trainer.is_global_zero:
        run.write_json("results.json", results)
        plot_training(history.rows, run.path / "results.png")
        title = f"{options.data}: epoch {module.best['epoch']}, the best of {epochs}; {minutes} minutes"
        print_report(module.best, title, run.path, options.data)
    return results


def _module(options: Options, model: Model, data: DetectionData, run: RunFolder, say: _Say) -> DetectorTraining:
    """The training loop, paced by the recipe."""
    batches = -(-(len(data.train) // options.devices) // (options.batch // options.devices))
    recipe = recipe_of(options.recipe, options.epochs, batches, options.batch)
    schedule = Schedule(
        epochs=options.epochs,
        batches=batches,
        lr0=_lr0(options),
        lrf=options.lrf,
        momentum=options.momentum,
        warmup=recipe.warmup,
        accumulate=recipe.accumulate,
        cosine=options.cosine,
        # YOLOv5's 0.1 is for weights at their beginning; it would undo trained ones that are to be finetuned.
        warmup_bias_lr=min(0.1, 10 * _lr0(options)) if options.optimizer == "sgd" else 0.0,
    )
    say(
        f"{options.epochs} epochs of {batches} batches; warm-up of {recipe.warmup} batches; "
        f"batches to a step: {round(recipe.accumulate)}"
    )
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = recipe.bn_momentum
    return DetectorTraining(
        model,
        data,
        schedule,
        imgsz=options.imgsz,
        batch=options.batch,
        optimizer=options.optimizer,
        weight_decay=options.weight_decay * recipe.decay_scale,
        loss_scale=recipe.loss_scale,
        multi_scale=options.multi_scale,
        patience=options.patience,
        seed=options.seed,
        workers=options.workers,
        result=run.path / "detector.pt",
    )


def _lr0(options: Options) -> float:
    return options.lr0 or (0.01 if options.optimizer == "sgd" else 0.001)


def _start(options: Options, slice_of: Callable[[str, str], Start] | None) -> Start | None:
    if options.supernet is not None and slice_of is not None:
        return slice_of(options.supernet, options.arch)
    return read_weights(options.weights) if options.weights else None


class _Say:
    """Prints in the first process only."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, line: str) -> None:
        if self.on:
            print(line, flush=True)


def _check(options: Options, accelerator: str) -> None:
    if options.cfg is None and options.weights is None and options.supernet is None:
        raise InputError("say what to train: --cfg models/yolov5n.yaml, or --weights detector.pt")
    if options.supernet is not None and (options.cfg or options.weights):
        raise InputError("--supernet gives YAML and weights: leave --cfg and --weights out")
    if options.batch % options.devices:
        raise InputError(f"--batch {options.batch} cannot be shared out evenly between --devices {options.devices}")
    if options.sync_bn and accelerator != "gpu":
        raise InputError("--sync-bn: PyTorch has it for CUDA only; right would be --device cuda, or to leave it out")
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
    if options.cfg is not None:
        config = read_config(options.cfg)
    else:
        assert start is not None
        config = replace(read_config(start.cfg), file=start.file)
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
    return replace(read_config(raw, data.nc, anchors=anchors), file=config.file)


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
            callbacks=[
                OrderlyInterrupt(),
                history,
                LastCheckpoint(run.path / "last.ckpt"),
                EpochLine("train", _SHOWN),
            ],
            enable_checkpointing=False,
            enable_progress_bar=Console().is_terminal,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as e:
        raise InputError(f"--device, --devices, --strategy or --precision: {str(e).splitlines()[0]}") from None
