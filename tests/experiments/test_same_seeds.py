"""The same seeds give the archs that they gave before there was one ask-and-tell: tests/assets/archs_by_seed.json."""

import json
from pathlib import Path

import pytest
import torch

from experiments import strategy, testing
from experiments.costs import parse_range
from experiments.search import Domain, Genetic, Objective, Search, evaluate, make_searcher
from spaces.nni_compat import SequentialExecutionEngine
from tests.experiments import searchers_toys, strategies_toys
from tests.experiments.multi_trial import toy

THEN = json.loads((Path(__file__).parents[1] / "assets/archs_by_seed.json").read_text())
BUDGETS = {"gp": 14}


@pytest.mark.parametrize("case", THEN["searchers"])
def test_searchers(case):
    name, how = case.split()
    ranges = [parse_range("flops=20:45")] if how == "ranged" else []
    domain = Domain(testing.DECISIONS, [testing.Flops()], ranges)
    objectives = testing.BOTH[:1] if how == "single" else testing.BOTH
    found = Search(domain, objectives, make_searcher(name, population=6), budget=BUDGETS.get(name, 24), seed=3)
    archs = []
    while (asked := found.ask()) is not None:
        archs.append(list(asked.indices))
        failed = len(archs) % 9 == 8
        found.tell(asked, None if failed else {"accuracy": testing.accuracy(asked.arch)})
    assert archs == THEN["searchers"][case]


@pytest.mark.parametrize("case", THEN["genetic"])
def test_generations_of_spos(case):
    def cheap(archs):
        named = [dict(zip(searchers_toys.LARGER, arch, strict=True)) for arch in archs]
        return [searchers_toys.larger_losses(arch)[1] < 22 for arch in named]

    allows = {"free": None, "budget": cheap, "narrow": lambda archs: [sum(arch) <= 1 for arch in archs]}[case]
    domain = Domain(searchers_toys.LARGER, allows=allows, known=[(0,) * 6])
    found = Search(domain, [Objective("rating", True)], Genetic(8, top=3), budget=40, seed=4)

    def rate(arch):
        return float("nan") if arch["d0"] == arch["d1"] == 2 else -searchers_toys.larger_losses(arch)[0]

    evaluate(found, "rating", rate)
    assert [list(result.arch.values()) for result in found.results()] == THEN["genetic"][case]


@pytest.mark.parametrize("case", THEN["multi_trial"])
def test_multi_trial_strategies(case):
    name, how = case.rsplit(" ", 1)
    make = {
        "random": strategy.Random,
        "grid": strategy.GridSearch,
        "grid in order": lambda **kw: strategy.GridSearch(shuffle=False, **kw),
        "rl": lambda **kw: strategy.PolicyBasedRL(samples_per_update=4, **kw),
    }[name]
    searcher = make(seed=5, feasible=None if how == "free" else lambda arch: sum(toy.indices(arch.values())) % 3 != 1)
    searcher(toy.space(), SequentialExecutionEngine(max_model_count=24))
    assert [list(trial.indices) for trial in searcher.trials] == THEN["multi_trial"][case]


@pytest.mark.skipif(THEN["torch"] != torch.__version__, reason="of another PyTorch the last digits are others")
@pytest.mark.parametrize("name", THEN["oneshot"])
def test_one_shot_strategies(name):
    found = strategies_toys.search(name, epochs=2, seed=7)
    assert json.loads(json.dumps(found.oneshot_module.export())) == THEN["oneshot"][name]
