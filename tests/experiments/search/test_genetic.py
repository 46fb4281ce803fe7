"""The generations of SPOS, as a searcher."""

import math

import pytest

from experiments.search import Domain, Genetic, Objective, Search, evaluate
from spaces.choices import Decision

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


def evolve(rate, budget, searcher=None, choices=CHOICES, allows=None, known=(), seed=0):
    domain = Domain({k: Decision(k, tuple(v)) for k, v in choices.items()}, allows=allows, known=known)
    found = Search(domain, [Objective("rating", True)], searcher or Genetic(), budget=budget, seed=seed)
    evaluate(found, "rating", rate)
    return [(r.arch, r.values and r.values["rating"]) for r in found.results()]


def test_rates_the_papers_numbers_none_twice():
    spy = Spy()
    rated = evolve(spy, 300)
    assert len(rated) == len(spy.asked) == 300
    assert len({tuple(arch.values()) for arch in spy.asked}) == 300
    assert [arch for arch, _ in rated] == spy.asked
    assert all(rating == likeness(arch) for arch, rating in rated)
    numbers = Genetic()
    assert (numbers.population, numbers.mutation_probability, numbers.top) == (50, 0.1, 10)


@pytest.mark.parametrize("seed", range(3))
def test_finds_a_planted_optimum(seed):
    rated = evolve(likeness, 700, seed=seed)
    assert max(rated, key=lambda pair: pair[1]) == (PLANTED, 10)


def test_children_come_from_the_best_so_far():
    spy = Spy()
    evolve(spy, 80, Genetic(population=40, top=4, mutation_probability=0.1))
    first, second = spy.asked[:40], spy.asked[40:]
    top = sorted(first, key=lambda arch: -likeness(arch))[:4]
    for child in second[:20]:  # of two parents: every value is one of theirs
        assert all(any(parent[k] == child[k] for parent in top) for k in CHOICES)
    changes = [min(sum(parent[k] != child[k] for k in CHOICES) for parent in top) for child in second[20:]]
    assert 0 < sum(changes) / len(changes) < 2.5


def test_rates_nothing_that_is_not_allowed():
    spy = Spy()
    evolve(spy, 100, Genetic(population=20), allows=lambda archs: [sum(a) <= 4 for a in archs])
    assert len(spy.asked) > 50
    assert all(sum("abc".index(v) for v in arch.values()) <= 4 for arch in spy.asked)


def test_starts_from_what_is_known_where_chance_finds_nothing():
    spy = Spy()
    rated = evolve(
        spy, 12, Genetic(population=4), allows=lambda archs: [not any(a) for a in archs], known=[(0,) * len(CHOICES)]
    )
    assert spy.asked == [dict.fromkeys(CHOICES, "a")]
    assert len(rated) == 1


def test_stops_at_the_end_of_a_small_space():
    spy = Spy(lambda arch: 0.0)
    evolve(spy, 100, choices={"a": (1, 2), "b": (1, 2, 3)})
    assert len(spy.asked) == 6


def test_an_arch_without_a_rating_is_the_last():
    rated = evolve(lambda arch: math.nan if arch["a"] < 4 else -3.0, 6, Genetic(top=1), choices={"a": range(6)})
    assert {arch["a"] for arch, rating in rated if rating == -3.0} == {4, 5}
