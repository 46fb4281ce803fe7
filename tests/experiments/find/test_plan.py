"""Time becomes epochs, and what was slower than measured leaves less to the rest."""

import json

import pytest

from experiments.find.options import Options
from experiments.find.phases import Job
from experiments.find.plan import Paces, Plan, duration, plan_of, steps_for
from experiments.run.folder import RunFolder
from models.errors import InputError

NAMES = ["baselines", "supernet", "search", "finetune", "long"]
PACES = Paces({"baselines": 10, "supernet": 30, "search": 5, "finetune": 20, "long": 20}, {"test": 50, "export": 50})


def job(tmp_path, **options):
    return Job(Options(data="d", **options), RunFolder(tmp_path, "run"))


def test_steps_fill_the_time_and_keep_to_it():
    steps = {s.name: s for s in steps_for(PACES, 3600, NAMES)}
    assert {n: s.count for n, s in steps.items()} == {
        **{"baselines": 70, "supernet": 29, "search": 70, "finetune": 17},
        "long": 61,
    }
    assert 0.95 * 3500 < sum(s.total for s in steps.values()) <= 3500


def test_what_a_phase_cannot_use_others_have():
    quick = Paces({**PACES.seconds, "baselines": 0.01}, {})
    steps = {s.name: s for s in steps_for(quick, 3600, NAMES)}
    assert steps["baselines"].count == 300
    assert steps["supernet"].count == int((3600 - 3) * 0.25 / 0.8 / 30)


def test_there_is_one_of_everything_at_least():
    assert [s.count for s in steps_for(PACES, 100, NAMES)] == [1, 1, 1, 1, 1]


def test_nothing_is_left_to_plan_at_the_end():
    assert steps_for(PACES, 95, []) == []


def test_epochs_quick_and_trials_are_told(tmp_path):
    steps = Plan(job(tmp_path, epochs=10, trials=7), PACES, NAMES).steps()
    assert {s.name: s.count for s in steps} == {
        **{"baselines": 10, "supernet": 10, "search": 7, "finetune": 5},
        "long": 10,
    }
    steps = Plan(job(tmp_path, quick=True), PACES, NAMES).steps()
    assert {s.name: s.count for s in steps} == {
        **{"baselines": 8, "supernet": 8, "search": 12, "finetune": 3},
        "long": 3,
    }
    steps = Plan(job(tmp_path, hours=1, trials=7), PACES, NAMES).steps()
    assert {s.name: s.count for s in steps}["search"] == 7


def test_a_slow_phase_leaves_less_to_the_others(tmp_path):
    j = job(tmp_path, hours=1)
    plan = Plan(j, PACES, NAMES)
    assert plan.decide("baselines") == 70
    # It took twice as long as was measured: what is trained afterwards does too.
    j.results["baselines"], j.spent["baselines"] = {}, 2 * 700.0
    steps = {s.name: s for s in plan.steps()}
    assert steps["supernet"].seconds == 60
    assert steps["search"].seconds == 5
    assert sum(s.total for s in steps.values()) <= 3600 - 1400 - 100
    assert plan.left() <= 3600 - 1400


def test_what_was_decided_stays_so(tmp_path):
    j = job(tmp_path, hours=1)
    assert Plan(j, PACES, NAMES).decide("baselines") == 70
    j.spent["baselines"] = 1000.0  # and then it was interrupted
    assert Plan(j, PACES, NAMES).decide("baselines") == 70
    assert json.loads((tmp_path / "run/plan.json").read_text())["counts"] == {"baselines": 70}


def test_equal_time_is_what_searching_takes_and_takes_nothing_from_it(tmp_path):
    j = job(tmp_path, hours=1, equal_time=True)
    plan = Plan(j, Paces(PACES.seconds, PACES.fixed, equal=2), NAMES)
    assert plan.steps() == Plan(j, PACES, NAMES).steps()
    assert plan.left("equal") == 2 * (29 * 30 + 70 * 5 + 17 * 20 + 61 * 20)
    for name, seconds in (("baselines", 700), ("supernet", 100), ("search", 50), ("finetune", 15), ("long", 5)):
        plan.decide(name)
        j.results[name], j.spent[name] = {}, seconds
    assert plan.left("equal") == 2 * 170
    assert plan.left() == 2 * 170 + 100
    j.results["equal"] = {}
    assert plan.left() == 100


def test_a_run_of_other_phases_is_refused(tmp_path):
    j = job(tmp_path, hours=1)
    seconds = {name: s for name, s in PACES.seconds.items() if name != "long"}
    j.results["measure"] = {"paces": {"seconds": seconds, "fixed": {}}}
    with pytest.raises(InputError, match="begun by an earlier version"):
        plan_of(j)


def test_too_little_time_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--hours 0.01: .* take 3 min; right would be --hours 0.15 or more"):
        Plan(job(tmp_path, hours=0.01), PACES, NAMES).check()
    Plan(job(tmp_path, hours=1), PACES, NAMES).check()
    Plan(job(tmp_path, epochs=1), PACES, NAMES).check()


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (59, "59 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations(seconds, said):
    assert duration(seconds) == said
