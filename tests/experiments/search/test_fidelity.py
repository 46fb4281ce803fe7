"""Statistics of rankings, beside SciPy's and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.search.fidelity import (
    cost_bands,
    fidelity,
    noise_ceiling,
    spearman,
    tau_b,
    tau_interval,
    tau_within,
    top_regret,
)


def drawn(n=40, noise=1.0, ties=False, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(n)
    score = truth + noise * rng.standard_normal(n)
    return (truth.round(), score.round()) if ties else (truth, score)


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_scipys(ties):
    truth, score = drawn(ties=ties)
    assert tau_b(truth, score) == pytest.approx(stats.kendalltau(truth, score).statistic)
    assert spearman(truth, score) == pytest.approx(stats.spearmanr(truth, score).statistic)
    assert tau_b(truth, np.ones(40)) == spearman(truth, np.ones(40)) == 0


def test_an_interval_has_the_truth_in_it_as_often_as_it_says():
    """Of normal variables with correlation r, tau is 2 / pi asin(r)."""
    tau = 2 / math.pi * math.asin(1 / math.sqrt(2))
    found = [tau_interval(*drawn(seed=seed), samples=200) for seed in range(100)]
    assert 85 <= sum(low <= tau <= high for low, high in found) <= 100
    assert np.mean([high - low for low, high in found]) < 0.4


def test_size_ranks_well_over_all_and_not_within_bands():
    rng = np.random.default_rng(0)
    cost = np.repeat([1.0, 2.0, 3.0, 4.0], 50) + 0.01 * rng.random(200)
    truth = np.floor(cost) + 0.5 * rng.random(200)
    found = fidelity(truth, cost, cost)
    assert found.tau > 0.7
    assert abs(found.within) < 0.3
    perfect = fidelity(truth, truth, cost)
    assert (perfect.tau, perfect.within, perfect.regret[1], perfect.within_regret[1]) == (1, 1, 0, 0)


def test_pairs_within_bands_are_pooled():
    truth, score = np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 2, 9, 8, 7])
    parts = [np.array([0, 1]), np.array([2, 3, 4])]
    assert tau_within(truth, score, parts) == pytest.approx((1 - 3) / 4)
    assert [sorted(p.tolist()) for p in cost_bands(np.array([5.0, 1, 4, 2, 3]), 2)] == [[1, 3, 4], [0, 2]]


def test_regret_takes_the_worse_of_equals():
    truth, score = np.array([0.9, 0.5, 0.7, 0.8]), np.array([1.0, 3, 2, 2])
    assert [top_regret(truth, score, k) for k in (1, 2, 3, 4)] == pytest.approx([0.4, 0.2, 0.1, 0])


def test_a_ceiling_needs_two_trainings():
    truth, score = drawn()
    assert math.isnan(noise_ceiling(truth[None]))
    assert noise_ceiling(np.stack([truth, score])) == tau_b(truth, score)


def test_who_knows_the_band_alone_knows_nothing():
    cost = np.repeat(np.arange(5.0), 20)
    truth = cost + np.random.default_rng(0).random(100)
    bands = cost_bands(cost)
    assert tau_b(truth, cost) > 0.8
    assert tau_within(truth, cost, bands) == 0
    inverse = 10 * cost - truth
    assert tau_b(truth, inverse) > 0.5
    assert tau_within(truth, inverse, bands) == -1


def test_the_interval_within_bands_is_that_of_the_tau_within_bands():
    rng = np.random.default_rng(0)
    cost, truth = rng.random(80), rng.random(80)
    score, bands = truth + rng.random(80) + 10 * cost, cost_bands(cost)
    low, high = tau_interval(truth, score, bands, samples=200)
    assert low < tau_within(truth, score, bands) < high < low + 0.5
    assert tau_b(truth, score) < low, "over all archs the cost is all it shows"
    assert tau_interval(truth, score, [np.arange(80)], samples=200) == tau_interval(truth, score, samples=200)
