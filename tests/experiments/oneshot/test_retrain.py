"""What is trained after a search, and what is said of it."""

import json
import random
from types import SimpleNamespace

import pytest

from experiments.oneshot import retrain
from experiments.oneshot.report import difference, verdicts
from experiments.oneshot.retrain import Retraining, random_archs
from experiments.run.folder import RunFolder
from spaces import CostModel, Space

SPACE = "tests/assets/tiny_nas.yaml"


class Task:
    """A network's metric is how many were trained before."""

    def __init__(self, monkeypatch):
        self.trained = []
        monkeypatch.setattr(retrain, "train_alone", self.train)

    def network(self, cfg):
        return cfg

    def train(self, task, network, options, epochs, accelerator, callbacks, **given):
        self.trained.append((network, epochs, given["seed"]))
        assert given["part"] == "all"

    def calibrated(self, network):
        return network

    def measure(self, network, calibrated):
        return float(len(self.trained))


def test_what_is_done_is_not_done_again_after_a_resume(tmp_path, monkeypatch):
    run, task, kept = RunFolder(tmp_path, "exp"), Task(monkeypatch), []
    given = task, run, SimpleNamespace(seed=5, seeds=2, batch=4), 3, "cpu"
    train = Retraining(*given)
    assert train("derived", "scratch", "a", then=kept.append) == [1.0, 2.0]
    assert train("plain", "scratch", "b") == [3.0, 4.0]
    assert kept == ["a"], "of the first seed alone"
    assert train.has_done("derived", "scratch")
    assert not train.has_done("derived", "inherited")
    again = Retraining(*given, resume=True)
    assert (
        again("derived", "scratch", "a", then=kept.append),
        again("plain", "scratch", "b"),
        again("random0", "scratch", "c"),
    ) == (
        [1.0, 2.0],
        [3.0, 4.0],
        [5.0, 6.0],
    )
    assert task.trained == [(name, 3, seed) for name in "abc" for seed in (5, 6)]
    assert kept == ["a"]
    assert json.loads((run.path / "retrained.json").read_text())["derived_2"] == 2.0
    # A new run in the same folder begins anew.
    assert Retraining(*given)("derived", "scratch", "a") == [7.0, 8.0]


def test_random_archs_are_different_and_within_the_budget_and_of_the_same_cost():
    class Even:
        def feasible(self, archs):
            return [arch["nasconv_0"] == 2 for arch in archs]

    space = Space(SPACE)
    costs = CostModel(space, 64)
    for like in ({**space.sample(random.Random(i)), "nasconv_0": 2} for i in range(2)):
        archs = random_archs(space, costs, like, 3, 0, Even())
        assert archs == random_archs(space, costs, like, 3, 0, Even()) != random_archs(space, costs, like, 3, 1, Even())
        assert len({json.dumps(a) for a in archs}) == 3
        assert all(space.complete(a) == a and a["nasconv_0"] == 2 for a in archs)
        flops = [costs.of(a)["flops"] for a in archs]
        assert flops == pytest.approx([costs.of(like)["flops"]] * 3, rel=0.05)
        assert like not in archs
    assert random_archs(space, costs, like, 0, 0, Even()) == []


def test_where_there_are_fewer_they_are_fewer():
    space = Space({"nc": 2, "backbone": [[-1, 1, "Conv", [{"choice": [8, 16]}]]]})
    assert random_archs(space, CostModel(space, 64, classifier=True), space.upstream(), 2, 0, None) == []


def test_a_difference_has_a_sign_and_an_interval():
    assert difference([0.75], [0.5]) == "0.2500 better"
    assert difference([0.5], [0.75]) == "0.2500 worse"
    # Of 0.1, 0.2, 0.3: 0.2 ± 4.3027 x 0.1 / sqrt(3).
    assert difference([0.1, 0.2, 0.3], [0.0] * 3) == "0.2000 better [-0.0484, +0.4484], which may be chance,"
    assert difference([0.1, 0.1, 0.11], [0.0] * 3).endswith("better [+0.0890, +0.1177]")


def test_verdicts_are_honest():
    results = {
        "derived": {"from_scratch": [0.6, 0.7]},
        "plain": {"from_scratch": [0.5, 0.5]},
        "random": [{"from_scratch": [0.4, 0.9]}, {"from_scratch": [0.8, 0.9]}],
        "retrained": {"seeds": 2},
    }
    (line,) = verdicts(results)
    assert line.startswith("from scratch: 0.1500 better [")
    assert "0.1000 worse" in line, "0.6 - 0.6 and 0.7 - 0.9"
    assert line.endswith("the mean of 2 random archs of its cost (the best of them 0.8500)")
    assert "random" not in verdicts({**results, "random": []})[0]
    assert verdicts({**results, "plain": {}}) == []
    one = {k: {"from_scratch": [0.5]} for k in ("derived", "scratch", "plain")} | {"retrained": {"seeds": 1}}
    assert "--seeds 2" in verdicts(one)[-1]
