"""`RetiariiExeConfig`: the configuration of NNI 2 over NNI 3's."""

from __future__ import annotations

import logging
from typing import Any

import torch

from models.errors import InputError
from spaces.nni_compat import (
    ConfigBase,
    ExperimentConfig,
    NasExperimentConfig,
    OneShotStrategy,
    SimplifiedModelFormatConfig,
    Strategy,
    TrainingServiceEngineConfig,
    config_utils,
)

# NNI 2's names of engines that train every candidate on its own; they differ in how a model gets there.
_MULTI_TRIAL = ("ts", "base", "py")
_logger = logging.getLogger(__name__)


class RetiariiExeConfig(NasExperimentConfig):
    """Configuration of an experiment, made from the name of a training service: ``RetiariiExeConfig("local")``.

    ``execution_engine`` may be set to NNI 2's names: ``"oneshot"`` for one-shot strategies, ``"base"`` and ``"py"`` for
    those that train every candidate on its own; unset, it follows from the strategy. ``"sequential"`` trains them one
    after another in this process, without a web UI.
    """

    def __init__(self, training_service_platform: str | list[str] | None = "local", **kwargs: Any) -> None:
        if any(config_utils.case_insensitive(name) == "trainingservice" for name in kwargs):  # as from a file
            training_service_platform = None
        super().__init__(training_service_platform=training_service_platform, **kwargs)

    def _canonicalize(self, parents: Any) -> None:
        if not isinstance(self.execution_engine, TrainingServiceEngineConfig):
            super()._canonicalize(parents)
            return
        # NNI's own insists on its own trial command in the current folder.
        self.search_space = dict[str, Any]()
        ExperimentConfig._canonicalize(self, [self, *parents])

    def _validate_canonical(self) -> None:
        if not isinstance(self.execution_engine, TrainingServiceEngineConfig):
            super()._validate_canonical()
            return
        ConfigBase._validate_canonical(self)  # NNI's own asks every class but its own for a tuner
        for name in ("trial_concurrency", "max_trial_number"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} is {value}: right would be 1 or more")

    def json(self) -> dict[str, Any]:
        """As the manager takes it."""
        content: dict[str, Any] = super().json()
        service = content["trainingService"]
        if service.get("trialGpuNumber"):
            # NNI's scheduler refuses a trial all GPUs of a machine, one of one GPU among them (`>=` for `>`).
            service["trialGpuNumber"] -= 1e-6
        return content


def config_for(strategy: Strategy, given: NasExperimentConfig | None) -> Any:
    """The whole configuration, for what the strategy is."""
    engine = _engine_name(given)
    one_shot = isinstance(strategy, OneShotStrategy)
    if one_shot and engine not in (None, "oneshot", "sequential"):
        raise InputError(f"execution_engine '{engine}' does not fit a one-shot strategy; right would be 'oneshot'")
    if not one_shot and engine not in (None, "sequential", *_MULTI_TRIAL):
        raise InputError(
            f"execution_engine '{engine}' does not fit a multi-trial strategy; "
            "right would be 'base', 'py' or 'sequential'"
        )
    if one_shot or engine == "sequential":
        config = NasExperimentConfig("sequential", "raw" if one_shot else "simplified", trial_concurrency=1)
        names = ["experiment_name", "experiment_working_directory"]
        names += [] if one_shot else ["max_trial_number", "max_trial_duration"]
        for name in names:
            if given is not None and getattr(given, name, None):
                setattr(config, name, getattr(given, name))
        if not one_shot:
            config.execution_engine.continue_on_failure = True
        return config
    config = RetiariiExeConfig(None)
    for field in config_utils.fields(config):
        if given is not None:
            setattr(config, field.name, getattr(given, field.name))
    config.execution_engine, config.model_format = TrainingServiceEngineConfig(), SimplifiedModelFormatConfig()
    if config_utils.is_missing(config.training_service):
        config.training_service = RetiariiExeConfig("local").training_service
    if config_utils.is_missing(config.trial_concurrency):
        config.trial_concurrency = 1
    if config.training_service.platform == "local" and config.trial_gpu_number and not torch.cuda.is_available():
        _logger.warning("trial_gpu_number is %d, but there is no GPU: trials run on the CPU", config.trial_gpu_number)
        config.trial_gpu_number = None
    return config


def _engine_name(config: NasExperimentConfig | None) -> str | None:
    engine = None if config is None else getattr(config, "execution_engine", None)
    if engine is None or config_utils.is_missing(engine):
        return None
    return engine if isinstance(engine, str) else engine.name
