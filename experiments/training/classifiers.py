"""Classifiers, and regressors of points, that a search left: what `val.py` and `train.py` do with their files."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import default_collate

from data import classification
from data.landmarks import landmarks
from models.classes import difference, in_order, names_of, order_of, unnamed
from models.classifier import Classifier
from models.complexity import count_flops, count_params
from models.errors import InputError
from models.files import load_classifier, save_classifier, save_landmarks, save_model_yaml
from models.strides import check_imgsz

from ..run.cli import AUTO
from ..run.console import say
from ..run.device import device_of
from ..run.folder import RunFolder
from ..tasks.classify import ClassificationModule
from ..tasks.landmarks import LandmarksModule, mean_nme
from ..tasks.loaders import make_loader
from .batch import chosen_batch
from .engine import Engine
from .fit import fit
from .lessons import Lessons, read_teacher
from .loop import Best, Training


def validate(options: Any, run: RunFolder) -> dict[str, Any]:
    """Measure the classifier of a file on the validation images of a set.

    Returns
    -------
    The content of ``results.json``: ``accuracy``, ``accuracy_top5`` (where there are more than five classes), ``loss``
    (cross entropy), ``images``, ``imgsz``; of landmarks ``nme`` in place of the first three.
    """
    network, content = load_classifier(options.weights)
    imgsz, data = (_open_points if network.landmarks else _open)(options, network, content)
    if options.split != "val":
        raise InputError(f"--split {options.split}: a classifier is measured on val")
    network.to(device_of(options.device))
    if network.landmarks:
        error = mean_nme(network, data.val, data.normalise, options.batch, options.workers)
        found = {"imgsz": imgsz, "images": len(data.val), "nme": error}
        run.write_config(asdict(options))
        run.write_json("results.json", found)
        say(
            f"{options.weights} on {options.data} ({found['images']:,} images, {imgsz} pixels): NME {error:.4f}",
            f"results in {run.path}",
        )
        return found
    scores, right = _scores(network, data.val, options.batch, options.workers)
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


def finetune(options: Any, run: RunFolder, accelerator: str, resume: bool = False) -> dict[str, Any]:
    """Train the classifier of a file further, on all training images; keeps the best epoch's.

    Returns
    -------
    The content of ``results.json``: ``accuracy`` (of landmarks ``nme``) of the best epoch and ``before``, ``epoch``,
    parameters, FLOPs.
    """
    network, content = load_classifier(options.weights)
    points = network.landmarks is not None
    imgsz, data = (_open_points if points else _open)(options, network, content)
    teacher = None if options.teacher is None else read_teacher(options.teacher, Classifier)
    pl.seed_everything(options.seed, verbose=False)
    learner = LandmarksModule(data.normalise) if points else ClassificationModule()
    is_slice = bool(content.get("is_slice"))
    network.names = dict(enumerate(data.names))
    lessons = None if teacher is None else Lessons.of(teacher, network, options)
    how: Any = {"finetunes": is_slice, "sums_loss": False, "say": say}
    training = Training(learner, network, Engine(options, options.batch, **how), lessons)
    if options.batch == AUTO:
        number, why = chosen_batch(options, training, data.both, default_collate)
        say(why)
        options = replace(options, batch=number)
        training.engine = Engine(options, options.batch, **how)
    kept = {"imgsz": imgsz, "arch": content.get("arch"), "is_slice": is_slice}

    def save(average: Any, best: dict[str, Any]) -> None:
        if points:
            save_landmarks(average, run.path / "landmarks.pt", data.names, data.normalise, **kept)
        else:
            save_classifier(average, run.path / "classifier.pt", data.names, **kept)

    def measured(network: Any) -> float:
        if points:
            return mean_nme(network, data.val, data.normalise, options.batch)
        return _accuracy(network, data.val, options.batch)

    best = Best(lambda m: -m["val_nme"] if points else m["val_acc"], save, options.patience)
    given: Any = {"workers": options.workers, "cuda": accelerator == "gpu"}
    validation = make_loader(data.val, options.batch, seed=None, drop_last=False, **given)
    loaders = make_loader(data.both, options.batch, seed=options.seed, **given), validation
    run.write_config(asdict(options), anew=not resume)
    save_model_yaml(network.config.raw, run.path / ("landmarks.yaml" if points else "classifier.yaml"))
    before = measured(network)
    size = {"params": count_params(network), "flops": count_flops(network, imgsz, network.config.ch)}
    fit(options, run, training, loaders, best, accelerator, "finetune", resume=resume)
    metric, epoch = "nme" if points else "accuracy", best.best["epoch"]
    reached = abs(best.best["fitness"])
    results = {metric: reached, "before": before, "epoch": epoch, **size}
    run.write_json("results.json", results)
    say(
        f"{'NME' if points else metric} {reached:.4f} in epoch {epoch} of {options.epochs}, {before:.4f} before",
        f"results in {run.path}",
    )
    return results


@torch.no_grad()
def _scores(network: Classifier, split: Any, batch: int, workers: int) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of a split, on the CPU."""
    device = next(network.parameters()).device
    logits, labels = [], []
    for images, given in make_loader(split, batch, seed=None, drop_last=False, workers=workers):
        logits.append(network(images.to(device)).cpu())
        labels.append(given)
    return torch.cat(logits), torch.cat(labels)


def _accuracy(network: Classifier, split: Any, batch: int) -> float:
    scores, right = _scores(network.eval(), split, batch, 0)
    return float((scores.argmax(1) == right).float().mean())


def _open(options: Any, network: Classifier, content: dict[str, Any]) -> tuple[int, Any]:
    """Side of the images, and the data; `InputError` if they do not fit the classifier."""
    imgsz = check_imgsz(options.imgsz or content["imgsz"], network.imgsz_multiple)
    data = classification(options.data, imgsz, getattr(options, "seed", 0), None, network.config.ch)
    theirs = names_of(network) or unnamed(network.config.nc or 0)
    if (order := order_of(theirs, data.names)) is None:
        raise InputError(
            f"--data {options.data}: other classes than {options.weights} was made for: the data "
            f"{difference(theirs, data.names)}"
        )
    network.load_state_dict(in_order(network.state_dict(), network, order))
    network.names = dict(enumerate(data.names))
    return imgsz, data


def _open_points(options: Any, network: Classifier, content: dict[str, Any]) -> tuple[int, Any]:
    """As `_open`, of landmarks."""
    imgsz = check_imgsz(options.imgsz or content["imgsz"], network.imgsz_multiple)
    data = landmarks(options.data, imgsz, getattr(options, "seed", 0), ch=network.config.ch)
    if len(data.names) != network.config.nc:
        number = (network.config.nc or 0) // 2
        raise InputError(f"--data {options.data}: {data.num_points} points, and {options.weights} gives {number}")
    return imgsz, data
