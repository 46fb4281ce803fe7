"""A trial of a multi-trial search, in this process: what it reports and refuses to train, and its first weights."""

import shutil
from dataclasses import asdict, replace

import nni
import pytest
import torch
from optuna import load_study

from experiments.costs import Roofline, timing
from experiments.costs.timing import measure_latency
from experiments.multi_trial import candidate
from experiments.multi_trial.candidate import Decisions, Training, costs_of, reward, run_trial
from experiments.multi_trial.pruning import Pruning
from experiments.run.folder import RunFolder
from experiments.search.storage import open_storage
from experiments.supernets.subnets import SUPERNET, open_supernet, save_supernet
from experiments.tasks.classify import ClassifyTask
from models import Classifier, InputError, Model, count_flops, count_params
from models.grammar import read_config
from spaces import Space, freeze, make_supernet, slice_weights

TINY = "tests/assets/tiny_nas.yaml"
TRAINING = Training(
    task="classify",
    cfg=TINY,
    data="digits",
    detector=None,
    epochs=2,
    batch=128,
    imgsz=32,
    optimizer="adamw",
    seed=0,
    device="cpu",
    data_root=None,
    plugin=[],
    max_flops=None,
    max_params=None,
    max_latency=None,
    target_latency=None,
    target_weight=1.0,
    cost_imgsz=64,
    inherit=None,
    threads=1,
)
ARCH = {"nasconv_0": 1, "c3_4": 1, "nasconv_3_act": 2}


@pytest.fixture
def reports(monkeypatch, tmp_path):
    """What the trial reports: intermediate results, and the final one."""
    found = ([], [])
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr(nni, "report_intermediate_result", found[0].append)
    monkeypatch.setattr(nni, "report_final_result", found[1].append)
    monkeypatch.setattr(nni.trial, "_params", {"parameters": ARCH})
    return found


def test_reports_every_epoch_and_the_end_and_leaves_its_weights(reports, tmp_path):
    run_trial(TRAINING, ARCH)
    intermediate, final = reports
    assert len(intermediate) == 2
    detector = Model(freeze(TINY, ARCH))
    assert final == [
        {
            "default": intermediate[-1],
            "accuracy": intermediate[-1],
            "unseen": final[0]["unseen"],
            "params": count_params(detector),
            "flops": count_flops(detector, 64, 3),
        }
    ]
    network = Classifier(freeze(TINY, ARCH), 10)
    network.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True)["state_dict"])
    task = ClassifyTask(TRAINING, Space(TINY), "cpu")
    assert task.rate(network) == intermediate[-1]
    assert task.measure(network, calibrated=False) == final[0]["unseen"] != intermediate[-1]


def test_the_evaluators_own_reports_are_kept_out(reports, digits):
    # A validation is no result of the search; what is trained on even less.
    data = str(digits(8, 64))
    run_trial(replace(TRAINING, task="detect", data=data, imgsz=64, batch=2, epochs=2), ARCH)
    intermediate, final = reports
    assert len(intermediate) == 2
    assert len(final) == 1
    assert final[0]["mAP50-95"] == final[0]["default"] == intermediate[-1]


@pytest.mark.parametrize("limit", [{"max_params": 1000.0}, {"max_flops": 1000.0}, {"max_latency": 1e-6}])
def test_a_candidate_beyond_a_limit_is_reported_and_not_trained(limit, reports, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(candidate, "train_alone", lambda *_, **__: pytest.fail("it was trained"))
    run_trial(replace(TRAINING, **limit), ARCH)
    intermediate, final = reports
    assert final == []
    assert [r["infeasible"] for r in intermediate] == [1]
    assert "infeasible: " in capsys.readouterr().out
    assert not (tmp_path / "weights.pt").exists()


def test_costs_are_those_at_the_resolution_of_the_yaml():
    network = Model("yolov5n.yaml")
    at_64 = costs_of(replace(TRAINING, cost_imgsz=64), network, "cpu")["flops"]
    network = Model(read_config({**network.config.raw, "resolution": 64}))
    assert costs_of(replace(TRAINING, cost_imgsz=128), network, "cpu")["flops"] == at_64


def test_reward_takes_off_what_is_slower_than_the_target():
    training = replace(TRAINING, target_latency=10.0, target_weight=0.5)
    assert reward(training, 0.9, {"latency": 15.0}) == pytest.approx(0.9 - 0.5 * 0.5)
    assert reward(training, 0.9, {"latency": 5.0}) == 0.9
    assert reward(TRAINING, 0.9, {}) == 0.9


def test_a_target_is_rewarded_on_the_measured_latency(reports, monkeypatch):
    monkeypatch.setattr(candidate, "measure_latency", lambda network, shape, device: 30.0)
    run_trial(replace(TRAINING, epochs=1, target_latency=10.0, target_weight=0.25), ARCH)
    (final,) = reports[1]
    assert final["latency"] == 30.0
    assert final["default"] == pytest.approx(final["accuracy"] - 0.5)


@pytest.mark.parametrize("limit", [1e-6, None])
def test_latency_is_told_by_costs(limit, reports, monkeypatch):
    monkeypatch.setattr(candidate, "measure_latency", lambda *_: pytest.fail("it was measured"))
    costs = {"costs": {"latency": {"provider": "roofline", "hw_config": {"peak": "1T", "bandwidth": "50G"}}}}
    run_trial(replace(TRAINING, epochs=1, costs=costs, max_latency=limit, target_latency=1.0), ARCH)
    told = Roofline(ClassifyTask(TRAINING, Space(TINY), "cpu").whole(), 64, "latency", peak=1e12, bandwidth=5e10)
    result = reports[1][0] if limit is None else reports[0][0]
    assert result["latency"] == told([Space(TINY).complete(ARCH)])[0]
    assert ("infeasible" in result) is (limit is not None)


def test_latency_is_that_of_an_inference(monkeypatch):
    class Slow(torch.nn.Module):
        calls = 0

        def forward(self, x):
            assert not self.training
            assert torch.is_inference_mode_enabled()
            assert x.shape == (1, 3, 8, 8)
            Slow.calls += 1
            clock[0] += 0.5 if Slow.calls <= timing.WARM_UP[0] else 0.002
            return x

    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    assert measure_latency(Slow(), (1, 3, 8, 8), "cpu") == pytest.approx(2.0)
    assert Slow.calls == timing.WARM_UP[0] + 50  # 0.1 s of them


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    """A run's folder, and its supernet."""
    task = ClassifyTask(TRAINING, Space(TINY), "cpu")
    torch.manual_seed(1)
    net = make_supernet(task.space())
    run = RunFolder(tmp_path_factory.mktemp("oneshot"), "run")
    run.write_config({**asdict(TRAINING), "strategy": "spos"})
    save_supernet(net, run.path / SUPERNET)
    return run.path, net, task


def test_weights_are_inherited_from_a_supernet(supernet, reports, monkeypatch):
    folder, net, _ = supernet
    _, expected = slice_weights(net, Space(TINY).complete(ARCH))

    class StartedError(Exception):
        pass

    def train(_, network, *__, finetunes, **___):
        assert finetunes
        raise StartedError(network.state_dict())

    monkeypatch.setattr(candidate, "train_alone", train)
    with pytest.raises(StartedError) as started:
        run_trial(replace(TRAINING, inherit=str(folder)), Space(TINY).complete(ARCH))
    first = started.value.args[0]
    assert first.keys() == expected.keys()
    assert all(torch.equal(first[k], expected[k]) for k in expected)


def test_a_supernet_of_another_space_is_refused(supernet, tmp_path):
    folder, _, task = supernet

    def inherit(path):
        return open_supernet(path, task=task, option="--inherit")

    with pytest.raises(InputError, match="not the folder of a run"):
        inherit(tmp_path)
    shutil.copy(folder / "config.yaml", tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(
        InputError, match=r"^--inherit .*: has no supernet.pt; finish it by python .*oneshot_nas.py --resume"
    ):
        inherit(tmp_path)
    content = torch.load(folder / SUPERNET, weights_only=True)
    torch.save({**content, "state_dict": {"model.0.x": torch.ones(1)}}, tmp_path / SUPERNET)
    with pytest.raises(InputError, match=r"^--inherit .*: its supernet is one of another space or task"):
        inherit(tmp_path)


def test_decisions_are_the_yamls_and_every_kind_of_choice(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "nc: 2\nbackbone:\n  - [-1, {range: [1, 3, 1]}, Conv, [{choice: [8, 16], label: width}, 3, 2]]\n"
        "  - [-1, 1, NASConv, [8, 3, 2]]\n"
    )
    space = Decisions(str(path))
    expected = {label: list(d.values) for label, d in Space(path).decisions.items()}
    assert {label: list(m.values) for label, m in space.simplify().items()} == expected
    assert expected["row0.number"] == [1, 2, 3]


def test_a_candidate_that_falls_behind_is_pruned(reports, monkeypatch, tmp_path):
    intermediate, final = reports
    training = replace(TRAINING, epochs=3, pruner="halving", journal=str(tmp_path / "pruning.log"))
    reached = iter([0.5, 0.6, 0.7, 0.4, 0.55, 0.65, 0.75])
    monkeypatch.setattr(ClassifyTask, "rate", lambda *_: next(reached))
    run_trial(training, ARCH)
    assert (intermediate, final[0]["default"]) == ([0.5, 0.6, 0.7], 0.7)
    (tmp_path / "weights.pt").unlink()
    run_trial(training, ARCH)  # behind the first after one epoch
    assert intermediate[3:] == [0.4]
    assert (final[1]["default"], final[1]["pruned"]) == (0.4, 1)
    assert "unseen" not in final[1]
    assert not (tmp_path / "weights.pt").exists()
    run_trial(training, ARCH)
    assert (intermediate[4:], final[2]["default"]) == ([0.55, 0.65, 0.75], 0.75)
    states = [
        t.state.name
        for t in load_study(study_name="trials", storage=open_storage(f"journal:{training.journal}")).trials
    ]
    assert states == ["COMPLETE", "PRUNED", "COMPLETE"]


@pytest.mark.parametrize("name", ["median", "halving", "hyperband"])
def test_every_pruner_lets_the_first_go_on(name, tmp_path):
    pruning = Pruning(replace(TRAINING, epochs=9, pruner=name), tmp_path / "pruning.log")
    assert not any(pruning.ends(0.1, epoch) for epoch in range(1, 10))
    pruning.close(0.1)
