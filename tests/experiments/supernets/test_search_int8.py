"""`search_subnets.py --int8`: archs are rated and timed as the files in 8 bits that they are shipped as."""

import argparse
import json
import sys

import numpy as np
import onnx
import pytest
import torch
import yaml

import search_subnets
from data import detection_split
from experiments.costs import Latency, timing
from experiments.inference.detectors import OnnxDetector
from experiments.inference.validate import measure
from experiments.run import registry
from experiments.run.cli import run_script
from experiments.run.folder import RunFolder
from experiments.supernets import int8 as slices_in_int8
from experiments.supernets.int8 import Int8Slices, one_by_one
from experiments.supernets.subnets import open_supernet, save_supernet
from spaces import Space, make_supernet
from tests.refusal import refused

SPACE = {
    "nc": 10,
    "anchors": 2,
    "backbone": [[-1, 1, "Conv", [8, 3, 4]], [-1, 1, "Conv", [{"choice": [8, 16]}, 3, 2]]],
    "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
}
DATA = "{format: digits-detect, train: 20, val: 4, canvas: 64, mirror: false}"
ARCHS = [{"row1.0": 8}, {"row1.0": 16}]


def made(folder, task, data):
    options = {"strategy": "bignas", "task": task, "cfg": SPACE, "detector": None, "batch": 4, "lr": 0.001, "seed": 0}
    options |= {"device": "cpu", "data_root": None, "plugin": [], "cost_imgsz": 32, "imgsz": 32, "data": str(data)}
    run = RunFolder(folder, task)
    searched = registry.load("task", task)(argparse.Namespace(**options), Space(SPACE), "cpu")
    torch.manual_seed(0)
    run.write_config(options)
    save_supernet(make_supernet(searched.space()), run.path / "supernet.pt")
    return str(run.path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    (folder / "digits.yaml").write_text(DATA)
    return folder


@pytest.fixture(scope="module")
def supernet(folder):
    return made(folder, "detect", folder / "digits.yaml")


@pytest.fixture
def opened(supernet):
    found, task, _ = open_supernet(supernet)
    return found, task


def search(tmp_path, *more):
    options = ["--searcher", "grid", "--stride", "1", "--trials", "2", "--no-baseline", "--device", "cpu", *more]
    args = ["--project", str(tmp_path), "--name", "s", *options]
    assert run_script(search_subnets.main, search_subnets.parse(args)) == 0
    return tmp_path / "s"


def test_a_file_is_calibrated_on_training_images_that_do_not_rate(opened, monkeypatch):
    found, task = opened
    seen = []
    whole = slices_in_int8.Int8

    def int8(model, images):
        images = list(images)
        seen.extend(images)
        return whole(model, images)

    monkeypatch.setattr(slices_in_int8, "Int8", int8)
    slices = Int8Slices(lambda: found, task, 5)
    content, side = slices.of(ARCHS[1])
    assert side == 32
    model = onnx.load_from_string(content)
    assert {p.key: p.value for p in model.metadata_props}["dtype"] == "int8"
    assert json.loads({p.key: p.value for p in model.metadata_props}["arch"]) == ARCHS[1]
    assert slices.of(ARCHS[1])[0] is content
    assert len(seen) == 5

    rates = [
        item.image.numpy()
        for item in (task.as_they_are("arch", 32)[i] for i in range(len(task.as_they_are("arch", 32))))
    ]
    training, _ = detection_split(task.options.data, "train", 32)
    trains = [training[i].image.numpy() for i in range(len(training))]
    for image in seen:
        pixels = (image[0] * 255).round().astype(np.uint8)
        assert any((pixels == one).all() for one in trains)
        assert not any((pixels == one).all() for one in rates)


def test_as_many_images_as_there_are(opened):
    part = opened[1].as_they_are("weights", 32)
    assert len(list(one_by_one(part, 1000))) == len(part)


def test_the_front_is_that_of_the_files(supernet, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "WARM_UP", (1, 0))
    timed = []

    def of_file(self, path, side):
        content = onnx.load(path)
        timed.append({p.key: p.value for p in content.metadata_props})
        return float(len(timed))

    monkeypatch.setattr(Latency, "of_file", of_file)
    told = ["--supernet", supernet, "--int8", "--calibrate", "3", "--objectives", "map,latency", "--pick", "knee"]
    path = search(tmp_path, *told)
    results = json.loads((path / "results.json").read_text())
    assert results["int8"] == 3
    assert results["costs"] == ["latency"]
    assert [(t["dtype"], t["batch"], json.loads(t["arch"])) for t in timed] == [("int8", "1", a) for a in ARCHS]

    # The file that is left has the rating of the arch that was picked, on the images of the architecture.
    detector = OnnxDetector(path / "detector-int8.onnx")
    task = opened[1]
    again = measure(detector, task.as_they_are("arch", 32), names=task.names).metrics.compute()["map50_95"]
    assert results["picked"]["mAP50-95"] == pytest.approx(again, abs=1e-6)
    assert detector.dtype == "int8"


def test_latency_by_a_command_is_that_of_the_file(supernet, tmp_path):
    looks = "import sys; print(7 if b'DequantizeLinear' in open(sys.argv[1], 'rb').read() else 3)"
    command = f'{sys.executable} -c "{looks}" {{onnx}}'
    hw = {"command": command, "device": "this"}
    costs = {"costs": {"latency": {"provider": "command", "hw_config": hw}}, "cache": str(tmp_path / "c.db")}
    (tmp_path / "costs.yaml").write_text(yaml.safe_dump(costs))
    told = ["--supernet", supernet, "--int8", "--calibrate", "2", "--objectives", "map,latency"]
    path = search(tmp_path, *told, "--costs", str(tmp_path / "costs.yaml"), "--trials", "1")
    assert [row["latency"] for row in json.loads((path / "results.json").read_text())["front"]] == [7]


def test_what_cannot_be_scored_in_8_bits(supernet, folder, tmp_path, capsys, monkeypatch):
    def error(*more):
        args = ["--project", str(tmp_path), "--device", "cpu", "--int8", *more]
        assert run_script(search_subnets.main, search_subnets.parse(args)) != 0
        return capsys.readouterr().err

    assert "--int8: is of --supernet" in error("--cfg", "models/yolov5n_nas.yaml")
    assert "--int8: is of detectors" in error("--supernet", made(folder, "classify", "digits"))
    (tmp_path / "costs.yaml").write_text("costs: {latency: {provider: torch}}")
    told = ["--supernet", supernet, "--objectives", "map,latency", "--costs", str(tmp_path / "costs.yaml")]
    assert "right would be onnxruntime or command" in error(*told)
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    assert "this needs the package onnxruntime" in error("--supernet", supernet)
    with refused("--calibrate: is of --int8"):
        search_subnets.main(search_subnets.parse(["--supernet", supernet, "--calibrate", "3"]))
