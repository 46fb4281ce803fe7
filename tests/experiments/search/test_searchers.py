"""One contract for every searcher, on a space of 81 archs whose front is known."""

import itertools
import math
import random
import socket
from pathlib import Path

import numpy as np
import pytest

from experiments.costs import Counted, Range, parse_range
from experiments.run import registry
from experiments.search import Domain, Objective, Search, make_searcher, open_storage
from experiments.search.attentive import best_of_bins
from experiments.search.coarse_to_fine import skeletons
from experiments.search.grid import arch_of, coprime
from experiments.search.pareto import front
from experiments.supernets.studies import domain_of
from experiments.testing import ALL, BOTH, BUDGET, DECISIONS, Flops, SearcherContract, accuracy, domain, flops, run
from models import InputError
from spaces import CostModel, Decision, Space
from tests.experiments import searchers_toys
from tests.experiments.searchers_toys import (
    ALL_LARGER,
    best_metric,
    found_share,
    population_of,
    random_share,
    search,
)

ROOT = Path(__file__).resolve().parents[3]


class TestContract(SearcherContract):
    @pytest.fixture(autouse=True, params=registry.names("searcher"))
    def name(self, request):
        self.make = lambda: make_searcher(request.param, population=population_of(request.param))
        # Optuna's model begins after ten archs; a Gaussian process takes half a second for each that follows.
        self.budget = {"gp": 14, "tpe": 20}.get(request.param, BUDGET)
        return request.param

    def test_other_seed_other_archs(self, name):
        if name not in ("grid", "coarse-to-fine"):  # whose first archs are those of a grid
            assert run(self.search(seed=4), 20) != run(self.search(seed=3), 20)

    def test_finds_the_front_better_than_random(self, name):
        if name in ("random", "grid"):
            pytest.skip("is what the others are compared with")
        if make_searcher(name).most_objectives == 1:
            best = [np.mean([best_metric(one, seed) for seed in range(8)]) for one in (name, "random")]
            assert best[0] > best[1] + 0.02
            return
        few = {"gp": 1, "tpe": 2, "predictor": 1}
        seeds, budget = range(few.get(name, 8)), {"gp": 25, "predictor": 30}.get(name, 60)
        assert np.mean([found_share(name, seed, budget) for seed in seeds]) > random_share() + 0.02


@pytest.mark.parametrize("searcher", ["random", "tpe", "predictor"])
def test_some_archs_are_asked_first_where_they_are_feasible(searcher):
    first = [max(ALL, key=flops), ALL[7], ALL[3]]
    within = f"flops=:{flops(first[0]) - 1}"
    assert flops(ALL[7]) < flops(first[0])
    found = search(searcher, within, first=first)
    archs = run(found)
    assert archs[:2] == [ALL[7], ALL[3]]
    assert first[0] not in archs
    assert len({tuple(a.values()) for a in archs}) == len(archs) == BUDGET


def test_the_front_of_the_larger_space_is_worth_a_search():
    assert 8 < front(ALL_LARGER).sum() < 60
    assert random_share() < 0.95


def test_a_minimized_objective_is_minimized():
    found = search("tpe", objectives=(Objective("accuracy", True), Objective("flops", True)), budget=40)
    run(found)
    reversed_ = search("tpe", budget=40)
    run(reversed_)
    assert np.mean([r.costs["flops"] for r in found.results()]) > np.mean(
        [r.costs["flops"] for r in reversed_.results()]
    )


class TestStudy:
    @pytest.mark.parametrize(
        ("other", "arguments", "settings"),
        [
            ("seed", ["tpe"], {"seed": 1}),
            ("searcher", ["random"], {}),
            ("population", ["evolution"], {}),
            ("ranges", ["tpe", "flops=:40"], {}),
            ("objectives", ["tpe"], {"objectives": BOTH[:1]}),
            ("supernet", ["tpe"], {"settings": {"supernet": "b"}}),
        ],
    )
    def test_one_of_other_settings_is_refused(self, tmp_path, monkeypatch, other, arguments, settings):
        url = f"sqlite:///{tmp_path / 'study.db'}"
        first = "evolution" if other == "population" else "tpe"
        search(first, storage=open_storage(url), settings={"supernet": "a"})
        search(first, storage=open_storage(url), settings={"supernet": "a"})
        monkeypatch.setattr(searchers_toys, "EVOLUTION_POPULATION", 9)
        # With one objective Optuna itself refuses the other directions.
        with pytest.raises(InputError, match=rf"another setting: {other}|directions"):
            search(*arguments, storage=open_storage(url), **{"settings": {"supernet": "a"}, **settings})

    def test_a_larger_budget_goes_on(self, tmp_path):
        url = f"sqlite:///{tmp_path / 'study.db'}"
        run(search("random", budget=5, storage=open_storage(url)))
        assert len(run(search("random", budget=8, storage=open_storage(url)))) == 3

    def test_optuna_reads_the_study(self, tmp_path):
        import optuna

        url = f"sqlite:///{tmp_path / 'study.db'}"
        found = search("nsga3", storage=open_storage(url), name="subnets", budget=6)
        archs = run(found)
        study = optuna.load_study(study_name="subnets", storage=url)
        assert [t.params for t in study.trials] == archs
        assert [t.values for t in study.trials] == [[accuracy(a), flops(a)] for a in archs]
        assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]

    def test_tell_keeps_costs_and_record(self):
        found = search("random")
        asked = found.ask()
        assert asked.costs == {"flops": flops(asked.arch)}
        found.tell(asked, {"accuracy": 0.5}, {"bn": "calibrated"})
        (result,) = found.results()
        assert (result.number, result.arch, result.costs) == (0, asked.arch, asked.costs)
        assert result.values == {"accuracy": 0.5, "flops": flops(asked.arch)}
        assert result.record == {"bn": "calibrated"}

    def test_a_value_that_is_no_number_is_a_failure(self):
        found = search("random")
        asked = found.ask()
        found.tell(asked, {"accuracy": float("nan")})
        assert found.results()[0].values is None

    def test_two_that_ask_in_turn_never_ask_the_same(self, tmp_path):
        url = f"journal:{tmp_path / 'study.log'}"
        one, other = (search("evolution", "flops=:35", budget=99, storage=open_storage(url)) for _ in "ab")
        archs = []
        while True:
            pair = [one.ask(), other.ask()]
            archs += [a.arch for a in pair if a]
            for s, a in zip((one, other), pair, strict=True):
                if a:
                    s.tell(a, {"accuracy": accuracy(a.arch)})
            if None in pair:
                break
        assert len({tuple(a.values()) for a in archs}) == len(archs) == sum(flops(a) <= 35 for a in ALL)

    def test_a_race_for_one_arch_has_one_winner(self, tmp_path, monkeypatch):
        """Both look at the study before either has written what it takes."""
        url = f"journal:{tmp_path / 'study.log'}"
        one, other = (search("grid", storage=open_storage(url)) for _ in "ab")
        rival = []
        answer = one._answer

        def overtaken(trial):
            arch = answer(trial)
            if not rival:
                rival.append(None)
                rival[0] = other.ask()
            return arch

        monkeypatch.setattr(one, "_answer", overtaken)
        asked = one.ask()
        assert asked.arch != rival[0].arch
        assert len(run(one, 3)) == 3


class TestStorage:
    def test_what_it_cannot_be_is_refused_without_the_password(self):
        with pytest.raises(InputError, match="right would be sqlite") as e:
            open_storage("redis://me:secret@host")
        assert "secret" not in str(e.value)

    def test_a_server_that_does_not_answer(self):
        pytest.importorskip("psycopg")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))  # taken, and nobody listens
            with pytest.raises(InputError, match="--storage postgresql") as e:
                open_storage(f"postgresql://me:secret@127.0.0.1:{s.getsockname()[1]}/x")
        assert "secret" not in str(e.value)


class Ones(Flops):
    name = "ones"

    def __call__(self, archs):
        return [float(sum(a.values())) for a in archs]


class TestDomain:
    def test_costs_are_asked_once(self):
        provider = Flops()
        d = Domain(DECISIONS, [provider], [Range("flops", 0, 30)])
        for _ in range(3):
            d.feasible((0, 0, 0, 0))
            d.costs((0, 0, 0, 0))
        assert len(provider.asked) == 1

    def test_a_range_of_no_cost_is_refused(self):
        with pytest.raises(InputError, match="latency"):
            Domain(DECISIONS, [Flops()], [Range("latency", 0, 1)])

    def test_no_arch_within(self):
        assert domain("flops=:1").draw(random.Random(0)) is None
        assert search("random", "flops=:1").ask() is None

    def test_a_mutation_takes_another_value(self):
        d, rng = domain(), random.Random(0)
        for probability in (None, 0.0, 0.5, 1.0):
            for _ in range(50):
                changed = sum(
                    a != b for a, b in zip((0, 1, 2, 0), d.mutate((0, 1, 2, 0), rng, probability), strict=True)
                )
                assert changed == {None: 1, 0.0: 1, 1.0: 4}.get(probability, changed)
                assert changed >= 1

    def test_draws_are_uniform_within_the_ranges(self):
        d, rng = domain("flops=:35"), random.Random(0)
        inside = [a for a in ALL if flops(a) <= 35]
        counts = dict.fromkeys((tuple(a.values()) for a in inside), 0)
        for _ in range(100 * len(inside)):
            counts[tuple(d.arch(d.draw(rng)).values())] += 1
        assert min(counts.values()) > 50
        assert max(counts.values()) < 160

    def test_settles_in_a_range_that_no_draw_hits(self):
        """60 decisions: of the uniform draws none has fewer than 10 values of 1."""
        decisions = {f"d{i}": Decision(f"d{i}", (0, 1)) for i in range(60)}
        d, rng = Domain(decisions, [Ones()], [Range("ones", 3, 4)]), random.Random(0)
        found = {d.draw(rng) for _ in range(5)}
        assert len(found) == 5
        assert all(3 <= sum(a) <= 4 for a in found)

    def test_of_a_space_knows_what_is_cheap_and_what_is_of_a_kind(self):
        model = CostModel(Space(ROOT / "tests/assets/tiny_nas.yaml"), 64)
        d = domain_of(model, ["flops"], ["params=:20k"])
        rng = random.Random(0)
        archs = [d.draw(rng) for _ in range(20)]
        for arch in archs:
            costs = model.of(d.arch(arch))
            assert d.costs(arch) == {name: float(costs[name]) for name in ("params", "flops", "activations")}
            assert costs["params"] <= 20_000
            assert d.indices(d.arch(arch)) == arch
        least = model.of(d.arch((0,) * len(d.sizes)))["flops"]
        most = model.of(d.arch(tuple(n - 1 for n in d.sizes)))["flops"]
        assert all(least <= d.costs(a)["flops"] <= most for a in archs)
        assert len(set(d.groups.values())) < len(d.labels)

    def test_counted_is_the_cost_models(self):
        model = CostModel(Space(ROOT / "tests/assets/tiny_nas.yaml"), 64)
        archs = [model.space.sample(random.Random(i)) for i in range(5)]
        for name in ("params", "flops", "activations"):
            assert Counted(model, name)(archs) == [model.of(a)[name] for a in archs]


class TestRanges:
    @pytest.mark.parametrize(
        ("text", "low", "high"),
        [("flops=200M:400M", 2e8, 4e8), ("flops=:4G", -math.inf, 4e9), ("latency=5ms:", 5, math.inf)],
    )
    def test_reads(self, text, low, high):
        assert parse_range(text) == Range(text.partition("=")[0], low, high)

    @pytest.mark.parametrize("text", ["flops", "flops=", "flops=:", "flops=4G", "=1:2", "flops=3:2", "flops=a:b"])
    def test_refuses(self, text):
        with pytest.raises(InputError):
            parse_range(text)

    def test_amounts_are_exact(self):
        assert parse_range("params=:8.2M").high == 8_200_000

    def test_what_is_no_number_is_outside(self):
        assert Range("flops", high=1.0).distance(math.nan) == math.inf

    def test_both_ends_are_within(self):
        r = Range("flops", 2.0, 4.0)
        assert [r.distance(x) for x in (1, 2, 3, 4, 6)] == [0.5, 0, 0, 0, 0.5]


def test_costs_that_are_measured_are_not_asked_of_archs_that_are_too_large():
    class Latency(Flops):
        name, unit = "latency", "ms"

    class CountedFlops(Counted):
        def __init__(self):
            self.name, self.settings = "flops", {}

        def __call__(self, archs):
            return [flops(a) for a in archs]

    latency = Latency()
    ranges = [parse_range("latency=:45"), parse_range("flops=:40")]
    found = Search(Domain(DECISIONS, [CountedFlops(), latency], ranges), BOTH, make_searcher("random"), budget=20)
    run(found)
    asked = [dict(zip(DECISIONS, values, strict=True)) for values in latency.asked]
    assert asked
    assert all(flops(a) <= 40 for a in asked)


def test_a_time_below_nothing_is_refused():
    class Latency(Flops):
        name, unit = "latency", "ms"

        def __call__(self, archs):
            return [-5.0 for _ in archs]

    with pytest.raises(InputError, match="latency: its provider tells -5 ms of an arch"):
        Domain(DECISIONS, [Latency()]).costs((0,) * len(DECISIONS))


class TestGrid:
    def test_numbers_and_archs(self):
        sizes = (2, 3, 4)
        archs = [arch_of(n, sizes) for n in range(24)]
        assert archs == list(itertools.product(*map(range, sizes)))

    def test_a_stride_of_one_is_the_order(self):
        found = Search(domain(), BOTH, make_searcher("grid", stride=1), budget=10)
        assert run(found) == ALL[:10]

    def test_by_default_it_covers_the_space(self):
        numbers = [ALL.index(a) for a in run(search("grid", budget=9))]
        assert sorted(n // 9 for n in numbers) == list(range(9))

    def test_what_was_given_back_is_asked_again(self):
        found = search("grid", budget=81)
        first = found.ask()
        second = found.ask()
        found.tell(second, {"accuracy": 0.0})
        found.abandon(first)
        assert sorted(map(str, [second.arch, *run(found)])) == sorted(map(str, ALL))

    def test_coprime(self):
        assert [coprime(s, 12) for s in (0, 1, 2, 5, 6)] == [1, 1, 5, 5, 7]


def test_best_of_bins():
    losses = np.array([[3.0, 0.0], [1.0, 0.1], [2.0, 5.0], [0.0, 10.0], [5.0, 9.9]])
    assert sorted(best_of_bins(losses, 2)) == [1, 3]
    assert sorted(best_of_bins(losses, 10)) == [1, 2, 3]
    assert best_of_bins(losses[:, :1], 2) == [3, 1]


def test_skeletons_have_one_level_in_a_group():
    d = Domain(DECISIONS, groups={"depth": "a", "width": "a", "act": "b", "k": "b"})
    found = list(skeletons(d, 99))
    assert len(found) == len(set(found)) == 9
    assert all(a == b and c == e for a, b, c, e in found)
