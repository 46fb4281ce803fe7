"""Multi-trial searches of NNI's model spaces: what a trial reports, and which archs are asked for."""

import random
from pathlib import Path

import nni
import pytest
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.space import SimplifiedModelSpace

import multi_trial_nas
from experiments import RetiariiExeConfig, RetiariiExperiment, strategy
from experiments.multi_trial.network_candidate import WrittenDecisions, check, run_trial, training_of
from experiments.multi_trial.network_search import _Written
from experiments.multi_trial.options import Options, Training
from experiments.nni_experiment.engine import decode, encode
from experiments.run.early import check_search
from experiments.run.options import made
from models import InputError, count_params
from models.plugins import load_plugin
from spaces.hub import NetworkSpace

MINE = Path(__file__).parents[2] / "assets" / "nni_space.py"
BENCH = "nni:NasBench101(stem_out_channels=2, num_stacks=1, num_modules_per_stack=1)"


def options(*words):
    given = ["--epochs", "1", "--imgsz", "8", "--batch", "512", "--device", "cpu", "--threads", "1"]
    return multi_trial_nas.parse([*given, *words])


@pytest.fixture
def reports(monkeypatch, tmp_path):
    found = []
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr(nni, "report_intermediate_result", found.append)
    monkeypatch.setattr(nni, "report_final_result", found.append)
    monkeypatch.setattr(nni.trial, "_params", {"parameters": {}})
    return found


def test_a_trial_trains_the_network_of_its_arch_and_leaves_its_weights(reports, tmp_path):
    load_plugin(MINE)
    training = training_of(made(Options, options("--space", f"nni:{MINE}:MySpace(width=2)")))
    space = NetworkSpace(f"nni:{MINE}:MySpace(width=2)", 10, 8)
    arch = space.sample(random.Random(1))
    written = {k: space.written()[k][d.values.index(arch[k])] for k, d in space.decisions.items()}
    assert written["inputs"] in ("[0, 1]", "[0, 2]", "[1, 2]")
    run_trial(Training(**training), written)
    network = space.network(arch)
    network.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True)["state_dict"])
    assert len(reports) == 2
    assert reports[-1]["params"] == count_params(network)
    assert {"default", "accuracy", "unseen", "flops"} <= set(reports[-1])
    reports.clear()
    run_trial(Training(**{**training, "max_params": 3}), written)
    assert [r["infeasible"] for r in reports] == [1]


def test_archs_keep_the_constraints_of_the_space():
    space = NetworkSpace(BENCH, 10, 8)
    written, rng = _Written(space, None), random.Random(0)
    drawn = [{k: rng.choice(v) for k, v in written.values.items()} for _ in range(20)]
    valid = written.feasible(drawn)
    assert set(valid) == {True, False}
    assert written.feasible([written.cheapest()]) == [True]
    built = SimplifiedModelSpace.from_model(WrittenDecisions(written.values), FunctionalEvaluator(abs))
    assert {str(label) for label in built.simplify()} == set(space.decisions)
    for arch, ok in zip(drawn, valid, strict=True):
        assert decode(built, encode(arch)) == arch
        if ok:
            space.network(space.read(arch))


def test_a_users_own_space_by_retiarii_experiment(tmp_path):
    load_plugin(MINE)
    space, seen = NetworkSpace(f"nni:{MINE}:MySpace(width=2)", 10, 8), []

    def evaluate(network):
        seen.append(tuple(network(torch.zeros(1, 3, 8, 8)).shape))
        nni.report_final_result(float(len(seen)))

    config = RetiariiExeConfig("local")
    config.execution_engine, config.max_trial_number = "sequential", 3
    config.experiment_working_directory = tmp_path
    searched = strategy.Random(seed=0)
    experiment = RetiariiExperiment(space.build(), FunctionalEvaluator(evaluate), [], searched)
    experiment.run(config)
    assert seen == [(1, 10)] * 3
    assert all(space.complete(t.arch) == space.complete(space.lists(t.arch)) for t in searched.trials)
    (best,) = experiment.export_top_models(formatter="dict")
    assert space.complete(best) == space.complete(searched.trials[-1].arch)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--inherit", "runs/x"], "--inherit: is of a YAML's space"),
        (["--max-latency", "8ms"], "--max-latency: is of a YAML's space"),
    ],
)
def test_refuses_what_belongs_to_yamls(words, message):
    with pytest.raises(InputError, match=message):
        check(made(Options, options("--space", BENCH, *words)))


def test_refuses_other_tasks_before_anything_is_loaded():
    with pytest.raises(InputError, match="right would be --task classify"):
        check_search(options("--space", BENCH, "--task", "detect"))
