"""Amounts, hard limits and soft targets."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from experiments.costs import latency_table
from experiments.costs.budget import Budget, read_budget
from experiments.costs.limits import Limits, Target, cheapest
from experiments.oneshot.options import Options
from experiments.oneshot.search import cost_model
from experiments.run.amounts import parse_amount, written
from experiments.testing import CFG
from models.grammar import MODELS
from spaces import CostModel, Space
from tests.refusal import refused


@pytest.fixture(scope="module")
def model():
    return CostModel(Space("tests/assets/tiny_nas.yaml"), 64)


class Costs:
    """A model of costs that are given by hand: label to value to cost, summed."""

    def __init__(self, **names):
        self.costs, self.names = names, tuple(names)
        self.values = {label: tuple(v) for label, v in next(iter(names.values())).items()}
        self.labels = tuple(self.values)

    def least(self, weights):
        def cost(label, value):
            return sum(w * self.costs[n][label][value] for n, w in weights.items())

        return {label: min(values, key=lambda v: cost(label, v)) for label, values in self.values.items()}

    def indices(self, archs):
        return np.array([[self.values[k].index(a[k]) for k in self.labels] for a in archs])

    def batch(self, indices):
        archs = [{k: self.values[k][i] for k, i in zip(self.labels, row, strict=True)} for row in indices]
        return {n: np.array([sum(c[k][a[k]] for k in a) for a in archs]) for n, c in self.costs.items()}

    def of(self, arch):
        return {n: v.item() for n, v in self.batch(self.indices([arch])).items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("4.5G", 4.5e9), ("2M", 2e6), ("300k", 3e5), ("1e9", 1e9), ("7", 7), (" .5 b ", 5e8)),
        *(("8ms", 8), ("0.5s", 500), ("50us", 0.05), ("1.2T", 1.2e12), ("2m", 2e6)),
    ],
)
def test_amounts(text, value):
    assert parse_amount(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "G", "-1G", "0", "4.5Q", "4,5G", "1e999", "nan", "4 5G", "8msec"])
def test_what_is_no_amount(text):
    with refused(repr(text), "4.5G"):
        parse_amount(text)


@pytest.mark.parametrize(("text", "name"), [("8m", "latency"), ("4ms", "flops"), ("2s", "params")])
def test_costs_have_their_own_units(text, name):
    with refused(repr(text), "is no amount"):
        parse_amount(text, name)
    assert parse_amount("8ms", "latency") == parse_amount("8", "latency") == 8
    assert parse_amount("4k", "activations") == 4000


def test_written_as_it_is_read():
    assert [written("flops", v) for v in (4.5e9, 2e6, 1500, 12)] == ["4.5G", "2M", "1.5k", "12"]
    assert written("latency", 8.25) == "8.25 ms"


def test_options_load_no_torch():
    code = "import sys; import experiments.costs.limits; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=MODELS.parent)


def test_fits():
    limits = Limits(max_flops=100, max_latency=8)
    assert limits.any
    assert limits.fits({"flops": 100, "params": 10**9, "latency": 8.0})
    assert not limits.fits({"flops": 101, "params": 0, "latency": 1.0})
    batch = {"flops": np.array([100, 101, 1]), "latency": np.array([8.0, 1.0, 8.1])}
    assert limits.fits(batch).tolist() == [True, False, False]
    with refused("latency", "--latency-table"):
        limits.fits({"flops": 1})


def test_no_limits():
    assert not Limits().any
    assert Limits().fits({"flops": 10**12}) is True
    assert Limits().fits({"flops": np.arange(3)}).tolist() == [True] * 3
    assert Limits().violated({"flops": 1}) == ""


def test_violated():
    limits = Limits(max_flops=4.5e9, max_params=2e6, max_latency=8)
    costs = {"flops": 5.2e9, "params": 2_000_001, "latency": 7.9}
    assert limits.violated(costs) == "FLOPs 5.2G > 4.5G, parameters 2,000,001 > 2,000,000"
    assert limits.violated({**costs, "flops": 1, "params": 1, "latency": 9}) == "latency 9 ms > 8 ms"
    assert limits.violated({"flops": 1, "params": 1, "latency": 1}) == ""


def test_cheapest_is_the_least(model):
    for name in ("flops", "params"):
        arch = cheapest(model, Limits(**{f"max_{name}": 1e12}))
        assert model.of(arch)[name] == model.of(model.least({name: 1}))[name]
    assert cheapest(model, Limits()) == model.least({"flops": 1})


def test_impossible_limit_is_refused_with_the_least(model):
    least = model.of(model.least({"flops": 1}))["flops"]
    cheapest(model, Limits(max_flops=least))
    with refused("--max-flops 100k", "least possible is 2.673M"):
        cheapest(model, Limits(max_flops=1e5))
    with refused(f"least possible is {least:,}"):
        cheapest(model, Limits(max_flops=least - 1))
    with refused("--latency-table"):
        cheapest(model, Limits(max_latency=1))


def test_limits_that_pull_apart():
    pulling = Costs(
        flops={"a": {0: 1, 1: 3, 2: 9}, "b": {0: 1, 1: 3, 2: 9}},
        params={"a": {0: 9, 1: 3, 2: 1}, "b": {0: 9, 1: 3, 2: 1}},
    )
    limits = Limits(max_flops=6, max_params=6)
    assert limits.fits(pulling.of(cheapest(pulling, limits)))
    tight = Limits(max_flops=5, max_params=5)  # each alone can be kept
    assert not tight.fits(pulling.of(cheapest(pulling, tight)))


class Told:
    """A latency that nothing composes: that of the smaller kernel is 1 ms, of others 2 ms."""

    name, unit, settings = "latency", "ms", {}

    def __init__(self):
        self.asked = []

    def __call__(self, archs):
        self.asked += archs
        return [2.0 - (arch["nasconv_0"] == 1) for arch in archs]


def test_a_latency_that_is_told_bounds_archs_that_keep_the_other_limits(model):
    space, told = Space("tests/assets/tiny_nas.yaml"), Told()
    archs = [{**space.upstream(), "nasconv_0": i, "c3_4": j} for i in range(2) for j in range(2)]
    params = [model.of(arch)["params"] for arch in archs]
    budget = Budget(model, Limits(max_params=max(params) - 1, max_latency=1), latency=told)
    told.asked.clear()
    small = [p < max(params) for p in params]
    assert budget.feasible(archs) == [ok and arch["nasconv_0"] == 1 for arch, ok in zip(archs, small, strict=True)]
    assert told.asked == [arch for arch, ok in zip(archs, small, strict=True) if ok]
    assert Budget(model, Limits(max_latency=1), latency=told).feasible(archs) == [False, False, True, True]
    with refused("no arch was found that keeps all limits; the nearest has latency 1 ms > 0.5 ms"):
        Budget(model, Limits(max_latency=0.5), latency=told)


def test_the_fast_archs_need_not_be_the_least_in_any_count(model):
    fastest = model.least({"flops": -1.0})

    class Slow(Told):
        def __call__(self, archs):
            self.asked += archs
            return [1.0 + sum(arch[k] != v for k, v in fastest.items()) for arch in archs]

    told = Slow()
    assert Budget(model, Limits(max_latency=1), latency=told).cheapest() == fastest
    assert Budget(model, Limits(max_latency=3), latency=told).feasible([fastest]) == [True]
    with refused("no arch was found that keeps all limits; the nearest has latency 1 ms > 0.5 ms"):
        Budget(model, Limits(max_latency=0.5), latency=told)
    params = Limits(max_params=model.of(fastest)["params"] - 1, max_latency=2)
    assert told([Budget(model, params, latency=told).cheapest()]) == [2.0]
    told.asked.clear()
    Budget(model, Limits(max_latency=99), latency=told)
    assert len(told.asked) <= 1 + len(model.names), "where one of the least will do, no other is measured"


ONESHOT = {"strategy": "darts", "cost_imgsz": 64, "data": "", "batch": 1, "imgsz": 64}


def test_latency_of_a_one_shot_search(model, tmp_path):
    task = SimpleNamespace(costs=lambda imgsz: model)
    peak = {"peak": "1T", "bandwidth": "50G"}
    written = {
        "roofline": {"costs": {"latency": {"provider": "roofline", "hw_config": peak}}},
        "cached": {"costs": {"latency": {"provider": "roofline", "hw_config": peak}}, "cache": str(tmp_path / "c.db")},
        "torch": {"costs": {"latency": {"provider": "torch"}}},
        "energy": {"costs": {"energy": {"provider": "roofline", "hw_config": {**peak, "cost": "energy"}}}},
    }

    def costs(name):
        (tmp_path / "costs.yaml").write_text(yaml.safe_dump(written[name]))
        options = Options(**ONESHOT, costs=str(tmp_path / "costs.yaml"), target_latency=1.0)
        return options, *cost_model(task, options)

    for name in ("roofline", "cached"):
        options, composed, told = costs(name)
        assert told is None
        assert "latency" in composed.names
        assert read_budget(options, composed, told).target == Target("latency", 1.0)
    options, counted, told = costs("torch")
    assert counted is model
    assert told.name == "latency"
    with refused("--target-latency: steering needs a table"):
        read_budget(options, counted, told)
    with refused("costs.yaml: does not tell latency"):
        costs("energy")


def test_a_latency_table_is_short_for_a_provider(tmp_path, monkeypatch):
    monkeypatch.setattr(latency_table.LatencyTable, "_measure_parts", lambda table, block: {"": 0.5})
    small = CostModel(Space(CFG), 32)
    file = tmp_path / "table.json"
    options = Options(**{**ONESHOT, "cost_imgsz": 32}, device="cpu", latency_table=str(file), max_latency=8.0)
    composed, told = cost_model(SimpleNamespace(costs=lambda imgsz: small), options)
    assert told is None
    assert composed.of(Space(CFG).upstream())["latency"] == pytest.approx(0.5 * len(Space(CFG).rows))
    assert file.is_file()


def test_penalty_is_two_sided_and_relative():
    target = Target("flops", 200, weight=3)
    values = {x: target.penalty({"flops": torch.tensor(x)}).item() for x in (100.0, 200.0, 300.0, 400.0)}
    assert values == {100.0: 1.5, 200.0: 0, 300.0: 1.5, 400.0: 3}
    with refused("--latency-table"):
        Target("latency", 8).penalty({"flops": torch.tensor(1.0)})


def test_penalty_has_the_gradient(model):
    target = Target("flops", 5e6, 2.0)
    torch.manual_seed(0)
    alphas = {k: torch.randn(len(v), dtype=torch.float64, requires_grad=True) for k, v in model.values.items()}

    def penalty(alphas):
        return target.penalty(model.expected({k: a.softmax(0) for k, a in alphas.items()}))

    penalty(alphas).backward()
    for label, alpha in alphas.items():
        for i in range(len(alpha)):
            step = 1e-5 * torch.eye(len(alpha), dtype=torch.float64)[i]
            with torch.no_grad():
                up, down = (penalty({**alphas, label: alpha + sign * step}).item() for sign in (1, -1))
            assert (0 if alpha.grad is None else alpha.grad[i].item()) == pytest.approx(
                (up - down) / 2e-5, rel=1e-5, abs=1e-9
            )
    assert sum(a.grad.abs().sum() for a in alphas.values() if a.grad is not None) > 0.1


@pytest.mark.parametrize("value", [4e6, 10e6])
def test_steering_meets_the_target(model, value):
    alphas = {k: torch.zeros(len(v), requires_grad=True) for k, v in model.values.items()}
    optimizer, target = torch.optim.Adam(alphas.values(), 0.05), Target("flops", value)

    def expected():
        return model.expected({k: a.softmax(0) for k, a in alphas.items()})

    assert abs(expected()["flops"].item() / value - 1) > 0.2
    for _ in range(150):
        optimizer.zero_grad()
        target.penalty(expected()).backward()
        optimizer.step()
    assert expected()["flops"].item() == pytest.approx(value, rel=0.03)
