"""Subnets of a trained supernet by `val.py --supernet` and `train.py --supernet`."""

import csv
import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml

from spaces import CostModel, NASDETECTOR, Sizes, Space, make_supernet, slice_weights  # isort: skip

import train
import val
from data import detection_split
from experiments import evaluate
from experiments.oneshot.teacher import read_teacher
from experiments.run import registry
from experiments.run.folder import RunFolder
from experiments.supernets.subnets import SUPERNET, open_supernet, save_supernet
from experiments.supernets.warm import begun
from experiments.supernets.warm import read_weights as read_start
from experiments.training.weights import read_weights
from models import InputError, Model, load_detector, save_detector

DETECTOR = {
    "nc": 80,
    "anchors": [[8, 10, 12, 16]],
    "resolution": {"choice": [32, 64]},
    "backbone": [
        [-1, 1, "Conv", [{"choice": [8, 16]}, 6, 2, 2]],
        [-1, {"choice": [1, 2]}, "C3", [16]],
        [-1, 1, "Conv", [24, {"choice": [3, 5]}, 2]],
    ],
    "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
}
CLASSIFIER = {**DETECTOR, "nc": 10, "head": [], "anchors": None}


def run_of(folder, cfg, task, data, imgsz):
    """The folder that a search would have left."""
    options = {"strategy": "bignas", "task": task, "cfg": "gone.yaml", "data": data, "detector": None, "epochs": 1}
    options |= {"batch": 8, "imgsz": imgsz, "lr": 0.001, "seed": 0, "data_root": None, "plugin": []}
    if task == "classify":
        options["detector"] = str(folder.parent / "detector.yaml")
        folder.parent.mkdir(parents=True, exist_ok=True)
        space = Space(DETECTOR)
        Path(options["detector"]).write_text(yaml.safe_dump(space.freeze(space.upstream())))
    run = RunFolder(folder.parent, folder.name)
    run.write_config(options)
    made = registry.load("task", task)(Namespace(**{**options, "cfg": cfg}), Space(cfg), "cpu")
    supernet = make_supernet(made.space())
    for i, value in enumerate(supernet.state_dict().values()):
        if value.is_floating_point() and value.ndim == 1:  # biases, and what batch norms hold
            value.copy_(0.5 + torch.rand(value.shape, generator=torch.Generator().manual_seed(i)))
    save_supernet(supernet, run.path / SUPERNET)
    return supernet


@pytest.fixture(scope="module")
def detector_run(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("search") / "exp"
    data = digits(12, 64)
    return folder, run_of(folder, DETECTOR, "detect", str(data), 64), data


@pytest.fixture
def call(call):
    return lambda module, *args: call(module, *args, "--device", "cpu")


def test_a_supernet_comes_back_as_it_was(detector_run):
    folder, supernet, _ = detector_run
    again, task, _ = open_supernet(folder)
    assert isinstance(again, NASDETECTOR)
    assert task.data.nc == 10
    state = again.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in supernet.state_dict().items())
    content = torch.load(folder / SUPERNET, weights_only=True)
    assert content.keys() == {"format", "yaml", "state_dict", "names"}
    assert content["names"] == (*"0123456789",)


@pytest.fixture
def renumbered(detector_run, tmp_path):
    """The run, and its data with the classes in another order, or with others."""
    folder, supernet, data = detector_run
    copy = tmp_path / "exp"
    shutil.copytree(folder, copy)

    def make(names):
        content = torch.load(copy / SUPERNET, weights_only=True)
        torch.save({**content, "names": names}, copy / SUPERNET)
        return copy, supernet, data

    return make


def test_a_supernet_whose_data_has_another_order_of_classes_by_now(renumbered):
    """Every user of a run's supernet opens it so: val.py, train.py, search_subnets.py, --inherit, --teacher RUN."""
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    folder, supernet, _ = renumbered([str(order.index(i)) for i in range(10)])  # their class i is our order.index(i)
    again, task, _ = open_supernet(folder)
    assert [*task.names] == [*"0123456789"]
    before, after = (s.model[-1].m[0].bias.detach().view(2, -1) for s in (supernet, again))
    assert torch.equal(after[:, :5], before[:, :5])
    assert torch.equal(after[:, 5:], before[:, 5:][:, order])


def test_a_supernet_of_other_classes_is_refused(renumbered):
    folder, _, data = renumbered([*"012345678", "ten"])
    with pytest.raises(InputError, match=r"--inherit .*other classes: the data has 9 and lacks ten"):
        open_supernet(folder, option="--inherit")
    options = Namespace(task="detect", data=str(data), imgsz=64, seed=0, detector=None, batch=4)
    task = registry.load("task", "detect")(options, Space(DETECTOR), "cpu")
    with pytest.raises(InputError, match=r"--weights .*other classes: the data has 9 and lacks ten"):
        begun(task, read_start(folder, task), 0)


def test_a_teacher_has_its_classes_in_the_order_of_the_data(detector_run, tmp_path):
    _, task, _ = open_supernet(detector_run[0])
    teacher = Model({**task.detector.config.raw})
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    teacher.names = {i: str(order.index(i)) for i in range(10)}
    save_detector(teacher, tmp_path / "teacher.pt")
    read = read_teacher(tmp_path / "teacher.pt", task)
    before, after = (t.head.m[0].bias.detach().view(2, -1) for t in (teacher, read))
    assert torch.equal(after[:, 5:], before[:, 5:][:, order])
    teacher.names = dict(enumerate([*"012345678", "ten"]))
    save_detector(teacher, tmp_path / "teacher.pt")
    with pytest.raises(InputError, match=r"--teacher .*other classes: the data has 9 and lacks ten"):
        read_teacher(tmp_path / "teacher.pt", task)


def test_val_measures_subnets_and_keeps_them(detector_run, call, tmp_path):
    folder, supernet, data = detector_run
    arch = {"row0.0": 8, "row1.number": "2", "row2.1": 3, "resolution": 32}
    (tmp_path / "mine.json").write_text(json.dumps(arch))
    code, out, err = call(val, "--supernet", folder, "--arch", "max", "min", "mine.json")
    assert code == 0, err
    run = tmp_path / "runs/val/exp"
    rows = {row["subnet"]: row for row in json.loads((run / "results.json").read_text())}
    assert list(rows) == ["max", "min", "mine"]
    cost = CostModel(supernet.space, 64)
    sizes = Sizes(cost)
    expected = {"max": sizes.largest, "min": sizes.smallest, "mine": {**arch, "row1.number": 2}}
    for name, row in rows.items():
        assert row["arch"] == expected[name]
        assert row["imgsz"] == expected[name]["resolution"]
        counted = cost.of(expected[name])
        assert (row["params"], row["flops"]) == (counted["params"], counted["flops"])
        model, content = load_detector(run / f"{name}.pt")
        assert (content["arch"], content["imgsz"], content["is_slice"]) == (row["arch"], row["imgsz"], True)
        raw, state = slice_weights(supernet, row["arch"])
        as_trained = Model(raw)
        as_trained.load_state_dict(state)
        images, _ = detection_split(str(data), "val", row["imgsz"])
        # Of a network that has learnt nothing many detections are nearly alike, and rounding orders them.
        assert row["as_trained"] == pytest.approx(evaluate(as_trained, images, 8)["map50_95"], rel=1e-2)
        own = model.state_dict()
        calibrated = row["calibrated"] >= row["as_trained"]
        for key, value in state.items():
            if "running" not in key and "tracked" not in key:
                assert torch.equal(own[key], value)
        assert torch.equal(own["model.0.bn.running_mean"], state["model.0.bn.running_mean"]) is not calibrated
        assert model.names == {i: str(i) for i in range(10)}
        assert f"{row['as_trained']:.4f}" in out
    with (run / "subnets.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["row2.1"] for row in table] == ["5", "3", "3"]


def test_train_finetunes_a_slice_at_a_tenth_of_the_rate(detector_run, call, tmp_path):
    folder, supernet, data = detector_run
    quick = ("--imgsz", 64, "--batch", 4, "--epochs", 1, "--data", data, "--no-augment")
    code, out, err = call(train, *quick, "--supernet", folder, "--arch", "min")
    assert code == 0, err
    run = tmp_path / "runs/train/exp"
    assert yaml.safe_load((run / "config.yaml").read_text())["options"]["lr0"] == pytest.approx(0.001)
    assert "tensors" in out
    assert "initialised anew" not in out
    model, content = load_detector(run / "detector.pt")
    assert content["arch"] == Sizes(CostModel(supernet.space, 64)).smallest
    _, state = slice_weights(supernet, content["arch"])
    moved = (model.state_dict()["model.0.conv.weight"] - state["model.0.conv.weight"]).abs().mean()
    assert 0 < moved < 0.1 * state["model.0.conv.weight"].abs().mean(), "it begins with the slice's weights"

    code, _, err = call(val, "--supernet", folder, "--arch", "min")
    assert code == 0, err
    slice_file = tmp_path / "runs/val/exp/min.pt"
    assert read_weights(slice_file).is_slice
    assert not read_weights(run / "detector.pt").is_slice, "what was finetuned is a network of its own"
    for args, lr0 in ((("--lr0", 0.02), 0.02), (("--optimizer", "adamw"), 0.0001)):
        code, _, err = call(train, *quick, "--weights", slice_file, "--name", f"again{len(args)}{lr0}", *args)
        assert code == 0, err
        options = yaml.safe_load((tmp_path / f"runs/train/again{len(args)}{lr0}/config.yaml").read_text())["options"]
        assert options["lr0"] == pytest.approx(lr0)


def test_a_classifiers_subnets(call, tmp_path):
    folder = tmp_path / "search" / "exp"
    run_of(folder, CLASSIFIER, "classify", "digits", 64)
    code, out, err = call(val, "--supernet", folder)
    assert code == 0, err
    rows = json.loads((tmp_path / "runs/val/exp/results.json").read_text())
    assert [(row["subnet"], row["imgsz"]) for row in rows] == [("max", 64), ("min", 32)]
    assert not list((tmp_path / "runs/val/exp").glob("*.pt"))
    assert "accuracy" in out
    code, _, err = call(train, "--supernet", folder)
    assert code == 2
    assert "a classifier's, but train.py trains detectors" in err


BAD = {
    "no run": (["--supernet", "nowhere"], "nowhere: not the folder of a run"),
    "another run": (["--supernet", "other"], "--supernet other: not a run of oneshot_nas.py"),
    "an unfinished run": (["--supernet", "cut"], f"--supernet cut: has no {SUPERNET}; finish it by"),
    "no such arch": (["--supernet", "RUN", "--arch", "middle"], "--arch middle: middle: no such arch file"),
    "another space's arch": (["--supernet", "RUN", "--arch", "a.json"], "arch label 'c3_2' is not of the space"),
    "nothing": ([], "one of the arguments --weights --supernet is required"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, detector_run, call, tmp_path):
    args, message = BAD[case]
    (tmp_path / "a.json").write_text('{"c3_2": 1}')
    begun = yaml.safe_load((detector_run[0] / "config.yaml").read_text())["options"]
    for name, options in (("other", {"cfg": "x"}), ("cut", begun)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"options": options}))
    code, _, err = call(val, *(detector_run[0] if a == "RUN" else a for a in args))
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1 or case == "nothing"
    assert not (tmp_path / "runs").exists()


def test_train_takes_one_beginning(detector_run, call, tmp_path):
    code, _, err = call(train, "--supernet", detector_run[0], "--cfg", "yolov5n.yaml")
    assert code == 2
    assert "leave --cfg and --weights out" in err


def test_a_teacher_is_a_runs_arch_or_a_detector(detector_run, tmp_path):
    folder, supernet, _ = detector_run
    _, task, _ = open_supernet(folder)
    arch = Sizes(CostModel(supernet.space, 64)).largest
    (folder / "arch.json").write_text(json.dumps(arch))
    network = read_teacher(folder, task)
    assert isinstance(network, Model)
    assert not network.training
    _, state = slice_weights(supernet, arch)
    assert torch.equal(network.model[0].conv.weight, state["model.0.conv.weight"])
    assert not torch.equal(network.model[0].bn.running_mean, state["model.0.bn.running_mean"]), "calibrated"
    save_detector(network, tmp_path / "teacher.pt")
    again = read_teacher(tmp_path / "teacher.pt", task)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in network.state_dict().items())

    save_detector(Model(network.config, nc=3), tmp_path / "three.pt")
    with pytest.raises(InputError, match=r"other classes: the data has 0.* \(10 classes for 3\)"):
        read_teacher(tmp_path / "three.pt", task)
    save_detector(Model({**network.config.raw, "anchors": [[9, 9, 12, 16]]}), tmp_path / "other.pt")
    with pytest.raises(InputError, match="other anchors or strides"):
        read_teacher(tmp_path / "other.pt", task)
    classify = tmp_path / "search" / "exp"
    run_of(classify, CLASSIFIER, "classify", "digits", 64)
    (classify / "arch.json").write_text(json.dumps(arch))
    with pytest.raises(InputError, match="another task than this; right would be a detector"):
        read_teacher(classify, task)
    with pytest.raises(InputError, match="the folder of a run of --task classify"):
        read_teacher(tmp_path / "teacher.pt", open_supernet(classify)[1])
