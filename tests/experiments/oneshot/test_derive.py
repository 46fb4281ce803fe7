"""From probabilities, and from ratings, to an arch within the limits."""

import itertools
import math
import random

import pytest

from experiments.oneshot import derive
from experiments.oneshot.derive import most_probable
from experiments.oneshot.evolve import Evolution, evolve


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


CHOICES = {f"d{i}": tuple("abc") for i in range(10)}
PLANTED = dict(zip(CHOICES, "abcabcabca", strict=True))


def likeness(arch):
    return sum(arch[label] == PLANTED[label] for label in PLANTED)


class Spy:
    """A rating that keeps what it was asked."""

    def __init__(self, rate=likeness):
        self.rate, self.asked = rate, []

    def __call__(self, arch):
        self.asked.append(dict(arch))
        return self.rate(arch)


class TestEvolve:
    def test_rates_the_papers_numbers_none_twice(self):
        spy = Spy()
        rated = evolve(CHOICES, spy)
        assert len(rated) == len(spy.asked) == 50 * 20
        assert len({tuple(arch.values()) for arch in spy.asked}) == 1000
        assert [arch for arch, _ in rated] == spy.asked
        assert all(rating == likeness(arch) for arch, rating in rated)
        numbers = Evolution()
        assert (numbers.crossovers, numbers.mutations, numbers.mutation_probability, numbers.top) == (25, 25, 0.1, 10)

    @pytest.mark.parametrize("seed", range(3))
    def test_finds_a_planted_optimum(self, seed):
        rated = evolve(CHOICES, likeness, evolution=Evolution(seed=seed))
        assert max(rated, key=lambda pair: pair[1]) == (PLANTED, 10)

    def test_children_come_from_the_best_so_far(self):
        spy = Spy()
        evolve(CHOICES, spy, evolution=Evolution(population=40, generations=2, top=4, mutation_probability=0.1))
        first, second = spy.asked[:40], spy.asked[40:]
        top = sorted(first, key=lambda arch: -likeness(arch))[:4]
        for child in second[:20]:  # of two parents: every value is one of theirs
            assert all(any(parent[k] == child[k] for parent in top) for k in CHOICES)
        changes = [min(sum(parent[k] != child[k] for k in CHOICES) for parent in top) for child in second[20:]]
        assert 0 < sum(changes) / len(changes) < 2.5

    def test_the_seed_decides(self):
        few = [Evolution(population=10, generations=3, seed=seed) for seed in (0, 0, 1)]
        one, same, other = (evolve(CHOICES, likeness, evolution=e) for e in few)
        assert one == same != other

    def test_rates_nothing_beyond_the_limits(self):
        prices = Prices({label: dict(zip("abc", (1, 2, 3), strict=True)) for label in CHOICES}, 14)
        spy = Spy()
        evolve(CHOICES, spy, prices, Evolution(population=20, generations=5))
        assert len(spy.asked) > 50
        assert all(prices.of(arch) <= 14 for arch in spy.asked)

    def test_starts_from_the_cheapest_where_chance_finds_nothing(self):
        prices = Prices({label: dict(zip("abc", (0, 1, 1), strict=True)) for label in CHOICES}, 0)
        spy = Spy()
        rated = evolve(CHOICES, spy, prices, Evolution(population=4, generations=3))
        assert spy.asked == [dict.fromkeys(CHOICES, "a")]
        assert len(rated) == 1

    def test_stops_at_the_end_of_a_small_space(self):
        spy = Spy(lambda arch: 0.0)
        evolve({"a": (1, 2), "b": ([1], [2], [3])}, spy)  # values need not be hashable
        assert len(spy.asked) == 6

    def test_an_arch_without_a_rating_is_the_last(self):
        rated = evolve({"a": range(6)}, lambda arch: math.nan if arch["a"] < 5 else -3.0)
        assert max(rated, key=lambda pair: pair[1]) == ({"a": 5}, -3.0)
