"""A segmenter as people train, measure, export and use it, by the scripts in this process."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import detect
import export
import train
import val
from data import detection, detection_split
from experiments.inference.detectors import open_detector
from experiments.inference.predict import segment_image
from models import Model, load_detector, save_detector
from tests.lively import TINY, lively

CFG = {**TINY, "head": [*TINY["head"][:-1], [[8, 5], 1, "Segment", ["nc", "anchors", 8, 16]]]}
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
    images, names = detection_split(data, "val", 64)
    inputs = torch.stack([images[i].image for i in range(4)]).float() / 255
    save_detector(lively(inputs, list(names), CFG), tmp_path / "detector.pt", imgsz=64)
    return tmp_path / "detector.pt"


def test_trains_on_masks_and_measures_them(tmp_path, data, call):
    Model(CFG, nc=10)
    import yaml

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"nc": 10, **CFG}))
    given = ["--cfg", tmp_path / "tiny.yaml", "--data", data, "--imgsz", 64, "--batch", 3, "--device", "cpu"]
    status, out, err = call(train, *given, "--epochs", 1, "--project", "runs")
    assert status == 0, err
    assert "mask mAP50-95" in out
    best = json.loads((tmp_path / "runs/exp/results.json").read_text())["best"]
    assert {"map50_95", "mask_map50_95", "mask_map50"} <= set(best)
    header = (tmp_path / "runs/exp/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train_mask", "val_mask", "mask_map50_95"} <= set(header)
    model, content = load_detector(tmp_path / "runs/exp/detector.pt")
    assert model.head.num_coefficients == 8
    assert content["mask_map50_95"] == best["mask_map50_95"]
    status, _, err = call(train, *given[:2], "--data", "digits-detect", *given[4:], "--epochs", 1)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "no outline" in err


def test_file_and_export_measure_and_find_the_same(tmp_path, data, weights, call):
    for words in ([], ["--nms", "--output", tmp_path / "nms.onnx"]):
        status, _, err = call(export, "--weights", weights, *words)
        assert status == 0, err
    found = {}
    for name in ("detector.pt", "detector.onnx"):
        run = ["--weights", tmp_path / name, "--data", data, "--project", "runs", "--name", name, "--save-json"]
        status, _, err = call(val, *run, "--device", "cpu")
        assert status == 0, err
        found[name] = json.loads((tmp_path / "runs" / name / "results.json").read_text())
        rows = json.loads((tmp_path / "runs" / name / "predictions.json").read_text())
        assert sum(rows[0]["segmentation"]["counts"]) == 64 * 64
    for key in ("map50", "map50_95", "mask_map50", "mask_map50_95"):
        assert found["detector.onnx"][key] == pytest.approx(found["detector.pt"][key], abs=0.02)

    image = detection(data, 64, hyp=None).val[0].image.permute(1, 2, 0).numpy()
    ours = segment_image(open_detector(weights), image)
    for name in ("detector.onnx", "nms.onnx"):
        boxes, masks = segment_image(open_detector(tmp_path / name), image)
        torch.testing.assert_close(boxes, ours[0], rtol=1e-3, atol=0.05)
        same = [np.mean(a.on((64, 64)) == b.on((64, 64))) for a, b in zip(masks, ours[1], strict=True)]
        assert len(same) > 3
        assert min(same) > 0.97


def test_detect_draws_masks_and_writes_polygons(tmp_path, data, weights, call):
    images = detection(data, 64, hyp=None).val
    (tmp_path / "in").mkdir()
    for i in range(2):
        Image.fromarray(images[i].image.permute(1, 2, 0).numpy()).save(tmp_path / f"in/{i}.png")
    run = ["--weights", weights, "--source", "in", "--save-txt", "--save-json", "--project", "runs", "--device", "cpu"]
    status, _, err = call(detect, *run, "--conf", 0.5)
    assert status == 0, err
    folder = tmp_path / "runs/exp"
    records = json.loads((folder / "detections.json").read_text())
    for record in records:
        name = record["file"].split("/")[-1].split(".")[0]
        lines = (folder / f"labels/{name}.txt").read_text().splitlines()
        with_mask = [d for d in record["detections"] if sum(d["segmentation"]["counts"][1::2])]
        assert len(lines) == len(with_mask) > 0
        for line, row in zip(lines, with_mask, strict=True):
            label, *corners = map(float, line.split())
            assert label == row["class"]
            assert len(corners) % 2 == 0
            assert len(corners) >= 6
            x1, y1, x2, y2 = (v / 64 for v in row["box"])
            xs, ys = corners[::2], corners[1::2]
            assert x1 - 0.02 < min(xs) < max(xs) < x2 + 0.02
            assert y1 - 0.02 < min(ys) < max(ys) < y2 + 0.02
        drawn = np.asarray(Image.open(folder / f"{name}.png")).astype(int)
        before = np.asarray(Image.open(tmp_path / f"in/{name}.png")).astype(int)
        assert (np.abs(drawn - before).sum(2) > 0).sum() > 50
    # What was written is what masks can be learnt from.
    (tmp_path / "set/images").mkdir(parents=True)
    (tmp_path / "set/labels").mkdir()
    for i in range(2):
        (tmp_path / f"in/{i}.png").rename(tmp_path / f"set/images/{i}.png")
        (folder / f"labels/{i}.txt").rename(tmp_path / f"set/labels/{i}.txt")
    (tmp_path / "set/data.yaml").write_text(f"train: images\nval: images\nnames: {[str(k) for k in range(10)]}\n")
    assert detection(tmp_path / "set", 64, hyp=None, finds="masks").train[0].masks.any()
