"""A candidate of a model space of NNI as a trial, and the decisions of such a space as trials are told them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from models.errors import InputError
from models.plugins import load_plugins_of_run, loaded_plugins
from spaces.nni_compat import Evaluator, ModelSpace, label_scope, nni

from ..costs.frozen import FrozenCosts
from ..costs.limits import Limits
from ..run.admission import near
from ..run.lightning import accelerator_of, quiet_lightning
from ..tasks.network import NetworkTask
from .candidate import train_and_report
from .options import Training


class WrittenDecisions(ModelSpace):
    """Decisions between plain values, without any layers; see `spaces.hub.NetworkSpace.written`."""

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        super().__init__()
        for label, several in values.items():
            *scopes, name = label.split("/")
            with ExitStack() as within:
                for scope in scopes:
                    within.enter_context(label_scope(scope))
                self.add_mutable(nni.choice(name, list(several)))


@nni.trace
class NetworkCandidate(Evaluator):
    """Trains the network of an arch, and reports as `candidate.Candidate` does."""

    def __init__(self, training: dict[str, Any]) -> None:
        self.training = Training(**training)

    def _execute(self, model: Any) -> None:
        run_trial(self.training, model.sample)


def run_trial(training: Training, written: Mapping[str, Any]) -> None:
    """Train and report an arch of `written` values; its weights go to ``weights.pt`` of the trial's folder."""
    quiet_lightning()
    torch.set_num_threads(training.threads)
    load_plugins_of_run(training.plugin)
    accelerator = accelerator_of(training.device)
    task: Any = NetworkTask(training, accelerator)
    arch = task.searched.read(written)
    costs: dict[str, float] = {**FrozenCosts(task.searched).of(arch)}
    if violated := Limits(training.max_flops, training.max_params).violated(costs):
        print(f"infeasible: {violated}", flush=True)
        nni.report_intermediate_result({"default": 0.0, "infeasible": 1, **costs})
        return
    pl.seed_everything(training.seed, verbose=False)
    train_and_report(training, task, task.network(arch), costs, accelerator)


# What belongs to a YAML, to its detector or to its cost model.
_OF_YAMLS = (
    *("cfg", "scale", "upstream_form", "detector", "weights", "inherit"),
    *("max_latency", "target_latency", "costs", "cost_imgsz"),
)


def check(options: Any) -> None:
    """`InputError` for options that a space of NNI has no use for."""
    for name in _OF_YAMLS:
        if getattr(options, name) != type(options).__dataclass_fields__[name].default:
            raise InputError(f"--{name.replace('_', '-')}: is of a YAML's space, which {options.space} is not")


def training_of(options: Any) -> dict[str, Any]:
    """What `NetworkCandidate` takes, from options that have more."""
    training = {name: value for name, value in asdict(options).items() if name in Training.__dataclass_fields__}
    return {**training, "plugin": [*dict.fromkeys([*options.plugin, *(near(Path(p)) for p in loaded_plugins())])]}
