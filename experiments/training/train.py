"""Training a detector on people's own data: what `train.py` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytorch_lightning as pl

from data import DetectionData, collate, detection
from models.catalog import finds
from models.complexity import count_flops, count_params
from models.detector import Model
from models.errors import InputError
from models.files import is_classifier, save_detector, save_model_yaml
from models.grammar import Config, read_config
from models.plugins import load_plugins_of_run

from ..run.callbacks import check_same_classes
from ..run.cli import AUTO
from ..run.folder import RunFolder, is_first_process
from ..run.lightning import accelerator_of, make_trainer, quiet_lightning
from ..tasks.detect import DetectionModule, hyp_of
from ..tasks.loaders import make_loader, world_of
from ..tasks.metrics import fitness, shown_of
from .anchors import fit_anchors
from .batch import chosen_batch
from .engine import FINETUNE, Engine, check_checkpoint
from .fit import fit
from .lessons import Lessons, Teacher, read_teacher
from .loop import Best, Training
from .options import Options
from .report import plot_training, print_report
from .weights import Start, read_weights, transfer


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
    accelerator = accelerator_of(options.device)
    quiet_lightning()
    make_trainer(options, accelerator, strategy=options.strategy, logger=False)  # what it refuses, before data are read
    resume = resume and (run.path / "last.ckpt").exists()
    if resume:
        check_checkpoint(run.path / "last.ckpt")
    if options.weights is not None and is_classifier(options.weights):
        from .classifiers import finetune

        return finetune(options, run, accelerator, resume)
    say = _Say(is_first_process())
    _check(options)
    teacher = None if options.teacher is None else read_teacher(options.teacher, Model)
    start = None if resume else _start(options, slice_of)
    config = _config(options, run, start, resume)
    Model(config).check_imgsz(options.imgsz)
    what = finds(config)
    data = detection(
        options.data, options.imgsz, hyp_of(options), options.seed, options.classes, options.single_cls, what
    )
    for split in (data.train, data.val):
        say(str(split.report))
    if resume:
        check_same_classes(config.raw.get("names"), data.names)
    else:
        config = _for_data(config, data, options, say, teacher)

    pl.seed_everything(options.seed, verbose=False)
    model = Model(config)
    model.names = dict(enumerate(data.names))
    if start is not None:
        say(f"weights: {transfer(start, model)}")

    size = {"params": count_params(model), "flops": count_flops(model, options.imgsz, config.ch)}
    say(f"{config.file}: {size['params']:,} parameters, {size['flops'] / 1e9:.2f} GFLOPs at {options.imgsz}")
    if start is not None and start.is_slice and options.lr0 is None:
        options = replace(options, lr0=options.rate * FINETUNE)
    lessons = None if teacher is None else Lessons.of(teacher, model, options)
    training = Training(DetectionModule(data.names, options.imgsz), model, _engine(options, say), lessons)
    if options.batch == AUTO:
        number, why = chosen_batch(options, training, data.train, collate)
        say(why)
        options = replace(options, batch=number)
        training.engine = _engine(options, say)
    arch = start.arch if start else None
    maps = shown_of(what)

    def save(average: Any, best: dict[str, Any]) -> None:
        found = {k: best[k] for k in ("epoch", *maps) if k in best}
        save_detector(average, run.path / "detector.pt", imgsz=options.imgsz, arch=arch, **found)

    best = Best(fitness, save, options.patience)
    if is_first_process():
        run.write_config(asdict(options), anew=not resume)
        save_model_yaml(config.raw, run.path / "detector.yaml")
    given: Any = {
        "workers": options.workers,
        "world": world_of(options),
        "cuda": accelerator == "gpu",
        "collate": collate,
    }
    loaders = (
        make_loader(data.train, options.batch, seed=options.seed, drop_last=False, **given),
        make_loader(data.val, options.batch, seed=None, drop_last=False, **given),
    )
    shown = (*(f"train_{part}" for part in model.head.parts), "val_loss", *maps)
    trainer, history = fit(options, run, training, loaders, best, accelerator, "train", shown, resume)

    epochs, minutes = len(history.rows), round(training.seconds / 60, 2)
    results = {"best": best.best, "epochs": epochs, "minutes": minutes, **size}
    if trainer.is_global_zero:
        run.write_json("results.json", results)
        plot_training(history.rows, run.path / "results.png", model.head.parts, maps)
        title = f"{options.data}: epoch {best.best['epoch']}, the best of {epochs}; {minutes} minutes"
        chosen = ["--classes", *options.classes] if options.classes else []
        chosen += ["--single-cls"] if options.single_cls else []
        print_report(best.best, title, run.path, "--data", options.data, *chosen)
    return results


def _engine(options: Options, say: Callable[[str], None]) -> Engine:
    return Engine(options, options.batch, seed=options.seed, say=say)


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


def _check(options: Options) -> None:
    if options.cfg is None and options.weights is None and options.supernet is None:
        raise InputError("say what to train: --cfg models/yolov5n.yaml, or --weights detector.pt")
    if options.supernet is not None and (options.cfg or options.weights):
        raise InputError("--supernet gives YAML and weights: leave --cfg and --weights out")


def _config(options: Options, run: RunFolder, start: Start | None, resume: bool) -> Config:
    if resume:
        return read_config(run.path / "detector.yaml")
    if options.cfg is not None:
        config = read_config(options.cfg, scale=options.scale)
    else:
        assert start is not None
        config = read_config(start.cfg, file=start.file)
    if config.ch != 3:
        raise InputError(f"{config.file}: takes {config.ch} channels, but images have 3")
    return config


def _for_data(
    config: Config, data: DetectionData, options: Options, say: _Say, teacher: Teacher | None = None
) -> Config:
    """With the data's classes and names, and, where the head has anchors, a teacher's or such that fit the boxes."""
    anchors = None
    of_logits = options.autoanchor and options.distill != "features"
    if of_logits and teacher is not None and (anchors := teacher.anchors(config)) is not None:
        say(f"anchors: the teacher's: {anchors}")  # so that both speak of the same boxes
    elif options.autoanchor and config.anchors is not None:
        fitted = fit_anchors(config, data.train, options.seed)
        before = "" if fitted.recall_before is None else f" instead of {fitted.recall_before:.4f}"
        if fitted.replaced:
            anchors = fitted.anchors
            say(f"anchors: by k-means, best possible recall {fitted.recall:.4f}{before}: {anchors}")
        else:
            say(f"anchors: the YAML's, best possible recall {fitted.recall:.4f}")
    raw = {**config.raw, "names": list(data.names)}
    return read_config(raw, data.nc, anchors=anchors, file=config.file)
