"""What searches begin with, as the scripts read it: files that are none, what does not fit, what is carried over."""

from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

import multi_trial_nas
import oneshot_nas
from experiments.multi_trial import candidate
from experiments.multi_trial.candidate import Training, run_trial, training_of
from experiments.oneshot.options import Options
from experiments.run.options import made
from experiments.supernets.subnets import cut_out
from experiments.supernets.warm import begun, read_weights
from experiments.tasks.task import open_task
from models import Model, read_config
from models.files import load_detector, save_detector
from spaces import Space

SPACE = {
    "nc": 10,
    "anchors": [[8, 10, 12, 16], [20, 24, 28, 36]],
    "backbone": [
        [-1, 1, "Conv", [8, 6, 2, 2]],
        [-1, 1, "Conv", [{"choice": [16, 24]}, 3, 2]],
        [-1, {"range": [1, 2, 1]}, "C3", [16]],
        [-1, 1, "Conv", [24, {"choice": [3, 5]}, 2]],
    ],
    "head": [[[2, 3], 1, "Detect", ["nc", "anchors"]]],
}
ANCHORS = [[7, 9, 11, 15], [19, 23, 27, 35]]


def plain(nc=10, width=None, names=None):
    """A network of the space, or one wider, with weights and statistics that say something."""
    torch.manual_seed(0)
    raw = Space(SPACE).freeze(Space(SPACE).upstream())
    if width is not None:
        raw["backbone"][1][3][0] = width
    model = Model(read_config(raw, nc=nc, anchors=ANCHORS))
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    model.names = dict(enumerate(names or map(str, range(nc))))
    return model.eval()


@pytest.fixture
def given(digits, tmp_path):
    """Files and arguments of a search that begins with a detector."""
    cfg, weights = tmp_path / "space.yaml", tmp_path / "plain.pt"
    cfg.write_text(yaml.safe_dump(SPACE))
    save_detector(plain(), weights, imgsz=64)
    sizes = ["--imgsz", "64", "--batch", "4", "--epochs", "1", "--cost-imgsz", "64", "--device", "cpu"]
    args = ["--task", "detect", "--cfg", str(cfg), "--data", str(digits(8, 64)), *sizes]
    return SimpleNamespace(args=args, weights=weights)


def opened(given, weights=None):
    options = made(Options, oneshot_nas.parse([*given.args, "--weights", str(weights or given.weights)]))
    space, task, _ = open_task(options)
    return space, task, options


def test_the_subnet_that_is_the_detector_computes_the_same_with_its_anchors(given):
    space, task, options = opened(given)
    supernet, told = begun(task, read_weights(options.weights, task), 0)
    network = cut_out(supernet, task, space.upstream()).eval()
    x = torch.rand(2, 3, 64, 64)
    # Equal but for rounding: channels are in another order, that of their importance.
    torch.testing.assert_close(network(x)[0], plain()(x)[0], rtol=1e-3, atol=1e-3)
    assert torch.equal(network.head.anchors, plain().head.anchors)
    assert "a subnet is this network" in told
    assert "10 of 10 classes by name" in told


def test_classes_are_carried_over_by_name(given, tmp_path):
    names = [str(9 - i) for i in range(10)]
    save_detector(plain(names=names), tmp_path / "turned.pt", imgsz=64)
    space, task, options = opened(given, tmp_path / "turned.pt")
    network = cut_out(begun(task, read_weights(options.weights, task), 0)[0], task, space.upstream()).eval()
    x = torch.rand(1, 3, 64, 64)
    found, expected = network(x)[0], plain()(x)[0]
    torch.testing.assert_close(found[..., :5], expected[..., :5], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[..., 5:], expected[..., 5:].flip(-1), rtol=1e-3, atol=1e-3)


def test_a_search_begins_with_it_and_hands_over_what_was_trained(given, call, tmp_path):
    weights = ["--weights", str(given.weights), "--strategy", "spos", "--population", "2", "--generations", "1"]
    code, out, err = call(oneshot_nas, *given.args, *weights, "--random-archs", "1", "--finetune", "1", "--seeds", "2")
    assert code == 0, err
    assert "weights: " in out
    assert "from the supernet: " in out
    assert "random archs of its cost" in out or "random archs have its cost" in out
    _, content = load_detector(tmp_path / "runs/oneshot_nas/exp/detector.pt")
    assert content["yaml"]["anchors"] == ANCHORS
    supernet = tmp_path / "runs/oneshot_nas/exp"
    _, task, options = opened(given, supernet)
    again, told = begun(task, read_weights(options.weights, task), 0)
    assert told.startswith("all ")
    state = torch.load(supernet / "supernet.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items())


def test_a_candidate_begins_with_it(given, monkeypatch):
    options = made(candidate.Training, multi_trial_nas.parse([*given.args, "--weights", str(given.weights)]))
    space, *_ = open_task(options)

    class StartedError(Exception):
        pass

    def train(_, network, *__, **___):
        raise StartedError(network)

    monkeypatch.setattr(candidate, "train_alone", train)
    with pytest.raises(StartedError) as started:
        run_trial(Training(**training_of(options, space)), space.upstream())
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(started.value.args[0].eval()(x)[0], plain()(x)[0], rtol=1e-3, atol=1e-3)


BAD = {
    "nowhere.pt": "--weights nowhere.pt: no such file",
    "text.pt": "text.pt: not a file of torch.save",
    "wide.pt": "wide.pt: row 1 (Conv): is 48 channels wide, and the space's at most 24",
    "other.pt": "other.pt: row 1",
    "empty": "empty: has no supernet.pt; right would be the folder of a search that ended",
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_line_before_anything_is_written(name, given, call, tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty").mkdir()
    save_detector(plain(width=48), tmp_path / "wide.pt", imgsz=64)
    other = {
        **SPACE,
        "backbone": [[-1, 1, "Conv", [8, 6, 2, 2]], [-1, 1, "nn.MaxPool2d", [2, 2]], *SPACE["backbone"][2:]],
    }
    frozen = Space(other).freeze(Space(other).upstream())
    save_detector(Model(read_config(frozen)), tmp_path / "other.pt", imgsz=64)
    code, _, err = call(oneshot_nas, *given.args, "--weights", name)
    assert code == 2
    assert BAD[name] in err
    assert err.startswith("error: --weights ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
