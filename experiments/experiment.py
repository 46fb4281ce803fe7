"""`RetiariiExperiment` and `RetiariiExeConfig`: the names and calls of NNI 2 over NNI 3's `NasExperiment`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spaces import nni_compat  # isort: skip

from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy

from models.errors import InputError

assert nni_compat.nni is not None


class RetiariiExeConfig(NasExperimentConfig):
    """Configuration of an experiment, made from the name of a training service: ``RetiariiExeConfig("local")``.

    ``execution_engine`` may be set to NNI 2's name ``"oneshot"``.
    """

    def __init__(self, training_service_platform: str = "local", **kwargs: Any) -> None:
        super().__init__(training_service_platform=training_service_platform, **kwargs)


class RetiariiExperiment(NasExperiment):
    """A one-shot search as an NNI experiment.

    Parameters
    ----------
    base_model, evaluator
        A model space and an evaluator.
    applied_mutators
        NNI 2's third argument; model spaces of NNI 3 hold their own choices, so it must be empty.
    strategy
        A one-shot strategy.
    """

    def __init__(
        self, base_model: Any, evaluator: Any, applied_mutators: Sequence[Any] | None = None, strategy: Any = None
    ) -> None:
        if strategy is None and applied_mutators is not None and not isinstance(applied_mutators, (list, tuple)):
            applied_mutators, strategy = None, applied_mutators  # NNI 3's order: space, evaluator, strategy
        if applied_mutators:
            raise InputError("applied_mutators must be empty: choices stand in the model space")
        if not isinstance(strategy, OneShotStrategy):
            raise InputError("RetiariiExperiment runs one-shot strategies, such as strategy.DARTS()")
        super().__init__(base_model, evaluator, strategy, _config_of(None))

    def run(self, config: RetiariiExeConfig | None = None, port: int = 8080, debug: bool = False) -> None:  # type: ignore[override]
        """Search. A one-shot search runs in this process: `port` and the numbers of trials have no effect on it.

        Raises
        ------
        KeyboardInterrupt
            On Ctrl-C, once the experiment has been stopped in order.
        """
        self.config = _config_of(config)
        try:
            self.start(port, debug)
        finally:
            self.stop()


def _config_of(given: NasExperimentConfig | None) -> NasExperimentConfig:
    """The configuration of an in-process engine, with the name and folder of `given`."""
    config = NasExperimentConfig("sequential", "raw", trial_concurrency=1)
    if given is not None:
        engine = given.execution_engine if isinstance(given.execution_engine, str) else "oneshot"
        if engine not in ("oneshot", "sequential"):
            raise InputError(f"execution_engine '{engine}' does not fit a one-shot strategy; right would be 'oneshot'")
        for name in ("experiment_name", "experiment_working_directory"):
            if getattr(given, name, None):
                setattr(config, name, getattr(given, name))
    return config
