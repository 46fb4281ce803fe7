"""From probabilities, and from ratings, to an arch within the limits."""

import itertools
import math
import random

import pytest

from experiments.oneshot import derive
from experiments.oneshot.derive import most_probable


class Prices:
    """A budget of a price for every value."""

    def __init__(self, prices, limit):
        self.prices, self.limit, self.asked = prices, limit, []

    def of(self, arch):
        return sum(self.prices[label][value] for label, value in arch.items())

    def feasible(self, archs):
        self.asked += archs
        return [self.of(arch) <= self.limit for arch in archs]

    def cheapest(self):
        return {label: min(p, key=p.get) for label, p in self.prices.items()}


def random_problem(rng, decisions, values, share):
    """Probabilities, and a budget of that share of the way from the cheapest to the dearest."""
    probabilities, prices = {}, {}
    for i in range(decisions):
        weights = [rng.random() ** 3 for _ in range(values(rng))]
        probabilities[f"d{i}"] = {f"v{j}": w / sum(weights) for j, w in enumerate(weights)}
        prices[f"d{i}"] = {value: rng.random() * rng.choice([1, 5]) for value in probabilities[f"d{i}"]}
    low = sum(min(p.values()) for p in prices.values())
    high = sum(max(p.values()) for p in prices.values())
    return probabilities, Prices(prices, low + share * (high - low))


def log_probability(probabilities, arch):
    return sum(math.log(probabilities[label][value]) for label, value in arch.items())


def all_archs(probabilities):
    return [dict(zip(probabilities, values, strict=True)) for values in itertools.product(*probabilities.values())]


def test_without_limits_every_decision_takes_its_most_probable_value():
    assert most_probable({"a": {1: 0.2, 2: 0.8}, "b": {"x": 1.0}}) == {"a": 2, "b": "x"}


@pytest.mark.parametrize("seed", range(30))
def test_archs_come_in_the_exact_order_of_their_probability(seed):
    rng = random.Random(seed)
    probabilities, budget = random_problem(rng, rng.randint(1, 5), lambda r: r.randint(1, 4), -1)
    budget.cheapest = lambda: pytest.fail("the order is not at its end")
    archs = all_archs(probabilities)
    budget.feasible = lambda found: (budget.asked.extend(found), [False] * len(found))[1]
    with pytest.raises(pytest.fail.Exception):
        most_probable(probabilities, budget)
    assert len(budget.asked) == len(archs)
    assert all(arch in budget.asked for arch in archs)
    order = [log_probability(probabilities, arch) for arch in budget.asked]
    assert order == pytest.approx(sorted(order, reverse=True))


@pytest.mark.parametrize("seed", range(20))
def test_the_most_probable_arch_within_the_limits_by_brute_force(seed):
    rng = random.Random(seed)
    probabilities, budget = random_problem(rng, 6, lambda r: 3, rng.choice([0, 0.1, 0.3, 0.7]))
    found = most_probable(probabilities, budget)
    assert budget.of(found) <= budget.limit
    best = max(log_probability(probabilities, a) for a in all_archs(probabilities) if budget.of(a) <= budget.limit)
    assert log_probability(probabilities, found) == pytest.approx(best)


def test_an_almost_impossible_limit_leaves_the_cheapest():
    probabilities, budget = random_problem(random.Random(0), 40, lambda r: 3, 0)
    assert most_probable(probabilities, budget) == budget.cheapest()


def test_where_the_order_is_too_long_the_climb_comes_near(monkeypatch):
    monkeypatch.setattr(derive, "_TRIED_IN_ORDER", 0)
    behind = []
    for seed in range(40):
        rng = random.Random(seed)
        probabilities, budget = random_problem(rng, 6, lambda r: 3, rng.choice([0.1, 0.2, 0.4]))
        found = most_probable(probabilities, budget)
        assert budget.of(found) <= budget.limit
        best = max(log_probability(probabilities, a) for a in all_archs(probabilities) if budget.of(a) <= budget.limit)
        behind.append(best - log_probability(probabilities, found))
    assert sum(b < 1e-9 for b in behind) >= 32
    assert min(behind) > -1e-9


def test_probabilities_of_zero_are_no_trouble():
    budget = Prices({"a": {0: 1, 1: 2}, "b": {0: 1, 1: 2}}, 2)
    assert most_probable({"a": {0: 0.0, 1: 1.0}, "b": {0: 0.0, 1: 1.0}}, budget) == {"a": 0, "b": 0}
