"""The names and calls of NNI 2 over NNI 3."""

import pytest

from experiments import RetiariiExeConfig, RetiariiExperiment, strategy
from experiments.tasks import evaluator
from models import InputError
from spaces import NASBACKBONE


def parts():
    space = NASBACKBONE("tests/assets/tiny_nas.yaml", nc=10)
    return space, evaluator.Classification(logger=False, enable_checkpointing=False, max_epochs=1)


def test_takes_both_orders_of_arguments():
    darts = strategy.DARTS()
    space, task = parts()
    assert RetiariiExperiment(space, task, [], darts).strategy is darts
    assert RetiariiExperiment(space, task, darts).strategy is darts


def test_refuses_mutators_and_what_is_no_one_shot_strategy():
    space, task = parts()
    with pytest.raises(InputError, match="applied_mutators must be empty"):
        RetiariiExperiment(space, task, [object()], strategy.DARTS())
    with pytest.raises(InputError, match="one-shot strategies"):
        RetiariiExperiment(space, task, [], "darts")


def test_config_takes_nni_2_names_and_refuses_other_engines():
    config = RetiariiExeConfig("local")
    config.trial_concurrency, config.trial_gpu_number = 2, 1
    config.training_service.use_active_gpu = True
    config.execution_engine = "base"
    with pytest.raises(InputError, match="execution_engine 'base' does not fit"):
        RetiariiExperiment(*parts(), [], strategy.DARTS()).run(config)
