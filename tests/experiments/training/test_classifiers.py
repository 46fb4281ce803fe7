"""A space without a head: from its supernet to a classifier that is measured, finetuned and exported."""

import json

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from spaces import CostModel, Space, slice_weights  # isort: skip

import detect
import export
import oneshot_nas
import search_subnets
import train
import val
from data import classification
from experiments.run.cli import run_script
from experiments.supernets.subnets import open_supernet
from models import Classifier, InputError, count_flops, count_params, load_classifier, load_detector
from models.files import is_classifier

SPACE = {
    "nc": 80,
    "backbone": [
        [-1, 1, "Conv", [{"choice": [8, 16]}, 3, 2]],
        [-1, {"choice": [1, 2]}, "MBConv", [16, 3, 2, {"choice": [2, 3]}]],
        [-1, 1, "GlobalPool", []],
        [-1, 1, "Pointwise", [{"choice": [24, 40]}]],
    ],
}
SEARCH = ["--strategy", "bignas", "--imgsz", 16, "--epochs", 2, "--batch", 90, "--cost-imgsz", 16, "--device", "cpu"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a search."""
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    args = [*SEARCH, "--cfg", folder / "space.yaml", "--project", folder, "--name", "bignas", "--no-baseline"]
    assert run_script(oneshot_nas.main, oneshot_nas.parse(list(map(str, args)))) == 0
    return folder / "bignas"


def accuracy_of(network, imgsz, k=1):
    data = classification("digits", imgsz).val
    images, labels = zip(*data, strict=True)
    with torch.no_grad():
        best = network(torch.stack(images)).argsort(1, descending=True)[:, :k]
    return (best == torch.tensor(labels)[:, None]).any(1).double().mean().item()


def test_a_search_leaves_a_classifier(searched):
    results = json.loads((searched / "results.json").read_text())
    network, content = load_classifier(searched / "classifier.pt")
    arch = json.loads((searched / "arch.json").read_text())
    assert isinstance(network, Classifier)
    assert network.config.nc == 10
    assert (content["arch"], content["imgsz"], content["is_slice"]) == (arch, 16, True)
    assert content["names"] == {i: str(i) for i in range(10)}
    assert yaml.safe_load((searched / "classifier.yaml").read_text()) == content["yaml"]
    assert results["classifier"] == {"params": count_params(network), "flops_16": count_flops(network, 16)}
    assert accuracy_of(network, 16) == pytest.approx(results["derived"]["inherited"])
    assert not (searched / "detector.pt").exists()


def test_it_is_the_supernets_slice(searched):
    supernet, *_ = open_supernet(searched)
    network, content = load_classifier(searched / "classifier.pt")
    _, state = slice_weights(supernet, content["arch"])
    own = network.state_dict()
    learned = [k for k in state if "running" not in k and "tracked" not in k]
    assert learned
    assert all(torch.equal(own[k], state[k]) for k in learned)


def test_costs_are_the_classifiers():
    space = Space(SPACE)
    model = CostModel(space, 32, classifier=True)
    for arch in (model.least({"params": 1}), model.least({"params": -1})):
        network = Classifier(space.freeze(arch))
        costs = model.of(arch)
        assert (costs["params"], costs["flops"]) == (count_params(network), count_flops(network, 32))
        assert costs["activations"] == CostModel(space, 32).of(arch)["activations"] + 80


def test_val_measures_it(searched, call, tmp_path):
    code, out, err = call(val, "--weights", searched / "classifier.pt", "--device", "cpu")
    assert code == 0, err
    results = json.loads((tmp_path / "runs/val/exp/results.json").read_text())
    network, _ = load_classifier(searched / "classifier.pt")
    assert results["accuracy"] == pytest.approx(accuracy_of(network, 16))
    assert results["accuracy_top5"] == pytest.approx(accuracy_of(network, 16, k=5))
    assert f"accuracy {results['accuracy']:.4f}" in out


def test_val_measures_subnets_and_keeps_them(searched, call, tmp_path):
    code, _, err = call(val, "--supernet", searched, "--arch", "max", "min", "--device", "cpu")
    assert code == 0, err
    rows = json.loads((tmp_path / "runs/val/exp/results.json").read_text())
    for row in rows:
        network, _ = load_classifier(tmp_path / f"runs/val/exp/{row['subnet']}.pt")
        assert accuracy_of(network, 16) == pytest.approx(max(row["calibrated"], row["as_trained"]))


def test_train_finetunes_it(searched, call, tmp_path):
    weights = searched / "classifier.pt"
    whole = ["--weights", weights, "--epochs", 3, "--batch", 64, "--device", "cpu"]
    code, out, err = call(train, *whole)
    assert code == 0, err
    run = tmp_path / "runs/train/exp"
    results = json.loads((run / "results.json").read_text())
    before, _ = load_classifier(weights)
    after, content = load_classifier(run / "classifier.pt")
    assert results["before"] == pytest.approx(accuracy_of(before, 16))
    assert results["accuracy"] == pytest.approx(accuracy_of(after, 16))
    assert results["accuracy"] > results["before"]
    assert content["arch"] == json.loads((searched / "arch.json").read_text())
    assert f"accuracy {results['accuracy']:.4f} in epoch {results['epoch']} of 3" in out


def test_finetuning_resumed_is_uninterrupted(searched, call, tmp_path, monkeypatch):
    args = ["--weights", searched / "classifier.pt", "--epochs", 2, "--batch", 200, "--device", "cpu"]
    assert call(train, *args, "--name", "whole")[0] == 0
    from experiments.training import fit

    epochs = []

    class Cut(fit.EpochLine):
        def on_train_epoch_end(self, trainer, module):
            epochs.append(trainer.current_epoch)
            if len(epochs) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(fit, "EpochLine", Cut)
    code, _, err = call(train, *args, "--name", "cut")
    assert (code, err.strip()) == (130, "interrupted: go on with --resume runs/train/cut")
    code, _, err = call(train, "--resume", tmp_path / "runs/train/cut")
    assert code == 0, err
    assert epochs == [0, 1]
    whole, cut = (tmp_path / "runs/train" / name for name in ("whole", "cut"))
    assert (whole / "results.json").read_text() == (cut / "results.json").read_text()
    assert (whole / "metrics.csv").read_text() == (cut / "metrics.csv").read_text()
    states = [load_classifier(run / "classifier.pt")[0].state_dict() for run in (whole, cut)]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_export_writes_onnx(searched, call):
    code, out, err = call(export, "--weights", searched / "classifier.pt", "--output", "a.onnx")
    assert code == 0, err
    assert "16 pixels" in out
    session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    network, _ = load_classifier(searched / "classifier.pt")
    images = torch.rand(3, 3, 16, 16)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        assert np.allclose(logits, network(images).numpy(), atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map["task"] == "classify"
    cv2.imwrite("a.png", np.zeros((16, 16, 3), np.uint8))
    code, _, err = call(detect, "--weights", "a.onnx", "--source", "a.png")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "a classifier's" in err


def test_a_supernet_of_classifiers_is_searched(searched, call, tmp_path):
    quick = ["--searcher", "evolution", "--population", 3, "--trials", 4, "--no-baseline", "--pick", "knee"]
    code, out, err = call(search_subnets, "--supernet", searched, *quick, "--device", "cpu")
    assert code == 0, err
    run = tmp_path / "runs/search_subnets/exp"
    picked = json.loads((run / "results.json").read_text())["picked"]
    network, content = load_classifier(run / "classifier.pt")
    assert content["arch"] == picked["arch"]
    assert (picked["params"] if "params" in picked else count_params(network)) == count_params(network)
    assert picked["flops"] == count_flops(network, 16)
    assert "train.py --weights runs/search_subnets/exp/classifier.pt --data digits --imgsz 16" in out
    assert "export.py --weights runs/search_subnets/exp/classifier.pt --imgsz 16" in out


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (val, ["--split", "test"], "--split test: a classifier is measured on val"),
        (val, ["--imgsz", "30"], "--imgsz 30 is no multiple of the stride 4"),
        (val, ["--iou", "0.5"], "--iou: is of detectors, and"),
        (train, ["--no-autoanchor"], "--no-autoanchor: is of detectors, and"),
        (train, ["--devices", "2"], "--devices: is of detectors, and"),
        (train, ["--no-augment"], "--no-augment: is of detectors, and"),
        (train, ["--data", "two"], "(2 classes for 10)"),
        (export, ["--nms"], "--nms is of detectors"),
        (detect, ["--source", "."], "a classifier's; right would be a detector.pt"),
    ],
)
def test_bad_input_is_one_line(searched, call, tmp_path, script, args, message):
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
        for i in range(10):
            image = np.full((8, 8, 3), 20 * i, np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None]
            cv2.imwrite(str(tmp_path / "two" / name / f"{i}.png"), image)
    code, _, err = call(script, "--weights", searched / "classifier.pt", *args)
    assert (code, len(err.splitlines())) == (2, 1)
    assert message in err


def test_files_are_told_apart(searched, tmp_path):
    assert is_classifier(searched / "classifier.pt")
    torch.save({"yaml": {}}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no")
    assert not any(map(is_classifier, (tmp_path / "other.pt", tmp_path / "text.pt", tmp_path / "gone.pt")))
    with pytest.raises(InputError, match=r"a classifier's; right would be a detector\.pt"):
        load_detector(searched / "classifier.pt")
