"""The Gaussian process and what is expected of archs, held against other ways to compute them."""

import random

import numpy as np
import pytest

from experiments.costs import Counted
from experiments.search import Domain, Objective, Search, make_searcher
from experiments.search.gaussian_process import Features, GaussianProcess, Warp
from experiments.search.model_based import expected_hypervolume, expected_improvement
from experiments.search.pareto import hypervolume
from experiments.testing import BOTH, DECISIONS
from spaces.choices import Decision

SIZES = (3, 2, 4, 1, 3)


def made(count=40, seed=0):
    rng = np.random.default_rng(seed)
    archs = rng.integers(0, SIZES, (count, len(SIZES)))
    targets = archs[:, 0] + 0.5 * (archs[:, 2] == 1) - 0.3 * archs[:, 0] * archs[:, 1]
    return archs, np.log(1.0 + archs.sum(1, keepdims=True)), targets.astype(float)


def test_distances_summed_are_the_sum_of_distances():
    features, weights = Features(SIZES, (True, True, False, True, True)), np.array([0.5, 2.0, 1.0, 3.0])
    a, b = made(7)[0], made(9, 1)[0]
    apart = features.distances(a, b)
    assert apart.shape == (4, 7, 9)
    assert (apart.min(), apart.max()) == (0, 1)
    assert features.weighted(weights, a, b) == pytest.approx(np.tensordot(weights, apart, 1))
    names = features.distances(np.array([[0, 0, 0, 0, 0]]), np.array([[0, 0, 1, 0, 0], [0, 0, 3, 0, 0]]))[2]
    assert names.tolist() == [[1, 1]], "of names none is nearer than another"


def test_the_posterior_is_that_of_scikit_learn():
    """With the hyperparameters that were found, by another implementation."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Kernel

    archs, costs, targets = made()
    model = GaussianProcess(Features(SIZES, (True,) * 5), archs, costs, targets)

    class Ours(Kernel):
        hyperparameters = ()
        theta = np.zeros(0)

        def __call__(self, a, b=None, eval_gradient=False):
            b = a if b is None else b
            return model._kernel(a[:, 1:].astype(int), b[:, 1:].astype(int), a[:, :1], b[:, :1])

        def diag(self, a):
            return np.diag(self(a))

        def is_stationary(self):
            return False

        def get_params(self, deep=True):
            return {}

    scaled = (targets - targets.mean()) / targets.std()
    theirs = GaussianProcessRegressor(Ours(), alpha=np.exp(model._hyper[-1]) + 1e-6, optimizer=None)
    theirs.fit(np.hstack([model.costs, archs]), scaled)
    others, other_costs, other_targets = made(200, 1)
    mean, sd = theirs.predict(np.hstack([model._scaled(other_costs), others]), return_std=True)
    ours = model.predict(others, other_costs)
    assert ours[0] == pytest.approx(targets.mean() + targets.std() * mean)
    assert ours[1] == pytest.approx(targets.std() * sd, abs=1e-4)
    assert np.corrcoef(ours[0], other_targets)[0, 1] > 0.98


def test_the_gradient_is_that_of_differences(monkeypatch):
    from scipy import optimize

    archs, costs, targets = made()

    def look(loss, start, **kwargs):
        for at in (start, start + np.linspace(-0.5, 0.7, len(start))):
            numeric = optimize.approx_fprime(at, lambda x: loss(x)[0], 1e-6)
            assert loss(at)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-3)
        return found(loss, start, **kwargs)

    found = optimize.minimize
    monkeypatch.setattr(optimize, "minimize", look)
    GaussianProcess(Features(SIZES, (True,) * 5), archs, costs, targets)


def test_a_warp_goes_back_and_keeps_the_order():
    losses = np.array([3.0, -1.0, 4.0, 1.0, 50.0])
    warp = Warp(losses)
    assert warp.inverse(warp(losses)) == pytest.approx(losses)
    assert (warp(losses).argsort() == losses.argsort()).all()
    assert np.isfinite(Warp(np.ones(4))(np.ones(4))).all()


def test_expected_improvement_is_the_mean_of_improvements():
    mean, sd = np.array([0.0, 1.0, -0.5]), np.array([1.0, 0.3, 0.1])
    drawn = mean + sd * np.random.default_rng(0).standard_normal((200_000, 3))
    assert expected_improvement(0.2, mean, sd) == pytest.approx(np.maximum(0.2 - drawn, 0).mean(0), abs=0.01)


def test_expected_hypervolume_is_the_mean_of_what_is_added():
    losses = np.array([[0.1, 9.0], [0.4, 5.0], [0.8, 2.0], [0.9, 6.0]])
    reference, cost = np.array([1.0, 10.0]), np.array([1.0, 3.0, 5.0, 7.0, 9.5])
    nodes = np.linspace(-0.2, 1.1, 5)[:, None] + 0.1 * np.arange(12)
    from experiments.search.model_based import _NODE_WEIGHTS

    before = hypervolume(losses, reference)
    added = [
        sum(
            w * (hypervolume(np.vstack([losses, [y, c]]), reference) - before)
            for w, y in zip(_NODE_WEIGHTS, row, strict=True)
        )
        for row, c in zip(nodes, cost, strict=True)
    ]
    assert expected_hypervolume(losses, reference, nodes, cost) == pytest.approx(np.array(added))


class Ones(Counted):
    unit = ""

    def __init__(self):
        self.name, self.settings = "ones", {}

    def __call__(self, archs):
        return [1.0 + sum(a.values()) for a in archs]


def test_in_a_space_too_large_to_list_it_finds_what_random_search_does_not():
    decisions = {f"d{i}": Decision(f"d{i}", (0, 1, 2)) for i in range(20)}
    rng = random.Random(1)
    right = {label: rng.randrange(3) for label in decisions}
    worth = {label: rng.random() for label in decisions}

    def best(name):
        found = Search(Domain(decisions, [Ones()]), [Objective("accuracy", True)], make_searcher(name), budget=40)
        while (asked := found.ask()) is not None:
            found.tell(asked, {"accuracy": -sum(worth[k] * abs(v - right[k]) for k, v in asked.arch.items())})
        return max(r.values["accuracy"] for r in found.results())

    assert best("predictor") > 0.5 * best("random")


def test_it_begins_with_both_ends_and_all_costs():
    class Cost(Ones):
        def __call__(self, archs):
            return [float(a["width"] * a["depth"]) for a in archs]

    found = Search(Domain(DECISIONS, [Cost()]), BOTH[:1], make_searcher("predictor", population=8), budget=8)
    asked = []
    while (a := found.ask()) is not None:
        asked.append(a)
        found.tell(a, {"accuracy": 0.5})
    assert [a.indices for a in asked[:2]] == [(0, 0, 0, 0), (2, 2, 2, 2)]
    costs = sorted(a.costs["ones"] for a in asked)
    assert len({a.indices for a in asked}) == 8
    assert sum(c <= 24 for c in costs) >= 3
    assert sum(c > 24 for c in costs) >= 3
