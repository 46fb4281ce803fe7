"""What is trained after a search, and what is said of it."""

import json

import pytest

from experiments.oneshot.report import verdict
from experiments.oneshot.retrain import Retraining, random_archs
from experiments.run.folder import RunFolder
from models import InputError
from spaces import Space

SPACE = "tests/assets/tiny_nas.yaml"


class Task:
    """Counts trainings; a network's metric is how many there were before."""

    def __init__(self):
        self.trained = []

    def network(self, cfg):
        return cfg

    def train(self, network, epochs, callbacks):
        self.trained.append((network, epochs))
        return float(len(self.trained))


def test_what_is_done_is_not_done_again_after_a_resume(tmp_path):
    run, task = RunFolder(tmp_path, "exp"), Task()
    train = Retraining(task, run, 3, 0)
    assert (train("derived", "a"), train("plain", "b")) == (1.0, 2.0)
    again = Retraining(task, run, 3, 0, resume=True)
    assert (again("derived", "a"), again("plain", "b"), again("random0", "c")) == (1.0, 2.0, 3.0)
    assert task.trained == [("a", 3), ("b", 3), ("c", 3)]
    assert json.loads((run.path / "retrained.json").read_text()) == {"derived": 1.0, "plain": 2.0, "random0": 3.0}
    # A new run in the same folder begins anew.
    assert Retraining(task, run, 3, 0)("derived", "a") == 4.0


def test_random_archs_are_different_and_within_the_budget():
    class Even:
        def feasible(self, archs):
            return [arch["nasconv_0"] == 2 for arch in archs]

    space = Space(SPACE)
    archs = random_archs(space, 5, 0, Even())
    assert archs == random_archs(space, 5, 0, Even()) != random_archs(space, 5, 1, Even())
    assert len({json.dumps(a) for a in archs}) == 5
    assert all(space.complete(a) == a and a["nasconv_0"] == 2 for a in archs)
    assert random_archs(space, 0, 0, Even()) == []


def test_too_few_random_archs_is_one_line():
    space = Space({"nc": 2, "backbone": [[-1, 1, "Conv", [{"choice": [8, 16]}]]]})
    assert len(random_archs(space, 2, 0, None)) == 2
    with pytest.raises(InputError, match="--random-archs 3: only 2 random archs"):
        random_archs(space, 3, 0, None)


@pytest.mark.parametrize(
    ("found", "says"), [(0.9, "beats 2 random"), (0.7, "beats the mean of, but not the best"), (0.5, "does not beat")]
)
def test_verdict_is_honest(found, says):
    results = {
        "derived": {"from_scratch": found},
        "random": [{"from_scratch": 0.4}, {"from_scratch": 0.8}],
    }
    assert says in verdict(results)
    assert f"{found:.4f} against 0.6000 on average and 0.8000 at best" in verdict(results)
    assert verdict({**results, "random": []}) == ""
