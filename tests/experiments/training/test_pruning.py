"""`prune.py` as its users run it: what it leaves, steps with finetuning between, resume and bad input."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import prune
from experiments.training import pruning
from models import Model, count_flops, count_params, load_classifier, load_detector, save_detector
from models.classifier import Classifier
from models.files import save_classifier
from tests.random_state import randomized

QUICK = ("--device", "cpu", "--imgsz", 64, "--batch", 6, "--no-augment")


@pytest.fixture(scope="module")
def data(digits):
    return digits()


@pytest.fixture(scope="module")
def detector(tiny_cfg, tmp_path_factory):
    torch.manual_seed(0)
    model = randomized(Model(tiny_cfg, nc=10))
    model.names = {i: f"digit {i}" for i in range(10)}
    path = tmp_path_factory.mktemp("pruned") / "n.pt"
    save_detector(model, path, imgsz=64)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    network = randomized(Classifier({"backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C3", [32]]]}, 10))
    path = tmp_path_factory.mktemp("pruned") / "c.pt"
    save_classifier(network, path, [str(i) for i in range(10)], imgsz=16)
    return path


def test_leaves_a_smaller_detector(call, detector):
    status, out, err = call(prune, "--weights", detector, "--sparsity", 0.4, "--name", "a", *QUICK[:2])
    assert (status, err) == (0, "")
    folder = Path("runs/prune/a")
    (model, content), before = load_detector(folder / "detector.pt"), load_detector(detector)[0]
    results = json.loads((folder / "results.json").read_text())
    for name, network in (("before", before), ("after", model)):
        assert results[name] == {"params": count_params(network), "flops": count_flops(network, 64)}
    assert results["after"]["params"] < results["before"]["params"]
    assert model.names == before.names
    assert content["imgsz"] == 64
    assert content["pruned"]["method"] == "l1"
    assert count_params(Model(folder / "detector.yaml")) == count_params(model)
    assert "parameters: " in out
    assert str(folder / "detector.pt") in out


def test_to_a_cost(call, detector):
    flops = count_flops(load_detector(detector)[0], 64)
    status, _, err = call(prune, "--weights", detector, "--to-flops", flops * 0.7, "--scope", "layer", *QUICK[:2])
    assert (status, err) == (0, "")
    assert count_flops(load_detector("runs/prune/exp/detector.pt")[0], 64) <= flops * 0.7
    # Of a latency no more can be said in a test than that it was asked for.
    status, _, err = call(prune, "--weights", detector, "--to-latency", "0.001ms", "--name", "b", *QUICK[:2])
    assert status == 2
    assert "--to-latency 0.001 ms: at its narrowest" in err
    assert not Path("runs/prune/b").exists()


def test_in_steps_and_gone_on_with(call, detector, data, monkeypatch):
    steps = ("--sparsity", 0.4, "--data", data, "--epochs", 1, "--steps", 2, "--method", "taylor", *QUICK)
    status, _, err = call(prune, "--weights", detector, *steps, "--name", "whole")
    assert (status, err) == (0, "")
    trained, calls = pruning.train, []

    def interrupted(*args, **more):
        calls.append(args[1].path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*args, **more)

    monkeypatch.setattr(pruning, "train", interrupted)
    status, _, err = call(prune, "--weights", detector, *steps, "--name", "a")
    assert status == 130
    assert "--resume runs/prune/a" in err
    assert not Path("runs/prune/a/detector.pt").exists()
    status, _, err = call(prune, "--resume", "runs/prune/a")
    assert (status, err) == (0, "")
    assert calls == [Path("runs/prune/a/step1/finetune"), *2 * [Path("runs/prune/a/step2/finetune")]]
    whole, again = (load_detector(f"runs/prune/{name}/detector.pt")[0].state_dict() for name in ("whole", "a"))
    assert all(torch.equal(whole[key], again[key]) for key in whole)

    results = json.loads(Path("runs/prune/a/results.json").read_text())
    params = [results["before"]["params"], *(step["params"] for step in results["steps"])]
    assert params == sorted(params, reverse=True)
    assert len(set(params)) == 3
    assert params[-1] == results["after"]["params"]
    assert {"map50", "map50_95"} < set(results["after"])
    assert {"map50_before_finetuning", "map50_95_before_finetuning"} < set(results["steps"][0])
    # Trained weights are finetuned at a tenth of the rate.
    options = yaml.safe_load(Path("runs/prune/a/step2/finetune/config.yaml").read_text())["options"]
    assert options["lr0"] == pytest.approx(0.001)


def test_a_classifier(call, classifier):
    given = ("--weights", classifier, "--sparsity", 0.4, "--scope", "layer", "--device", "cpu")
    taylor = ("--method", "taylor", "--data", "digits", "--epochs", 1, "--batch", 300)
    status, _, err = call(prune, *given, *taylor)
    assert (status, err) == (0, "")
    network, content = load_classifier("runs/prune/exp/classifier.pt")
    results = json.loads(Path("runs/prune/exp/results.json").read_text())
    assert results["after"]["params"] == count_params(network) < count_params(load_classifier(classifier)[0])
    finetuned = json.loads(Path("runs/prune/exp/step1/finetune/results.json").read_text())
    assert results["after"]["accuracy"] == pytest.approx(finetuned["accuracy"])
    assert content["names"] == {i: str(i) for i in range(10)}


REFUSED = [
    ("", "say what to prune: --weights"),
    ("--weights n.pt", "say how much is to go: --sparsity"),
    ("--weights n.pt --sparsity 0.2 --epochs 1", "--epochs: is of --data"),
    ("--weights n.pt --sparsity 0.2 --method taylor", "--method taylor: needs images; right would be --data"),
    ("--weights n.pt --to-params 1k", "--to-params 1k: at its narrowest n.pt has"),
    ("--weights n.pt --to-params 100M", "which is no more; right would be less"),
    ("--weights n.pt --sparsity 0.2 --data bccd.yaml", "bccd.yaml has 12 classes, but n.pt was made for 10"),
    ("--weights n.pt --sparsity 0.2 --imgsz 50", "--imgsz 50 is no multiple of the stride"),
    ("--weights c.pt --sparsity 0.2 --data digits --no-augment", "--no-augment: is of detectors, and c.pt is a"),
    ("--weights n.pt --sparsity 0.2 --backend openvino", "--backend: is of --to-latency"),
    ("--resume gone", "gone: not the folder of a run"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_bad_input_is_refused(line, message, call, detector, classifier, data):
    Path("n.pt").write_bytes(detector.read_bytes())
    Path("c.pt").write_bytes(classifier.read_bytes())
    content = yaml.safe_load(data.read_text()) | {"path": str(data.parent), "names": [*"abcdefghijkl"]}
    Path("bccd.yaml").write_text(yaml.safe_dump(content))
    status, _, err = call(prune, *line.split())
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("share", ["0", "1", "25%"])
def test_a_sparsity_is_a_share(share, call):
    status, _, err = call(prune, "--weights", "n.pt", "--sparsity", share)
    assert status == 2
    assert "--sparsity" in err
