"""The one door to NNI 3.0: what is used of it, and its repairs for today's torch and Lightning, each with its reason.

NNI is archived, so nothing here will be fixed upstream. Nobody else imports `nni`: the day it is replaced, this file is
what there is to write anew.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
import warnings
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

# nni.nas wraps every class of torch.nn, torch.nn.Buffer among them, which is no module: it warns and goes on.
warnings.filterwarnings("ignore", message=".*is found to be not a nn.Module.*")

# It wants loaders that can be pickled, for trials; those of a search in this process need not be.
warnings.filterwarnings("ignore", message=".*try to wrap PyTorch DataLoader with nni.trace.*")

# It writes the address of its manager, with the key to it, into every trial's log.
logging.getLogger("nni.runtime.trial_command_channel.v3").setLevel(logging.WARNING)

# ruff: noqa: E402
# Before anything of nni.nas.oneshot.pytorch: the other order ends in a circular import that NNI swallows, and the
# one-shot strategies become stubs that raise when they are run.
import nni
import nni.nas.strategy
import requests
import websockets
from nni.experiment import Experiment, data, launcher, rest
from nni.experiment.config import ExperimentConfig
from nni.experiment.config import utils as config_utils
from nni.experiment.config.base import ConfigBase
from nni.experiment.config.training_services import RemoteConfig
from nni.mutable import (
    Categorical,
    CategoricalMultiple,
    MutableAnnotation,
    MutableExpression,
    ensure_frozen,
    label_scope,
)
from nni.nas.evaluator import Evaluator, FunctionalEvaluator
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from nni.nas.evaluator.pytorch.lightning import SupervisedLearningModule
from nni.nas.execution import ExecutionEngine, SequentialExecutionEngine
from nni.nas.execution.event import FinalMetricEvent, ModelEventType, TrainingEndEvent
from nni.nas.execution.training_service import TrainingServiceExecutionEngine
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.experiment.config import SimplifiedModelFormatConfig, TrainingServiceEngineConfig
from nni.nas.hub import pytorch as hub
from nni.nas.hub.pytorch.nasnet import NDS, NDSStage
from nni.nas.nn.pytorch import (
    Cell,
    ChosenInputs,
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableModule,
    ParametrizedModule,
    Repeat,
)
from nni.nas.nn.pytorch.base import recursive_freeze
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, is_supernet
from nni.nas.oneshot.pytorch.supermodule._expression_utils import traverse_all_options
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.operation import (
    NATIVE_MIXED_OPERATIONS,
    MixedOperation,
    MixedOperationSamplingPolicy,
)
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingCell
from nni.nas.space import ExecutableModelSpace, ModelStatus, RawFormatModelSpace, SimplifiedModelSpace, model_context
from nni.nas.strategy.base import Strategy, StrategyStatus
from nni.runtime.command_channel.websocket import connection
from nni.runtime.trial_command_channel import v3 as trial_channel
from nni.runtime.tuner_command_channel import TunerCommandChannel, channel
from nni.runtime.tuner_command_channel.command_type import CommandType
from nni.utils import MetricType

from models.errors import InputError

_PATIENCE_S = 60.0


def _freeze_operation(self: Any, sample: Any) -> Any:
    """NNI gives the frozen operation ``bias: None`` where it has no bias, which loading refuses."""
    arguments = {**self.init_arguments, **{k: v.freeze(sample) for k, v in self.mutable_arguments.items()}}
    operation = self.bound_type(**arguments)
    operation.load_state_dict({k: v for k, v in self.freeze_weight(**arguments).items() if v is not None})
    _keep_numbers(self, operation, self.mutable_arguments)
    return operation


def _mutate_operation(cls: Any, module: Any, *args: Any) -> Any:
    """NNI makes the operation of a supernet anew: a number that a space sets after it was made is lost."""
    operation = _mutate(cls, module, *args)
    if isinstance(operation, MixedOperation):
        _keep_numbers(module, operation, operation.mutable_arguments)
    return operation


def _keep_numbers(source: Any, target: Any, chosen: Any) -> None:
    """Of normalisations, as `ProxylessNAS` and `MobileNetV3Space` set them for all of their modules."""
    for name in ("eps", "momentum"):
        if hasattr(source, name) and name not in chosen:
            setattr(target, name, getattr(source, name))


def _ordered_arch_parameters(self: Any) -> list[Any]:
    """Architecture parameters once each, in the order of the supernet.

    NNI's is the list of a set: its order, and with it the optimizer's state in a checkpoint, differs from process to
    process, so that a resumed run goes on with the moments of other parameters.
    """
    found: dict[int, Any] = {}
    for module in self.supernet_modules():
        if hasattr(module, "arch_parameters"):
            found.update((id(p), p) for p in module.arch_parameters())
    return list(found.values())


def _on_validation_epoch_end(self: Any) -> None:
    """Passed on to the evaluator's module, which reports the intermediate result; NNI's one-shot base forgets it."""
    self.training_module.on_validation_epoch_end()


def _parse_plain(self: Any, sample: Any) -> Any:
    """NNI wants a list of several inputs, which nothing can be counted by; a tuple is as good."""
    given = sample.get(self.label)
    return _parse_simple(self, {**sample, self.label: [*given]} if isinstance(given, tuple) else sample)


def subsets(mutable: Any, most: int = 256) -> list[tuple[Any, ...]]:
    """The values of a `CategoricalMultiple`; `InputError` if they are more than `most`."""
    sizes = range(len(mutable.values) + 1) if mutable.n_chosen is None else (mutable.n_chosen,)
    if sum(math.comb(len(mutable.values), size) for size in sizes) > most:
        raise InputError(f"'{mutable.label}' is a choice between subsets of inputs, of which {most} are the most")
    return [chosen for size in sizes for chosen in itertools.combinations(mutable.values, size)]


def _freeze_nds(self: Any, sample: Any) -> Any:
    """NNI's is a new network of fresh weights; a supernet's (`nni_cells.carry_over`) are carried over."""
    network = _rebuild_nds(self, sample)
    if (carry_over := getattr(self, "carry_over", None)) is not None:
        carry_over(self, network, sample)
    return network


def _receive_for_nas(self: Any) -> Any:
    """On resume the manager sends earlier results and trials to the tuner; NNI's NAS side dies of these commands."""
    while True:
        command, data = _receive(self)
        if command not in (CommandType.ImportData, CommandType.AddCustomizedTrialJob):
            return command, data


def _start_manager(*args: Any) -> Any:
    global _manager
    _manager = _start_rest_server(*args)
    return _manager


def _wait_for_manager(port: int, retry: int = 3, url_prefix: str | None = None) -> None:
    """NNI gives its manager three seconds to start, which a busy machine does not keep."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            rest.get(port, "/check-status", url_prefix)
            return
        except OSError:  # of requests
            if _manager is not None and _manager.poll() is not None:
                raise RuntimeError(f"NNI's web manager ended with status {_manager.returncode}") from None
            if time.monotonic() > end:
                raise RuntimeError(f"NNI's web manager did not answer within {_PATIENCE_S:g} s") from None
        time.sleep(0.1)


# Of the managers that this process has started, by port.
tokens: dict[int, str] = {}


def credentials(url: str) -> tuple[str, str] | None:
    """User and password that the manager at an address asks for; it is no page that anybody may ask."""
    token = tokens.get(urlsplit(url).port or 80)
    return None if token is None else ("nas", token)


def _request(method: str, url: str, **options: Any) -> requests.Response:
    return requests.request(method, url, auth=credentials(url), **options)


async def _connect(url: str) -> Any:
    if known := credentials(url):
        url = url.replace("://", "://{}:{}@".format(*known), 1)
    return await websockets.connect(url, max_size=None)


def _load_plain(text: str) -> Any:
    """What comes over a channel is JSON as it is: NNI's own reader imports and runs what its objects name."""
    return json.loads(text)


def _parameters_of(text: str) -> Any:
    """Trials that were added by hand in the web UI lack some of what NNI's Python side insists on."""
    given = _load_plain(text)
    given = given if isinstance(given, dict) else {}
    return data.TrialHyperParameters(
        given.get("parameter_id"),  # type: ignore[arg-type]
        given.get("parameter_source", ""),
        given.get("parameters", {}),
        given.get("parameter_index", 0),
    )


def _init_job(self: Any, **given: Any) -> None:
    parameters = given.pop("hyperParameters", ())
    _init_trial_job(self, **{"startTime": -1, "sequenceId": -1, **given, "finalMetricData": []})
    self.hyperParameters = [_parameters_of(text) for text in parameters]


_manager: Any = None
_receive, _start_rest_server = TunerCommandChannel._receive, launcher._start_rest_server
_init_trial_job = data.TrialJob.__init__
for _handler in logging.getLogger("nni").handlers:
    # It colours its lines, which a stream that lets no control characters through would show as text.
    if isinstance(_handler, logging.StreamHandler):
        _handler.setStream(getattr(_handler.stream, "rich_proxied_file", _handler.stream))
TunerCommandChannel._receive = _receive_for_nas
rest.requests = SimpleNamespace(request=_request)
connection._connect_async = _connect
connection.nni = trial_channel.nni = SimpleNamespace(dump=nni.dump, load=_load_plain)
channel.load = _load_plain
data.TrialJob.__init__ = _init_job
launcher._start_rest_server, launcher._check_rest_server = _start_manager, _wait_for_manager
MixedOperation.freeze = _freeze_operation
_mutate, MixedOperation.mutate = MixedOperation.mutate.__func__, classmethod(_mutate_operation)
_parse_simple, CategoricalMultiple._parse_simple_format = CategoricalMultiple._parse_simple_format, _parse_plain
_rebuild_nds, NDS.freeze = NDS.freeze, _freeze_nds
DartsLightningModule.arch_parameters = _ordered_arch_parameters
BaseOneShotLightningModule.on_validation_epoch_end = _on_validation_epoch_end

__all__ = [
    "NATIVE_MIXED_OPERATIONS",
    "NDS",
    "BaseOneShotLightningModule",
    "BaseSuperNetModule",
    "Categorical",
    "CategoricalMultiple",
    "Cell",
    "ChosenInputs",
    "ConfigBase",
    "DataLoader",
    "Evaluator",
    "ExecutableModelSpace",
    "ExecutionEngine",
    "Experiment",
    "ExperimentConfig",
    "FinalMetricEvent",
    "FunctionalEvaluator",
    "InputChoice",
    "LayerChoice",
    "Lightning",
    "LightningModule",
    "MetricType",
    "MixedOperation",
    "MixedOperationSamplingPolicy",
    "ModelEventType",
    "ModelSpace",
    "ModelStatus",
    "MutableAnnotation",
    "MutableExpression",
    "MutableModule",
    "NDSStage",
    "NasExperiment",
    "NasExperimentConfig",
    "OneShotStrategy",
    "ParametrizedModule",
    "PathSamplingCell",
    "RawFormatModelSpace",
    "RemoteConfig",
    "Repeat",
    "SequentialExecutionEngine",
    "SimplifiedModelFormatConfig",
    "SimplifiedModelSpace",
    "Strategy",
    "StrategyStatus",
    "SupervisedLearningModule",
    "Trainer",
    "TrainingEndEvent",
    "TrainingServiceEngineConfig",
    "TrainingServiceExecutionEngine",
    "config_utils",
    "credentials",
    "ensure_frozen",
    "hub",
    "is_supernet",
    "label_scope",
    "model_context",
    "nni",
    "recursive_freeze",
    "subsets",
    "tokens",
    "traverse_all_options",
]
