"""Pruning a file's network, in one step or in several with finetuning between: what `prune.py` calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from data import classification, collate, detection
from models.catalog import finds
from models.complexity import count_flops, count_params
from models.detector import Model
from models.errors import InputError
from models.files import is_classifier, load_classifier, save_classifier, save_detector, save_model_yaml
from models.network import Network
from models.plugins import load_plugins_of_run
from models.strides import check_imgsz
from models.upstream import load_weights
from optimizer.prune import Pruned, UnreachableError, prune
from optimizer.scores import channel_scores

from ..run.amounts import COSTS, written
from ..run.commands import command
from ..run.console import say
from ..run.device import device_of
from ..run.folder import RunFolder
from ..run.lightning import accelerator_of, interruptible, make_trainer, quiet_lightning
from ..tasks.classify import ClassificationModule
from ..tasks.detect import DetectionModule
from ..tasks.loaders import make_loader
from ..tasks.metrics import shown_of
from .engine import FINETUNE
from .options import Options, Pruning, learning_of
from .train import train

TARGETS = ("sparsity", "to_flops", "to_params", "to_latency")
_DEFAULT_SIDE = 640


def prune_file(options: Pruning, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Prune, and write the result into the run's folder: ``detector.pt`` and ``.yaml``, or ``classifier``.

    Each step leaves its network in ``step1`` and so on, where its finetuning goes on from after an interruption.

    Returns
    -------
    The content of ``results.json``: costs ``before`` and ``after``, with ``--data`` the metric too; of each step the
    share of channels that went, and the widths.
    """
    load_plugins_of_run(options.plugin)
    quiet_lightning()
    work = _Work(options, run)
    before = work.described(work.network)
    if not resume:
        work.check(before)
        run.write_config(asdict(options), anew=True)
    network, steps = work.network, []
    for number in range(1, options.steps + 1):
        network, told = work.step(network, number, before)
        steps.append(told)
    after = work.described(network)
    results = {"before": before, "after": after, "steps": steps}
    work.save(network, run.path, {"method": options.method, **{k: after[k] for k in ("params", "flops")}})
    run.write_json("results.json", results)
    _report(work, results)
    return results


class _Work:
    """A file's network, and what is needed to prune it."""

    def __init__(self, options: Pruning, run: RunFolder) -> None:
        self.options, self.run = options, run
        self.classifies = is_classifier(options.weights)
        read: Callable[..., Any] = load_classifier if self.classifies else load_weights
        try:
            self.network, content = read(options.weights)
        except InputError as e:
            raise InputError(f"--weights {e}") from None
        if getattr(self.network, "landmarks", None):
            raise InputError(f"--weights {options.weights}: of landmarks; detectors and classifiers are pruned")
        self.names = self.network.names
        self.kind = "classifier" if self.classifies else "detector"
        self.imgsz = check_imgsz(
            options.imgsz or content.get("imgsz") or _DEFAULT_SIDE, int(self.network.imgsz_multiple)
        )
        self.accelerator = accelerator_of(options.device)
        self.data: Any = None if options.data is None else self._read_data(options.data)
        if self.data is None and (options.epochs or options.method == "taylor"):
            asked = "--epochs" if options.epochs else "--method taylor"
            raise InputError(f"{asked}: needs images; right would be --data")

    def _read_data(self, source: str) -> Any:
        options, config = self.options, self.network.config
        data: Any = (
            classification(source, self.imgsz, options.seed, None, config.ch)
            if self.classifies
            else detection(source, self.imgsz, None, options.seed, finds=finds(config))
        )
        known = self.network.config.nc if self.classifies else self.network.head.nc
        if data.nc != known:
            raise InputError(f"--data {source} has {data.nc} classes, but {options.weights} was made for {known}")
        return data

    # Costs

    def described(self, network: Any) -> dict[str, Any]:
        """Parameters, FLOPs, latency where that is the target, and the metric where there are data."""
        found: dict[str, Any] = {
            "params": count_params(network),
            "flops": count_flops(network, self.imgsz, network.config.ch),
        }
        if self.options.to_latency is not None:
            found["latency"] = self.latency(network)
        if self.data is not None:
            found |= self.measured(network)
        return found

    def latency(self, network: Network) -> float:
        from spaces.space import Space

        from ..costs.latency import Latency

        provider = Latency(Space(network.config), self.imgsz, self.options.backend, device_of(self.options.device))
        return provider([{}])[0]

    def cost(self, name: str) -> Callable[[Network], float]:
        if name == "latency":
            return self.latency
        return count_params if name == "params" else lambda n: count_flops(n, self.imgsz, n.config.ch)

    def measured(self, network: Any) -> dict[str, float]:
        """The metric on the validation images."""
        learner = self._learner(network)
        trainer = make_trainer(self.options, self.accelerator, logger=False, enable_progress_bar=False)
        more: Any = {} if self.classifies else {"collate": collate}
        loader = make_loader(self.data.val, self.options.batch, seed=None, drop_last=False, workers=0, **more)
        with interruptible(trainer):
            found = trainer.validate(learner, loader, verbose=False)[0]
        if isinstance(learner, DetectionModule):
            return {name: float(learner.measured[name]) for name in shown_of(network.head.finds)}
        return {"accuracy": float(found["val_acc"])}

    def _learner(self, network: Any) -> Any:
        learner = ClassificationModule() if self.classifies else DetectionModule(self.data.names, self.imgsz)
        learner.set_model(network)
        return learner

    # A step

    def check(self, before: dict[str, Any]) -> None:
        """`InputError` if the target cannot be come to, before anything is written."""
        self._pruned(self.network, self.options.steps, before, "random")

    def step(self, network: Any, number: int, before: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Prune, unless that is done, and finetune, unless that is: the network, and what was done."""
        folder = RunFolder(self.run.path, f"step{number}", exist_ok=True)
        file = folder.path / f"pruned_{self.kind}.pt"
        if file.exists():
            found, content = self._load(file)
            told = content["pruned"]
        else:
            pruned = self._pruned(network, number, before, self.options.method)
            found = pruned.network
            told = {
                "sparsity": pruned.sparsity,
                "widths": {name: [b, a] for name, b, a in pruned.widths},
                "params": count_params(found),
                "flops": count_flops(found, self.imgsz, found.config.ch),
            }
            if self.options.epochs and self.data is not None:
                told |= {f"{k}_before_finetuning": v for k, v in self.measured(found).items()}
            self.save(found, folder.path, told, f"pruned_{self.kind}")
        if not self.options.epochs:
            return found, told
        return self._finetuned(folder, file), told

    def _pruned(self, network: Any, number: int, before: dict[str, Any], method: str) -> Pruned:
        options = self.options
        target = next(name for name in TARGETS if getattr(options, name) is not None)
        value, part = getattr(options, target), number / options.steps
        given: dict[str, Any] = {"scope": options.scope, "multiple": options.multiple}
        if target == "sparsity":
            # As large a share in every step, which together make what is asked for.
            given["sparsity"] = 1 - (1 - value) ** (1 / options.steps)
        else:
            name = target.removeprefix("to_")
            if before[name] <= value:
                raise InputError(
                    f"--to-{name} {written(name, value)}: {options.weights} has {written(name, before[name])} "
                    f"{COSTS[name]}, which is no more; right would be less"
                )
            given |= {"cost": self.cost(name), "limit": before[name] * (value / before[name]) ** part}

        def scores(segments: Any) -> Any:
            losses = self._losses(network) if method == "taylor" else ()
            return channel_scores(network, segments, method, losses, options.seed)

        try:
            return prune(network, scores, **given)
        except UnreachableError as e:
            name = target.removeprefix("to_")
            raise InputError(
                f"--to-{name} {written(name, value)}: at its narrowest {options.weights} has {written(name, e.least)} "
                f"{COSTS[name]}; right would be more, or a smaller --multiple"
            ) from None

    def _losses(self, network: Any) -> Iterator[Tensor]:
        """Of training images, in eval mode; of all branches of a head."""
        device = device_of(self.options.device)
        network = network.to(device).eval()
        learner = self._learner(network)
        split = self.data.both if self.classifies else self.data.train
        more: Any = {} if self.classifies else {"collate": collate}
        batches = make_loader(split, self.options.batch, seed=self.options.seed, **more)
        if isinstance(network, Model):
            network.head.training = True
        try:
            for batch in itertools.islice(batches, self.options.batches):
                if isinstance(network, Model):
                    batch = batch._replace(images=batch.images.to(device), targets=batch.targets.to(device))
                    yield learner.loss_of(network(learner.inputs(batch)), batch)[0]
                else:
                    images, labels = (t.to(device) for t in batch)
                    yield torch.nn.functional.cross_entropy(network(images), labels)
        finally:
            network.eval().cpu()

    def _finetuned(self, folder: RunFolder, file: Path) -> Any:
        run = RunFolder(folder.path, "finetune", exist_ok=True)
        result = run.path / f"{self.kind}.pt"
        if not (run.path / "results.json").exists():
            learning, options = learning_of(self.options), self.options
            given = {f.name: getattr(learning, f.name) for f in fields(learning)}
            given["optimizer"] = given["optimizer"] or ("adamw" if self.classifies else "sgd")
            begin = Options(
                **given,
                weights=str(file),
                data=cast(str, options.data),
                imgsz=self.imgsz,
                epochs=options.epochs,
                batch=options.batch,
                autoanchor=False,
                seed=options.seed,
                device=options.device,
                patience=0,
            )
            # The weights are trained.
            begin = replace(begin, lr0=begin.lr0 or begin.rate * FINETUNE)
            train(begin, run, resume=(run.path / "last.ckpt").exists())
        return self._load(result)[0]

    def _load(self, file: Path) -> tuple[Any, dict[str, Any]]:
        return (load_classifier if self.classifies else load_weights)(file)

    def save(self, network: Any, folder: Path, told: dict[str, Any], name: str | None = None) -> None:
        name, extra = name or self.kind, {"imgsz": self.imgsz, "pruned": told}
        if self.classifies:
            names = self.names if isinstance(self.names, list) else list(self.names.values())
            save_classifier(network, folder / f"{name}.pt", names, **extra)
        else:
            network.names = dict(self.names)
            save_detector(network, folder / f"{name}.pt", **extra)
        save_model_yaml(network.config.raw, folder / f"{name}.yaml")


def _report(work: _Work, results: dict[str, Any]) -> None:
    before, after = results["before"], results["after"]
    lines = []
    for name, was in before.items():
        if name in COSTS:
            now = f"{written(name, after[name])} ({after[name] / was:.0%})"
            lines.append(f"{COSTS[name]}: {written(name, was)} -> {now}")
        else:
            lines.append(f"{name}: {was:.4f} -> {after[name]:.4f}")
    path = work.run.path
    file = path / f"{work.kind}.pt"
    train = ("train.py", "--weights", file, "--data", work.options.data or "DATA", "--lr0", 0.001)
    then = (command(*words) for words in (train, ("export.py", "--weights", file)))
    say(work.options.weights, *lines, f"results in {path}; next:", *(f"  {line}" for line in then))
