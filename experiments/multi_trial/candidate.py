"""A candidate of a multi-trial search as a trial: checked against its limits, trained a little, measured, reported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch

from models.complexity import count_flops, count_params
from models.detector import Model
from models.grammar import load_yaml, read_config
from models.network import Network
from models.plain_files import save_plain
from models.plugins import load_plugins_of_run, loaded_plugins
from optimizer.match import join
from spaces import Space
from spaces.nni_compat import Evaluator, ModelSpace, nni

from ..costs.config import read_latency
from ..costs.limits import Limits
from ..costs.timing import measure_latency
from ..run import registry
from ..run.admission import near
from ..run.device import device_of
from ..run.lightning import accelerator_of, quiet_lightning
from ..supernets.subnets import cut_out, open_supernet
from ..supernets.warm import begun, read_weights
from ..tasks.resize import resolution_of
from ..tasks.task import SearchTask
from ..training.fit import train_alone
from .options import Training
from .pruning import Pruning


class Decisions(ModelSpace):
    """The decisions of a YAML as a model space for multi-trial strategies, without any layers.

    Every choice that the grammar knows is one of them, while supernets know some kinds only.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        for label, decision in Space(cfg).decisions.items():
            self.add_mutable(nni.choice(label, list(decision.values)))


@nni.trace
class Candidate(Evaluator):
    """Trains the network of an arch as `Training` says, given as a mapping.

    Reports the task's metric on the data of the architecture after every epoch, and at the end ``default`` (that, or
    the reward where there is a target), the metric under its name, ``unseen`` (the metric on the validation data, which
    the search does not go by), ``params``, ``flops`` (2 x MACs) and ``latency`` (ms) of the whole detector. A candidate
    beyond the limits is not trained; it reports ``infeasible`` and no final result. One that its pruner ended reports
    ``pruned``, the epochs that it had, in place of ``unseen``, and leaves no weights.
    """

    def __init__(self, training: dict[str, Any]) -> None:
        self.training = Training(**training)

    def _execute(self, model: Any) -> None:
        run_trial(self.training, model.sample)


def run_trial(training: Training, arch: Mapping[str, Any]) -> None:
    """Train and report `arch`; its weights go to ``weights.pt`` of the trial's folder, ``NNI_OUTPUT_DIR``."""
    quiet_lightning()
    torch.set_num_threads(training.threads)
    load_plugins_of_run(training.plugin)
    space = Space(training.cfg)
    accelerator = accelerator_of(training.device)
    task: SearchTask = registry.load("task", training.task)(training, space, accelerator)
    raw = space.freeze(arch)
    costs = costs_of(training, _result(training, task, raw), device_of(training.device))
    if training.costs is not None:
        costs["latency"] = read_latency(training.costs)(task.costs(training.cost_imgsz))([space.complete(arch)])[0]
    limits = Limits(training.max_flops, training.max_params, max_latency=training.max_latency)
    if violated := limits.violated(costs):
        print(f"infeasible: {violated}", flush=True)
        nni.report_intermediate_result({"default": 0.0, "infeasible": 1, **costs})
        return

    pl.seed_everything(training.seed, verbose=False)
    network = task.network(raw)
    if training.inherit is not None:
        network = cut_out(open_supernet(training.inherit, task=task, option="--inherit").supernet, task, arch)
    elif training.weights is not None:
        network = cut_out(begun(task, read_weights(training.weights, task), training.seed)[0], task, arch)
    pruning = None if training.journal is None else Pruning(training, training.journal)
    progress = _Progress(task, lambda metric: reward(training, metric, costs), pruning)
    how: dict[str, Any] = {"batch": training.batch, "seed": training.seed, "finetunes": training.inherit is not None}
    train_alone(task, network, training, training.epochs, accelerator, [progress], **how)
    metric = progress.last
    final = {"default": reward(training, metric, costs), task.metric: metric}
    if pruning is not None:
        pruning.close(final["default"])
        if pruning.ended:
            nni.report_final_result({**final, "pruned": progress.epochs, **costs})
            return
    unseen = task.measure(network)
    content = {"state_dict": {k: v.cpu() for k, v in task.calibrated(network).state_dict().items()}}
    save_plain(content, Path(os.environ.get("NNI_OUTPUT_DIR", ".")) / "weights.pt")
    nni.report_final_result({**final, "unseen": unseen, **costs})


def reward(training: Training, metric: float, costs: Mapping[str, float]) -> float:
    """``metric - weight * max(0, latency / target - 1)``; the metric where there is no target."""
    if training.target_latency is None:
        return metric
    return metric - training.target_weight * max(0.0, costs["latency"] / training.target_latency - 1)


def _result(training: Training, task: SearchTask, raw: Mapping[str, Any]) -> Network:
    """What a search would leave of a frozen YAML, with fresh weights."""
    if task.detector is None:
        return task.network(raw)
    if training.detector is not None:
        return Model(join(task.detector.config, read_config(raw).backbone()))
    return Model(read_config(raw, nc=task.detector.config.nc))


def costs_of(training: Training, network: Network, device: str) -> dict[str, float]:
    """``params`` and ``flops`` of a network, and its measured ``latency`` if that is asked for and not told."""
    side = resolution_of(network, training.cost_imgsz)
    costs: dict[str, float] = {
        "params": count_params(network),
        "flops": count_flops(network, side, network.config.ch),
    }
    if training.costs is None and (training.max_latency is not None or training.target_latency is not None):
        costs["latency"] = measure_latency(network, (1, network.config.ch, side, side), device)
    return costs


class _Progress(pl.Callback):
    """Reports the metric after every epoch, and ends the training where it is not worth more.

    Attributes
    ----------
    last, epochs
        What was reported last, and how often.
    """

    last: float
    epochs = 0

    def __init__(self, task: SearchTask, worth: Callable[[float], float], pruning: Pruning | None) -> None:
        self.task, self.worth, self.pruning = task, worth, pruning

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.last = self.task.rate(cast(Any, module).average)
        self.epochs += 1
        nni.report_intermediate_result(self.last)
        if self.pruning is not None and self.pruning.ends(self.worth(self.last), self.epochs):
            trainer.should_stop = True


def training_of(options: Any, space: Space) -> dict[str, Any]:
    """What `Candidate` takes, from options that have more; files that are read here go along as what is in them."""
    training = {name: value for name, value in asdict(options).items() if name in Training.__dataclass_fields__}
    detector = None if options.detector is None else dict(read_config(options.detector).raw)
    costs = None if options.costs is None else load_yaml(Path(options.costs))
    # Those of --inherit's run, which were looked at here, too.
    plugins = [*dict.fromkeys([*options.plugin, *(near(path) for path in loaded_plugins())])]
    return {**training, "cfg": dict(space.config.raw), "detector": detector, "costs": costs, "plugin": plugins}
