"""Semantic segmentation as people train, measure, export, search and use it, by the scripts in this process."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import detect
import export
import oneshot_nas
import prune
import train
import val
from data import detection, detection_split
from experiments.inference.detectors import open_detector
from experiments.inference.predict import label_image
from experiments.training.distillation import SemanticMimic, mimic_of
from models import Model, load_detector, save_detector
from tests.lively import TINY
from tests.random_state import randomized

CFG = {"nc": 11, "backbone": TINY["backbone"], "head": [*TINY["head"][:-1], [[8, 5], 1, "Semantic", ["nc", 16]]]}
DATA = """\
format: digits-segment
train: 6
val: 4
canvas: 64
mirror: false
names: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""


@pytest.fixture
def data(tmp_path):
    (tmp_path / "digits.yaml").write_text(DATA)
    return tmp_path / "digits.yaml"


@pytest.fixture
def weights(tmp_path, data):
    torch.manual_seed(0)
    model = randomized(Model(CFG))
    images, names = detection_split(data, "val", 64, finds="labels")
    with torch.no_grad():  # it sees several classes: each is as likely as the others in the mean
        logits = model(torch.stack([images[i].image for i in range(4)]).float() / 255)[0]
        model.head.classify.bias -= logits.mean((0, 2, 3))
    model.names = dict(enumerate(names))
    save_detector(model, tmp_path / "detector.pt", imgsz=64)
    return tmp_path / "detector.pt"


def cfg(tmp_path, width=8):
    backbone = [[-1, 1, "Conv", [width, 6, 2, 2]], *CFG["backbone"][1:]]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**CFG, "backbone": backbone}))
    return tmp_path / "tiny.yaml"


def test_trains_and_learns_from_a_teacher(tmp_path, data, weights, call):
    given = ["--cfg", cfg(tmp_path), "--data", data, "--imgsz", 64, "--batch", 3, "--device", "cpu", "--epochs", 1]
    status, out, err = call(train, *given, "--project", "runs", "--teacher", weights)
    assert status == 0, err
    assert "IoU" in out
    best = json.loads((tmp_path / "runs/exp/results.json").read_text())["best"]
    assert 0 <= best["miou"] <= 1
    header = (tmp_path / "runs/exp/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train_pixels", "val_pixels", "miou", "pixel_accuracy", "train_distill"} <= set(header)
    model, content = load_detector(tmp_path / "runs/exp/detector.pt")
    assert model.names[10] == "background"
    assert content["miou"] == best["miou"]
    run = ["--weights", tmp_path / "runs/exp/detector.pt", "--data", data, "--device", "cpu", "--project", "runs"]
    status, _, err = call(val, *run, "--name", "val")
    assert status == 0, err
    found = json.loads((tmp_path / "runs/val/results.json").read_text())
    assert found["miou"] == pytest.approx(best["miou"], abs=1e-6)
    assert (tmp_path / "runs/val/confusion_matrix.png").is_file()
    status, _, err = call(prune, *run, "--sparsity", 0.3, "--multiple", 1, "--name", "pruned", "--imgsz", 64)
    assert status == 0, err
    assert "miou" in json.loads((tmp_path / "runs/pruned/results.json").read_text())["after"]


def test_a_mimic_is_least_at_the_teacher():
    torch.manual_seed(0)
    mimic = mimic_of(Model(CFG).head.loss(64))
    assert isinstance(mimic, SemanticMimic)
    teacher = [torch.randn(2, 11, 8, 8)]
    own = [teacher[0].clone().requires_grad_()]
    same = mimic(own, teacher)
    same.backward()
    assert same.item() == pytest.approx(0, abs=1e-5)
    assert own[0].grad.abs().max() < 1e-6
    assert mimic([torch.randn(2, 11, 8, 8)], teacher) > 0.1


def test_a_file_and_its_export_say_the_same(tmp_path, data, weights, call):
    status, _, err = call(export, "--weights", weights)
    assert status == 0, err
    found = {}
    for name in ("detector.pt", "detector.onnx"):
        run = ["--weights", tmp_path / name, "--data", data, "--project", "runs", "--name", name]
        status, _, err = call(val, *run, "--device", "cpu")
        assert status == 0, err
        found[name] = json.loads((tmp_path / "runs" / name / "results.json").read_text())
    assert found["detector.onnx"]["miou"] == pytest.approx(found["detector.pt"]["miou"], abs=1e-3)
    image = detection(data, 64, hyp=None).val[0].image.permute(1, 2, 0).numpy()[:40]
    ours, theirs = (label_image(open_detector(tmp_path / name), image) for name in found)
    assert ours.shape == (40, 64)
    assert len(np.unique(ours)) > 1
    assert (ours == theirs).mean() > 0.999
    for words, parts in (
        (["--nms"], "classes of pixels"),
        (["--int8", "--data", data], "--int8"),
        (["--format", "yolov5"], "Semantic"),
    ):
        status, _, err = call(export, "--weights", weights, *words)
        assert status == 2
        assert len(err.splitlines()) == 1
        assert parts in err


def test_detect_writes_label_maps_that_train_reads(tmp_path, data, weights, call):
    images = detection(data, 64, hyp=None).val
    (tmp_path / "images").mkdir()
    for i in range(2):
        Image.fromarray(images[i].image.permute(1, 2, 0).numpy()).save(tmp_path / f"images/{i}.png")
    run = ["--weights", weights, "--source", "images", "--save-txt", "--save-json", "--project", ".", "--name", "out"]
    status, out, err = call(detect, *run, "--device", "cpu")
    assert status == 0, err
    assert "2 label maps in 2 files" in out
    shares = json.loads((tmp_path / "out/detections.json").read_text())[0]["classes"]
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert np.asarray(Image.open(tmp_path / "out/0.png")).shape == (64, 64, 3)
    (tmp_path / "out/labels").rename(tmp_path / "masks")
    (tmp_path / "data.yaml").write_text(f"train: images\nval: images\nnames: {[str(k) for k in range(11)]}\n")
    found = detection(tmp_path / "data.yaml", 64, hyp=None, finds="labels").train
    detector = open_detector(weights)
    for i in range(2):
        image = images[i].image.permute(1, 2, 0).numpy()
        assert np.array_equal(found[i].meta.label_map, label_image(detector, image))
    status, _, err = call(detect, *run, "--save-crop", "--exist-ok")
    assert status == 2
    assert "--save-crop" in err


def test_is_searched_and_handed_over(tmp_path, data, call):
    width = {"choice": [8, 16], "label": "width"}
    given = ["--strategy", "bignas", "--task", "detect", "--cfg", cfg(tmp_path, width), "--data", data, "--imgsz", 64]
    given += ["--batch", 3, "--epochs", 1, "--cost-imgsz", 64, "--no-baseline", "--device", "cpu", "--project", "runs"]
    status, out, err = call(oneshot_nas, *given)
    assert status == 0, err
    assert "mIoU" in out
    model, _ = load_detector(tmp_path / "runs/exp/detector.pt")
    assert model.config.rows[-1].module == "Semantic"
    assert model.head.nc == 11
