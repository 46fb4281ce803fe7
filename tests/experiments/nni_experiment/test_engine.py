"""The engine between strategies and the training service, with the service played by the test."""

import base64
from types import SimpleNamespace

import cloudpickle
import pytest
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import training_service
from nni.nas.execution.event import ModelEventType
from nni.nas.space import ModelStatus, SimplifiedModelSpace
from nni.utils import MetricType

from experiments.multi_trial.candidate import Decisions
from experiments.multi_trial.trial_log import TrialLog, status_of
from experiments.nni_experiment.engine import ArchEngine, Trial, decode, encode, recovered
from models import InputError

SPACE = {
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [{"choice": [8, 16, 24], "label": "a"}, 3, 2]],
                 [-1, 1, "Conv", [8, {"choice": [1, 3], "label": "b"}]]],
}  # fmt: skip


class Channel:
    """In place of the connection to NNI's manager."""

    def __init__(self, url):
        self.sent = []

    def send_trial(self, parameter_id, parameters):
        self.sent.append((parameter_id, parameters))

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


@pytest.fixture
def space():
    return SimplifiedModelSpace.from_model(Decisions(SPACE), FunctionalEvaluator(abs))


@pytest.fixture
def make(monkeypatch, space, tmp_path):
    """An engine with a free worker: (most trials, trials of before, numbers heard of) -> engine, what it told."""
    monkeypatch.setattr(training_service, "TunerCommandChannel", Channel)

    def build(max_trials=None, trials=(), heard=(), before_trial=lambda: None):
        process = SimpleNamespace(poll=lambda: None, returncode=None)
        binding = SimpleNamespace(
            tuner_command_channel="", _proc=process, folder=tmp_path, get_status=lambda: "RUNNING"
        )
        told = []
        engine = ArchEngine(
            binding, max_trials, lambda trial: told.append((trial.number, trial.status)), trials, heard, before_trial
        )
        engine._workers = 10
        return engine, told

    return build


def report(engine, number, value, kind=MetricType.FINAL):
    engine._report_metric_data_callback(
        SimpleNamespace(parameter_id=number, type=kind, value=value, trial_job_id=f"id{number}")
    )


def end(engine, number, event="SUCCEEDED"):
    engine._trial_end_callback(SimpleNamespace(parameter_ids=[number], trial_job_id=f"id{number}", event=event))


def arch(a, b):
    return {"a": a, "b": b}


def test_a_trial_is_sent_as_labels_and_values(make, space):
    engine, told = make()
    model = space.freeze(arch(16, 3))
    engine.submit_models(model)
    assert engine._channel.sent == [(0, {"a": 16, "b": 3})]
    report(engine, 0, 0.25, MetricType.PERIODICAL)
    report(engine, 0, {"default": 0.5, "flops": 7})
    assert told == []
    end(engine, 0)
    assert told == [(0, "SUCCEEDED")]
    assert (model.status, model.metric, list(model.metrics.intermediates)) == (ModelStatus.Trained, 0.5, [0.25])
    assert engine.trials[0].metric == {"default": 0.5, "flops": 7}
    assert engine.state_dict() == {"heard": [0]}
    assert list(engine.list_models(ModelStatus.Trained)) == [model]
    engine.wait_models()


def test_what_is_beyond_the_budget_ends_as_interrupted_and_nobody_waits(make, space):
    engine, told = make(max_trials=1)
    first, second = space.freeze(arch(8, 1)), space.freeze(arch(8, 3))
    heard = []
    engine.register_model_event_callback(ModelEventType.TrainingEnd, lambda event: heard.append(event.status))
    engine.submit_models(first, second)
    assert len(engine._channel.sent) == 1
    assert second.status == ModelStatus.Interrupted
    assert heard == [ModelStatus.Interrupted]
    assert not engine.budget_available()
    engine.wait_models(second)
    assert told == []


def known(space, number, a, b, status, metric=None):
    return Trial(number, arch(a, b), space.freeze(arch(a, b)), f"id{number}", status, metric)


def test_after_a_resume_a_result_is_told_and_not_computed_again(make, space):
    before = [known(space, 0, 8, 1, "SUCCEEDED", {"default": 0.5}), known(space, 1, 8, 3, "FAILED")]
    engine, told = make(max_trials=2, trials=before)
    assert engine.budget_available(), "what is known costs nothing"
    models = [space.freeze(arch(8, 1)), space.freeze(arch(8, 3))]
    engine.submit_models(*models)
    assert engine._channel.sent == []
    assert [m.status for m in models] == [ModelStatus.Trained, ModelStatus.Failed]
    assert models[0].metric == 0.5
    assert told == [(0, "SUCCEEDED"), (1, "FAILED")]
    assert not engine.budget_available()


def test_after_a_resume_a_trial_that_nni_runs_again_is_not_run_twice(make, space):
    engine, told = make(max_trials=3, trials=[known(space, 0, 8, 1, "RUNNING"), known(space, 1, 8, 3, "RUNNING")])
    end(engine, 1)  # before the strategy has asked for it
    models = [space.freeze(arch(8, 1)), space.freeze(arch(8, 3)), space.freeze(arch(16, 1))]
    engine.submit_models(*models)
    assert engine._channel.sent == [(2, {"a": 16, "b": 1})]
    assert told == [(1, "SUCCEEDED")]
    report(engine, 0, 0.75)
    end(engine, 0)
    assert told == [(1, "SUCCEEDED"), (0, "SUCCEEDED")]
    assert models[0].metric == 0.75


def test_after_a_resume_a_result_that_came_before_the_strategy_asked_is_passed_on(make, space):
    engine, told = make(trials=[known(space, 0, 8, 1, "RUNNING")])
    report(engine, 0, 0.25, MetricType.PERIODICAL)
    report(engine, 0, 0.75)
    model, seen = space.freeze(arch(8, 1)), []
    engine.register_model_event_callback(ModelEventType.FinalMetric, lambda event: seen.append(event.metric))
    engine.submit_models(model)
    end(engine, 0)
    assert seen == [0.75]
    assert (model.metric, model.status, told) == (0.75, ModelStatus.Trained, [(0, "SUCCEEDED")])


def test_what_a_strategy_has_decided_is_saved_before_the_trial_is_sent(make, space):
    saved = []
    engine, _ = make(before_trial=lambda: saved.append(len(engine._channel.sent)))
    engine.submit_models(space.freeze(arch(8, 1)), space.freeze(arch(8, 3)))
    assert saved == [0, 1]


def test_what_the_strategy_has_heard_of_is_not_told_again(make, space):
    engine, told = make(trials=[known(space, 0, 8, 1, "SUCCEEDED", 0.5)], heard=[0])
    engine.submit_models(space.freeze(arch(8, 1)))  # as a strategy may that trains archs several times
    assert engine._channel.sent == [(1, {"a": 8, "b": 1})]
    assert told == []


def test_a_strategy_that_does_not_ask_for_known_trials_comes_to_an_end(make, space):
    engine, _ = make(max_trials=1, trials=[known(space, 0, 8, 1, "RUNNING")])
    assert engine.budget_available()
    engine.submit_models(space.freeze(arch(24, 1)))
    assert not engine.budget_available()


def test_what_became_of_trials_that_no_strategy_asks_for_is_noted(make, space):
    engine, told = make(max_trials=2, trials=[known(space, 0, 8, 1, "RUNNING"), known(space, 1, 8, 3, "RUNNING")])
    end(engine, 0, "FAILED")
    engine.submit_models(space.freeze(arch(24, 1)))
    end(engine, 1)
    assert told == [(0, "FAILED"), (1, "SUCCEEDED")]
    assert engine.heard == {0, 1}


def test_an_error_in_the_channels_thread_reaches_the_strategy(make, space):
    engine, _ = make()
    engine.submit_models(space.freeze(arch(8, 1)))
    report(engine, 0, {"accuracy": 0.5})
    with pytest.raises(ValueError, match="does not contain key 'default'"):
        engine.budget_available()


def test_a_manager_that_has_ended_is_noticed(make):
    engine, _ = make()
    engine.nodejs_binding._proc = SimpleNamespace(poll=lambda: 1, returncode=1)
    with pytest.raises(InputError, match=r"web manager ended with status 1; its log is .*nnimanager.log"):
        engine.budget_available()


def test_values_that_json_does_not_know_come_back_as_they_were():
    import nni
    from torch import nn

    values = {"act": [nn.ReLU, nn.SiLU], "size": [(1, 2), (3, 4)], "on": [True, False]}
    space = SimpleNamespace(simplify=lambda: {k: nni.choice(k, v) for k, v in values.items()})
    for i in (0, 1):
        chosen = {k: v[i] for k, v in values.items()}
        assert decode(space, encode(chosen)) == chosen


ENCODED = {"__nni_type__": "bytes:" + base64.b64encode(cloudpickle.dumps(print)).decode()}
BAD = {
    "a pickle": ({"a": ENCODED, "b": 1}, "a: .*__nni_type__.* is none of its choices"),
    "a name to import": ({"a": {"__nni_type__": "path:os.system"}, "b": 1}, "is none of its choices"),
    "what is no choice": ({"a": 17, "b": 1}, "a: 17 is none of its choices"),
    "a missing label": ({"a": 8}, "b is missing"),
    "a list": ([1], "right would be {label: value}"),
    "nothing": (None, "right would be {label: value}"),
}


@pytest.mark.parametrize("case", BAD)
def test_parameters_are_labels_and_choices(case, space):
    given, message = BAD[case]
    with pytest.raises(InputError, match=message):
        decode(space, given)


def test_a_trial_takes_no_encoded_objects(space):
    """Where a label is no choice of a list, a plain value alone is one."""
    free = SimpleNamespace(simplify=lambda: {"x": SimpleNamespace()})
    assert decode(free, {"x": 0.5}) == {"x": 0.5}
    with pytest.raises(InputError, match="plain value"):
        decode(free, {"x": ENCODED})


def test_trials_that_others_added_are_passed_over(space, caplog):
    jobs = [job(0, "SUCCEEDED"), job("1", "SUCCEEDED"), job(2, "SUCCEEDED"), job(3, "FAILED"), job(4, "FAILED")]
    jobs[2].hyperParameters[0].parameters = {"a": ENCODED, "b": 1}
    jobs[3].hyperParameters = []
    assert [trial.number for trial in recovered(space, jobs, {})] == [0, 4]
    assert "trial id2 is passed over: parameters of a trial: a" in caplog.text


def job(number, status, started=1000, ended=3000):
    parameters = SimpleNamespace(parameter_id=number, parameters={"a": 8, "b": 1})
    return SimpleNamespace(
        hyperParameters=[parameters], trialJobId=f"id{number}", status=status, startTime=started, endTime=ended
    )


def metric(time, kind, sequence, data):
    return SimpleNamespace(timestamp=time, type=kind, sequence=sequence, data=data)


def test_trials_are_recovered_from_nnis_database(space):
    reported = {
        "id0": [metric(1, "PERIODICAL", 0, 0.1), metric(2, "PERIODICAL", 0, 0.2), metric(3, "PERIODICAL", 1, 0.3),
                metric(4, "FINAL", 0, {"default": 0.4})],
        "id1": [metric(1, "PERIODICAL", 0, 0.1)],
    }  # fmt: skip
    by_hand = job(None, "SUCCEEDED")
    done, again = recovered(space, [job(0, "SUCCEEDED"), job(1, "ADD_RESUMED"), by_hand], reported)
    assert (done.intermediates, done.metric, done.seconds) == ([0.2, 0.3], {"default": 0.4}, 2.0)
    assert done.model.status == ModelStatus.Trained
    assert (again.ended, again.intermediates, again.metric) == (False, [], None)


def test_the_log_knows_what_became_of_trials_and_keeps_the_best_weights_only(space, tmp_path, capsys):
    trials = [
        known(space, 0, 8, 1, "SUCCEEDED", {"default": 0.5, "accuracy": 0.6, "params": 10}),
        known(space, 1, 8, 3, "FAILED"),
        known(space, 2, 16, 1, "SUCCEEDED"),
        known(space, 3, 16, 3, "USER_CANCELED"),
        known(space, 4, 24, 1, "SUCCEEDED", {"default": 0.7, "accuracy": 0.8}),
        known(space, 5, 24, 3, "RUNNING"),
        known(space, 6, 24, 3, "SUCCEEDED"),
    ]
    trials[2].intermediates = [{"default": 0.0, "infeasible": 1, "params": 99}]
    expected = ["done", "failed", "infeasible", "cancelled", "done", "running", "failed"]
    assert [status_of(t) for t in trials] == expected
    dropped = []
    log = TrialLog(tmp_path, "accuracy", ["a", "b"], lambda: trials, lambda id: f"why {id}", dropped.append)
    log.add(trials[1])
    assert log.best is trials[4]
    assert dropped == [t for t in trials if t.number not in (4, 5)]
    assert (tmp_path / "trials/id1/stderr.txt").read_text() == "why id1"
    (tmp_path / "trials/id1/stderr.txt").write_text("kept")
    log.add(trials[1])  # as after a resume
    assert (tmp_path / "trials/id1/stderr.txt").read_text() == "kept"
    out = capsys.readouterr().out
    assert out.count("trial    1  failed, see") == 1
    assert "best 0.7000 (trial 4)" in out
    import csv

    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == expected
    assert (rows[0]["default"], rows[0]["accuracy"], rows[0]["params"], rows[0]["a"]) == ("0.5", "0.6", "10", "8")
    assert (rows[2]["params"], rows[2]["epochs"]) == ("99", "0")


def test_labels_of_recovered_trials_are_plain_text(space, make):
    """NNI's are strings of a class of its own, by whose name our readers refuse a file that holds one."""
    arch = decode(space, {"a": 16, "b": 3})
    assert {type(label) for label in arch} == {str}
    engine, _ = make()
    engine.submit_models(model := space.freeze(arch))
    assert {type(label) for label in engine.trials[0].arch} == {str}
    assert model.sample == engine.trials[0].arch
