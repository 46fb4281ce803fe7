"""Weights, architecture, validation and test share no image: one contract for all tasks, strategies and searches.

Each network that is run is asked what it is shown, whoever runs it (`tests.experiments.sentinels`).
"""

from types import SimpleNamespace

import nni
import pytest
import torch
import yaml

import multi_trial_nas
import oneshot_nas
import search_subnets
import val
from experiments import RetiariiExperiment, strategies
from experiments.multi_trial.candidate import Training, run_trial
from experiments.oneshot.options import Options
from experiments.run import registry
from experiments.run.cli import run_script
from experiments.run.options import made
from experiments.search import Genetic
from experiments.training.fit import train_alone
from spaces import Space
from tests.experiments.sentinels import NUM_TRAIN, SIDE, TRAIN, VAL, classify_set, detect_set, landmarks_set, watched

# Two decisions, of which every strategy takes all; reports and pictures of more would take longer than the searches.
SPACE = {
    "nc": 2,
    "anchors": 2,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, {"range": [1, 2, 1]}, "C3", [{"choice": [8, 16]}, True]],
        [-1, 1, "Conv", [16, 3, 2]],
    ],
    "head": [[[1, 2], 1, "Detect", ["nc", "anchors"]]],
}
DATA = {"classify": classify_set, "detect": detect_set, "landmarks": landmarks_set}
BATCH = NUM_TRAIN // 4  # two an epoch, and none is left over
FEW = ["--population", "2", "--generations", "2"]


@pytest.fixture(scope="module", params=registry.names("task"))
def given(request, tmp_path_factory):
    """A task by name, its class, the arguments of a script, and what its splits are."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    data, cfg = DATA[name](folder / "data"), folder / "space.yaml"
    cfg.write_text(yaml.safe_dump(SPACE))
    sizes = ["--imgsz", SIDE, "--batch", BATCH, "--epochs", 1, "--cost-imgsz", SIDE, "--arch-share", 0.5]
    args = [*map(str, ["--task", name, "--cfg", cfg, "--data", data, "--device", "cpu", *sizes])]
    given = SimpleNamespace(name=name, cls=registry.load("task", name), args=args)
    with watched(given.cls) as seen:
        train(given, "weights")
    given.weights = frozenset(seen.weights)
    given.arch = TRAIN - given.weights
    return given


def open_task(given):
    return given.cls(oneshot_nas.parse(given.args), Space(SPACE), "cpu")


def network_of(task):
    torch.manual_seed(0)
    return task.network(Space(SPACE).freeze(Space(SPACE).upstream()))


def train(given, part):
    """Train a network as searches do, and measure it."""
    task, options = open_task(given), oneshot_nas.parse(given.args)
    network = network_of(task)
    train_alone(task, network, made(Options, options), 1, "cpu", batch=BATCH, seed=0, part=part)
    task.measure(network)


def call(module, *args):
    """Run a script that must succeed."""
    assert run_script(module.main, module.parse([*map(str, args)])) == 0


class TestTask:
    def test_half_of_the_training_images_train_the_weights(self, given):
        assert given.weights < TRAIN
        assert len(given.weights) == len(TRAIN) / 2

    def test_shares_of_the_architecture(self, given):
        """By strategy, if it is not asked for."""
        rest = [a for a in given.args if a not in ("--arch-share", "0.5")]
        for strategy, number in (("darts", 6), ("spos", 2)):
            task = given.cls(oneshot_nas.parse([*rest, "--strategy", strategy]), Space(SPACE), "cpu")
            with watched(given.cls) as seen:
                task.rate(network_of(task))
            assert len(seen.rated) == number
            assert {k % 2 for k in seen.rated} == {0, 1}, "of each class"

    def test_all_training_images_can_be_trained_on(self, given):
        with watched(given.cls) as seen:
            train(given, "all")
        assert (seen.weights, seen.statistics, seen.measured) == (TRAIN, given.weights, VAL)

    def test_train_measures_on_validation_images(self, given):
        with watched(given.cls) as seen:
            train(given, "weights")
        assert (seen.weights, seen.statistics) == (given.weights, given.weights)
        assert (seen.measured, seen.rated, seen.architecture) == (VAL, set(), set())

    def test_measure_looks_at_validation_images_alone(self, given):
        task = open_task(given)
        with watched(given.cls) as seen:
            task.measure(network_of(task), calibrated=False)
        assert (seen.measured, seen.statistics, seen.rated) == (VAL, set(), set())

    def test_rate_looks_at_the_architectures_half_alone(self, given):
        task = open_task(given)
        with watched(given.cls) as seen:
            task.rate(network_of(task))
        assert (seen.rated, seen.measured) == (given.arch, set())
        assert seen.statistics <= given.weights

    @pytest.mark.parametrize("batches", [None, 1, 8])
    def test_statistics_are_those_of_images_of_the_weights(self, given, batches):
        task = open_task(given)
        with watched(given.cls) as seen:
            task.calibrated(network_of(task), batches)
        assert seen.statistics <= given.weights
        assert len(seen.statistics) >= (BATCH if batches == 1 else len(given.weights))
        assert not seen.rated | seen.measured | seen.architecture


def check_search(seen, given):
    """What holds for every search."""
    assert seen.weights <= given.weights
    assert seen.statistics <= given.weights
    assert seen.rated <= given.arch
    assert seen.measured <= VAL
    assert seen.looked <= TRAIN


@pytest.fixture(scope="module")
def supernet(given, tmp_path_factory):
    """A folder with a trained supernet."""
    folder = tmp_path_factory.mktemp("supernet")
    call(oneshot_nas, *given.args, "--strategy", "spos", *FEW, "--no-baseline", "--project", folder)
    return folder / "exp"


class TestOneShot:
    @pytest.mark.parametrize("strategy", registry.names("oneshot"))
    def test_search(self, given, strategy, tmp_path):
        few = FEW if strategy in registry.names("oneshot", "population") else []
        baseline = ["--no-baseline"]
        limit = ["--max-params", "1G"] if strategy in ("bignas", "ofa") else []  # without, their pick is the largest
        with watched(given.cls) as seen:
            call(oneshot_nas, *given.args, "--strategy", strategy, *few, *baseline, *limit, "--project", tmp_path)
        check_search(seen, given)
        assert seen.weights == given.weights
        assert seen.measured == VAL
        # The architecture learns by steps of its own, or is picked by ratings.
        own = seen.architecture | seen.rated
        assert own >= given.arch
        assert own <= (TRAIN if strategy == "darts-2nd" else given.arch), "its unrolled step is one of the weights"

    def test_trainings_afterwards(self, given, tmp_path):
        compared = ["--random-archs", "1", "--retrain", "both"]
        with watched(given.cls) as seen:
            call(oneshot_nas, *given.args, *compared, "--project", tmp_path)
        assert (seen.weights, seen.measured) == (TRAIN, VAL)
        assert seen.architecture == given.arch
        assert seen.statistics <= given.weights

    def test_losses_that_a_pick_goes_by(self, given):
        """Where a strategy is told of no rating of the task's."""
        task = open_task(given)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        with watched(given.cls) as seen:
            strategy = strategies.SPOS(searcher=Genetic(2), evaluations=2)
            evaluator = task.evaluator(max_epochs=1, accelerator="cpu", devices=1, **quiet)
            RetiariiExperiment(task.space(), evaluator, [], strategy).run()
        check_search(seen, given)
        assert (seen.rated, seen.statistics) == (given.arch, given.weights)


class TestSupernet:
    def test_search(self, given, supernet, tmp_path):
        few = ["--trials", 3, "--searcher", "evolution", "--population", 2, "--pick", "knee", "--project", tmp_path]
        with watched(given.cls) as seen:
            call(search_subnets, "--supernet", supernet, *few)
        check_search(seen, given)
        assert seen.rated == given.arch
        assert seen.statistics == given.weights
        assert not seen.weights | seen.architecture | seen.measured

    def test_measured(self, given, supernet, tmp_path):
        with watched(given.cls) as seen:
            call(val, "--supernet", supernet, "--arch", "max", "--device", "cpu", "--project", tmp_path)
        assert (seen.measured, seen.statistics) == (VAL, given.weights)
        assert not seen.weights | seen.architecture | seen.rated


class TestMultiTrial:
    def test_candidate(self, given, tmp_path, monkeypatch):
        monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
        for name in ("report_intermediate_result", "report_final_result"):
            monkeypatch.setattr(nni, name, lambda _: None)
        options = vars(multi_trial_nas.parse([*given.args, "--threads", "1"]))
        training = Training(**{name: options[name] for name in Training.__dataclass_fields__ if name in options})
        with watched(given.cls) as seen:
            run_trial(training, Space(SPACE).upstream())
        check_search(seen, given)
        assert (seen.weights, seen.rated, seen.measured) == (given.weights, given.arch, VAL)
        assert not seen.architecture
