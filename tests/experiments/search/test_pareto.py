"""Fronts, hypervolumes, knees, and the model that chooses among archs."""

import random

import numpy as np
import pytest

from experiments.search import Domain, Search, make_searcher
from experiments.search.base import Evaluated, History
from experiments.search.pareto import front, hypervolume, hypervolume_history, knee, reference_point
from experiments.search.predictor import CANDIDATES, Predictor, encode, rank_correlation
from experiments.testing import BOTH
from tests.experiments.searchers_toys import LARGER, LargerFlops, larger_losses


def brute_front(losses):
    def beaten(i):
        return any((other <= losses[i]).all() and (other < losses[i]).any() for other in losses)

    return [not beaten(i) for i in range(len(losses))]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_front_is_the_definition(objectives):
    losses = np.random.default_rng(0).random((40, objectives))
    assert front(losses).tolist() == brute_front(losses)


def test_of_equals_the_first_is_on_the_front():
    assert front(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])).tolist() == [True, False, True]


def test_no_archs_no_front():
    assert front(np.zeros((0, 2))).tolist() == []


def test_hypervolume_by_hand():
    losses = np.array([[1.0, 3.0], [2.0, 1.0], [3.0, 3.0]])
    assert hypervolume(losses, np.array([4.0, 4.0])) == pytest.approx(3 * 1 + 2 * 2)
    assert hypervolume(np.array([[1.0], [2.0]]), np.array([4.0])) == 3.0
    assert hypervolume(np.array([[1.0, 1.0, 1.0]]), np.array([2.0, 3.0, 4.0])) == pytest.approx(6.0)
    assert hypervolume(np.array([[5.0, 0.0]]), np.array([4.0, 4.0])) == 0.0


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_history_is_the_hypervolume_of_every_beginning(objectives):
    losses = np.random.default_rng(1).random((25, objectives))
    reference = reference_point(losses)
    history = hypervolume_history(losses, reference)
    assert history == pytest.approx([hypervolume(losses[: i + 1], reference) for i in range(25)])
    assert (np.diff(history) >= 0).all()


def test_the_reference_is_behind_everything():
    losses = np.array([[0.0, -3.0], [10.0, -3.0]])
    assert reference_point(losses) == pytest.approx([11.0, -2.7])


def test_the_knee_bulges_most():
    losses = np.array([[0.0, 100.0], [1.0, 20.0], [5.0, 15.0], [10.0, 0.0], [9.0, 90.0]])
    assert knee(losses) == 1


def test_the_knee_lies_on_the_front():
    assert knee(np.array([[0.0, 0.0], [0.0, 0.0], [5.0, 5.0]])) == 0


def history_of(number, seed=0):
    rng = random.Random(seed)
    domain = Domain(LARGER, [LargerFlops()])
    archs = list(dict.fromkeys(domain.draw(rng) for _ in range(2 * number)))[:number]
    evaluated = [Evaluated(a, larger_losses(domain.arch(a))) for a in archs]
    return domain, History(evaluated, set(archs), number, 999)


class TestPredictor:
    def test_encoding(self):
        x = encode([(0, 2), (1, 1)], (2, 3))
        assert x.tolist() == [[1, 0, 0, 0, 1, 0, 1], [0, 1, 0, 1, 0, 1, 0.5]]

    @pytest.mark.parametrize("kind", ["mlp", "gp"])
    def test_ranks_what_can_be_learnt_and_says_where_nothing_can(self, kind):
        domain, history = history_of(75)
        x = encode(history.good, domain.sizes)
        assert rank_correlation(kind, x, history.losses[:, 0]) > 0.8
        noise = np.random.default_rng(0).random(75)
        assert abs(rank_correlation(kind, x, noise)) < 0.4

    def test_chooses_the_best_where_it_is_trusted(self):
        domain, history = history_of(75)
        told = []
        predictor = Predictor(domain, ["flops"], "gp", lambda count, tau: told.append((count, tau)))
        candidates = [(0, 0, 0, 0, 0, 2), (2, 1, 2, 2, 2, 2)]
        for archs in (candidates, candidates[::-1]):
            assert predictor(history, archs) == (2, 1, 2, 2, 2, 2)
        assert [count for count, _ in told] == [75], "fitted once"
        assert told[0][1] > 0.8

    def test_leaves_the_choice_alone_until_it_is_trusted(self):
        domain, history = history_of(75)
        shuffled = random.Random(0).sample([e.losses for e in history.evaluated], 75)
        noise = [Evaluated(e.indices, loss) for e, loss in zip(history.evaluated, shuffled, strict=True)]
        candidates = [(0, 0, 0, 0, 0, 2), (2, 1, 2, 2, 2, 2)]
        assert Predictor(domain, ["flops"], "gp")(History(noise, set(), 75, 999), candidates) == candidates[0]
        few = History(history.evaluated[:49], set(), 49, 999)
        assert Predictor(domain, ["flops"], "gp")(few, candidates) == candidates[0]

    def test_a_search_with_it_is_a_function_of_its_seed_and_resumes(self):
        def found(budget=60):
            domain = Domain(LARGER, [LargerFlops()])
            screen = Predictor(domain, ["flops"], "gp")
            return Search(domain, BOTH, make_searcher("random"), budget=budget, screen=screen, screened=CANDIDATES)

        def archs(search, most=10**9):
            done = []
            while len(done) < most and (asked := search.ask()) is not None:
                done.append(asked.indices)
                search.tell(asked, {"accuracy": -larger_losses(asked.arch)[0]})
            return done

        whole = archs(found())
        assert len(set(whole)) == 60
        assert archs(found()) == whole
        part = found()
        assert archs(part, 55) == whole[:55]
        part.screen = Predictor(part.domain, ["flops"], "gp")  # of a new process, which was not there before
        assert archs(part) == whole[55:]
