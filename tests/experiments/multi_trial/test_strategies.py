"""One contract for every multi-trial strategy, run on NNI's own engine and on one with two workers."""

import itertools
import math
import random
import threading

import nni
import pytest
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import ExecutionEngine, SequentialExecutionEngine
from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import ModelStatus, SimplifiedModelSpace
from nni.nas.strategy.base import StrategyStatus

from benchmarks import multi_trial
from experiments import strategy
from experiments.multi_trial.candidate import Decisions
from experiments.run import registry
from experiments.search import domain, grid
from models import InputError
from tests.experiments.multi_trial.toy import DECISIONS, Toy, accuracy, flops, indices, report, space


def fails_at_times(model):
    """Some raise before or after they report, some report what is no number, some report nothing."""
    kind = sum(indices(model.arch)) % 8
    if kind == 0:
        if flops(model.arch) > 0:
            report(model)
        raise RuntimeError("out of memory")
    if kind == 1:
        nni.report_final_result(math.nan)
    elif kind == 2:
        nni.report_final_result({"flops": 1.0})
    elif kind > 3:
        report(model)


class TwoWorkers(ExecutionEngine):
    """Trains two archs at a time and reports from their threads, as a training service does.

    Like it, it notices late that the budget is spent: `late` more archs are taken, and never trained.
    """

    def __init__(self, budget, late=0, reported=None):
        super().__init__()
        self.budget, self.late, self.lock = budget, late, threading.Lock()
        self.reported = reported or (lambda arch: {"default": accuracy(arch), "flops": flops(arch)})
        self.busy = 0
        self.pair = threading.Barrier(2, timeout=20)
        self.models, self.threads = [], []

    def idle_worker_available(self):
        return self.busy < 2

    def budget_available(self):
        return len(self.models) < self.budget + self.late

    def submit_models(self, *models):
        for model in models:
            self.models.append(model)
            if len(self.models) <= self.budget:
                with self.lock:
                    self.busy += 1
                self.threads.append(threading.Thread(target=self.train, args=(model,)))
                self.threads[-1].start()

    def train(self, model):
        self.pair.wait()
        arch = tuple(model.sample.values())
        self.dispatch_model_event(FinalMetricEvent(model, self.reported(arch)))
        with self.lock:
            self.busy -= 1
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))

    def wait_models(self, *models):
        assert not models, "would wait for ever for an arch that is never trained"
        for thread in self.threads:
            thread.join()

    def list_models(self, status=None):
        return [m for m in self.models if status is None or m.status == status]


STRATEGIES = {
    "random": strategy.Random,
    "grid": strategy.GridSearch,
    "evolution": lambda **kw: strategy.RegularizedEvolution(population_size=10, sample_size=4, **kw),
    "tpe": strategy.TPE,
    "rl": lambda **kw: strategy.PolicyBasedRL(samples_per_update=4, **kw),
    "nsga3": lambda **kw: strategy.NSGA3(population_size=6, **kw),
    "predictor": lambda **kw: strategy.ModelBased(population_size=5, **kw),
    "tpe of two": lambda **kw: strategy.TPE(objectives=("metric", "flops"), **kw),
}


def run(searcher, num_trials, function=report):
    """Archs in the order in which they were trained."""
    engine = SequentialExecutionEngine(num_trials, continue_on_failure=True)
    searcher(space(function), engine)
    return [indices(model.sample.values()) for model in engine.list_models()]


def interrupted_after(num_trials, function=report):
    """`function`, until Ctrl-C is pressed in a trial."""
    count = itertools.count()

    def trial(model):
        if next(count) == num_trials:
            raise KeyboardInterrupt
        function(model)

    return trial


@pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES)
class TestStrategy:
    def test_trains_new_archs_of_the_space_until_the_budget_is_spent(self, make):
        searcher = make(seed=0)
        archs = run(searcher, 40)
        assert len(archs) == len(set(archs)) == len(searcher.trials) == 40
        assert all(t.values[0] == accuracy(t.arch.values()) for t in searcher.trials)
        best = next(searcher.list_models(limit=1))
        assert best.metric == max(t.values[0] for t in searcher.trials)

    def test_same_seed_same_archs(self, make):
        archs = []
        for seed in (3, 3, 4):
            torch.manual_seed(len(archs))  # other users of the global generators do not matter
            random.seed(len(archs))
            archs.append(run(make(seed=seed), 30))
        assert archs[0] == archs[1] != archs[2]

    def test_failed_trials_end_nothing(self, make):
        searcher = make(seed=0)
        assert len(run(searcher, 40, fails_at_times)) == 40
        failed = [sum(t.indices) % 8 < 4 for t in searcher.trials]
        assert [t.values is None for t in searcher.trials] == failed
        assert sum(failed) > 5

    def test_all_trials_may_fail(self, make):
        def fail(model):
            raise RuntimeError

        assert len(run(make(seed=0), 25, fail)) == 25

    def test_two_at_a_time_beyond_the_budget(self, make):
        engine = TwoWorkers(budget=34, late=3)
        searcher = make(seed=0)
        searcher(space(), engine)
        assert len(searcher.trials) == 34
        assert len({t.indices for t in searcher.trials}) == 34
        assert all(t.values is not None for t in searcher.trials)

    @pytest.mark.parametrize("stop", [7, 23])
    def test_resumed_equals_uninterrupted(self, make, stop, tmp_path):
        few = {"feasible": lambda arch: arch["d0"] != "a"}
        whole = run(make(seed=1, **few), 40, fails_at_times)
        first = make(seed=1, **few)
        with pytest.raises(KeyboardInterrupt):
            run(first, 40, interrupted_after(stop, fails_at_times))
        torch.save(first.state_dict(), tmp_path / "state.pt")
        asked = []
        second = make(seed=None, feasible=lambda arch: asked.append(tuple(arch.items())) or arch["d0"] != "a")
        model_space, engine = space(fails_at_times), SequentialExecutionEngine(40 - stop, continue_on_failure=True)
        second.initialize(model_space, engine)
        second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert not asked  # a measured latency may differ the second time
        second.run()
        assert [t.indices for t in second.trials] == whole
        assert [indices(m.sample.values()) for m in engine.list_models()] == whole[stop:]

    def test_refuses_the_state_of_other_settings(self, make):
        searcher = make(seed=0)
        run(searcher, 10)
        state = searcher.state_dict()
        state["seed"] += 1
        other = make(seed=0)
        other.initialize(space(), SequentialExecutionEngine())
        with pytest.raises(InputError, match=r"would have chosen another arch for trial [02]"):
            other.load_state_dict(state)

    def test_infeasible_archs_are_not_trained(self, make):
        asked = []

        def feasible(arch):
            asked.append(tuple(arch.values()))
            return flops(arch.values()) <= 2

        archs = run(make(seed=0, feasible=feasible), 20)
        assert len(archs) == len(set(archs)) == 20
        assert all(sum(arch) <= 2 for arch in archs)
        assert len(asked) == len(set(asked))

    def test_ends_when_no_arch_is_left(self, make, caplog):
        archs = run(make(seed=0, feasible=lambda arch: flops(arch.values()) <= 1), 20)
        assert len(set(archs)) == len(archs) == 7
        assert "the search ends after 7 trials" in caplog.text

    def test_rare_feasible_archs_are_found_near_one_that_is_known(self, make, monkeypatch):
        monkeypatch.setattr(domain, "_DRAWS", 30)
        monkeypatch.setattr(domain, "_SMALL", 0)

        def searcher():
            made = make(seed=0, feasible=lambda arch: flops(arch.values()) <= 1)
            made.start_from = dict.fromkeys(space().simplify(), "a")
            return made

        first = searcher()
        archs = run(first, 5)
        assert len(archs) == len(set(archs)) == 5
        assert all(sum(arch) <= 1 for arch in archs)
        again = searcher()
        again.initialize(space(), SequentialExecutionEngine(5))
        again.load_state_dict(first.state_dict())
        assert [t.indices for t in again.trials] == archs

    def test_says_when_nothing_is_feasible(self, make):
        with pytest.raises(InputError, match="no feasible arch"):
            run(make(seed=0, feasible=lambda arch: False), 20)


@pytest.mark.parametrize("name", ["evolution", "tpe", "rl", "predictor"])
def test_finds_a_better_arch_than_random_search(name):
    def mean_best(make):
        searchers = [make(seed=seed) for seed in range(3)]
        for searcher in searchers:
            run(searcher, 60)
        return sum(max(t.values[0] for t in s.trials) for s in searchers) / len(searchers)

    assert mean_best(STRATEGIES[name]) > mean_best(strategy.Random) + 0.01


@pytest.mark.parametrize("name", ["nsga3", "tpe of two"])
def test_finds_a_better_front_than_random_search(name):
    def mean_volume(make):
        searchers = [make(seed=seed) for seed in range(3)]
        for searcher in searchers:
            run(searcher, 60)
        points = [[(accuracy(t.arch.values()), flops(t.arch.values())) for t in s.trials] for s in searchers]
        return sum(multi_trial.hypervolume(p, (0.9, 12.0)) for p in points)

    assert mean_volume(STRATEGIES[name]) > 1.05 * mean_volume(strategy.Random)


@pytest.mark.parametrize("costs", [None, lambda arch: {"flops": flops(arch.values())}], ids=["reported", "given"])
def test_pareto_front(costs):
    searcher = strategy.NSGA3(seed=0, population_size=6, costs=costs)
    run(searcher, 50, report if costs is None else lambda m: nni.report_final_result(accuracy(m.arch)))
    points = [(t.values[0], -t.values[1]) for t in searcher.trials]
    assert all(-point[1] == flops(t.arch.values()) for point, t in zip(points, searcher.trials, strict=True))
    best = {p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    assert {(t.values[0], -t.values[1]) for t in searcher.pareto_front()} == best
    assert len(best) > 1


@pytest.mark.parametrize("engine", [lambda: TwoWorkers(10), lambda: SequentialExecutionEngine(9)])
def test_says_which_objective_is_missing(engine):
    searcher = strategy.NSGA3(objectives=("metric", "latency"), seed=0)
    with pytest.raises(InputError, match="objective 'latency' is neither among what the trial reports"):
        searcher(space(), engine())


@pytest.mark.parametrize("reported", [{}, {"default": "good"}, math.nan, {"default": 0.9, "flops": math.inf}])
def test_what_is_no_number_counts_as_failed(reported):
    searcher, engine = strategy.NSGA3(seed=0), TwoWorkers(10, reported=lambda arch: reported)
    searcher(space(), engine)
    assert [t.values for t in searcher.trials] == [None] * 10
    assert all(m.status == ModelStatus.Trained for m in engine.list_models())


def test_a_trial_that_ends_after_ctrl_c_is_heard_of():
    class Interrupted(TwoWorkers):
        def submit_models(self, *models):
            if self.models:
                raise KeyboardInterrupt
            self.models += models

    searcher, engine = strategy.Random(seed=0), Interrupted(5)
    with pytest.raises(KeyboardInterrupt):
        searcher(space(), engine)
    assert searcher.trials == []
    (model,) = engine.models
    engine.dispatch_model_event(FinalMetricEvent(model, 0.5))
    engine.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))
    assert [t.values for t in searcher.trials] == [(0.5,)]


def test_directions_are_the_users():
    searcher = strategy.TPE(objectives=("flops",), directions=("maximize",), seed=0)
    run(searcher, 60)
    assert max(t.values[0] for t in searcher.trials) == 12
    assert searcher.pareto_front()[0].values == (12.0,)
    with pytest.raises(InputError, match="do not fit"):
        strategy.TPE(objectives=("metric", "flops"), directions=("up", "down"))


def test_grid_search_visits_all():
    for seed in range(10, 15):
        searcher = strategy.GridSearch(seed=seed)
        searcher.initialize(space(), SequentialExecutionEngine())
        visited = list(iter(searcher._propose, None))
        assert visited != sorted(visited) == list(itertools.product(range(3), repeat=DECISIONS))
    in_order = run(strategy.GridSearch(shuffle=False), 10)
    assert in_order == list(itertools.islice(itertools.product(range(3), repeat=DECISIONS), 10))


def test_grid_search_ends_where_no_feasible_arch_is_left_in_sight(monkeypatch):
    monkeypatch.setattr(grid, "_PATIENCE", 100)
    asked = []
    with pytest.raises(InputError, match="no feasible arch"):
        run(strategy.GridSearch(seed=0, feasible=lambda arch: bool(asked.append(arch))), 20)
    assert len(asked) == 100


def test_nsga3_needs_two_archs_a_generation():
    with pytest.raises(InputError, match="population_size 1 must be 2 or more"):
        strategy.NSGA3(population_size=1)


def test_without_dedup_archs_come_again():
    archs = run(strategy.Random(seed=0, dedup=False), 200)
    assert len(set(archs)) < 200


def test_a_later_tournament_forgets_the_oldest():
    searcher = strategy.RegularizedEvolution(population_size=5, sample_size=5, seed=0)
    run(searcher, 30)
    *_, last = searcher.trials
    alive = searcher.trials[-6:-1]
    parent = max(alive, key=lambda t: t.values[0])
    assert sum(a != b for a, b in zip(last.indices, parent.indices, strict=True)) == 1


def test_constraints_of_the_space_hold():
    class Bound(ModelSpace):
        def __init__(self):
            super().__init__()
            a, b = nni.choice("a", [1, 2, 3]), nni.choice("b", [1, 2, 3])
            self.add_mutable(a)
            self.add_mutable(b)
            self.add_mutable(nni.mutable.ExpressionConstraint(a + b <= 3, label="sum"))

    engine = SequentialExecutionEngine(10)
    evaluator = FunctionalEvaluator(lambda model: nni.report_final_result(0.5))
    strategy.Random(seed=0)(SimplifiedModelSpace.from_model(Bound(), evaluator), engine)
    assert sorted(tuple(m.sample.values()) for m in engine.list_models()) == [(1, 1), (1, 2), (2, 1)]


def test_refuses_continuous_decisions():
    class Continuous(ModelSpace):
        def __init__(self):
            super().__init__()
            self.add_mutable(nni.uniform("lr", 0, 1))

    with pytest.raises(InputError, match="decision 'lr' is a Numerical"):
        strategy.Random()(SimplifiedModelSpace.from_model(Continuous(), None), SequentialExecutionEngine())


def test_nni_experiment_resumes_from_its_checkpoint(tmp_path):
    from nni.nas.experiment import NasExperiment, NasExperimentConfig

    def experiment(function, ident=None):
        config = NasExperimentConfig("sequential", "simplified", trial_concurrency=1, max_trial_number=12)
        config.experiment_working_directory = tmp_path
        searcher = strategy.TPE(seed=0)
        return NasExperiment(Toy(), FunctionalEvaluator(function), searcher, config, id=ident), searcher

    whole = run(strategy.TPE(seed=0), 12)
    first, searcher = experiment(interrupted_after(5))
    with pytest.raises(KeyboardInterrupt):
        first.start()
    first.stop()
    assert searcher._status == StrategyStatus.INTERRUPTED
    second, searcher = experiment(report, first.id)
    second._action = "resume"
    second.start()
    second.stop()
    # NNI's engine counts the interrupted trial.
    assert [t.indices for t in searcher.trials] == whole[:11]


@pytest.mark.skipif(not multi_trial.TABLE.is_file(), reason=f"the table {multi_trial.TABLE} is not there")
@pytest.mark.parametrize("name", ["evolution", pytest.param("TPE", marks=pytest.mark.slow)])
def test_regret_on_nas_bench_macro(name):
    table = multi_trial.read_table(multi_trial.TABLE)
    searches = multi_trial.contenders()
    found = multi_trial.measure(searches[name, "this project"], table, 200, range(2))
    assert found["different"] == 200
    assert found["regret"] <= 1e-4  # 0.01 points; random search is at 0.18 points


def test_predictor_on_ranges_of_a_yaml_by_its_name():
    """Integers and decimals: numbers that are close teach of one another, so that few trials of 108 find the best."""
    row = [-1, 1, "C3", [{"range": [8, 96, 8]}, True, 1, {"range": [0.1, 0.9, 0.1]}]]

    class Report(FunctionalEvaluator):
        def _execute(self, model):
            width, share = model.sample.values()
            nni.report_final_result(-abs(width - 64) / 8 - abs(share - 0.3) * 10)

    cfg = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]], row]}
    searcher = registry.load("multi-trial", "predictor")(seed=0, population_size=5)
    decisions = SimplifiedModelSpace.from_model(Decisions(cfg), Report(print))
    searcher(decisions, SequentialExecutionEngine(25))
    assert max(searcher.trials, key=lambda t: t.values).arch == pytest.approx({"row1.0": 64, "row1.3": 0.3})
