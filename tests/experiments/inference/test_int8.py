"""`export.py --int8`: the file is there if it is nearly as good as the float one, and is calibrated on training images.

The objects of the data set are what the float detector finds: so it is nearly right, untrained as it is.
"""

import json

import onnx
import pytest
import torch
import yaml
from PIL import Image

import detect
import export
import val
from data import detection_split
from experiments.inference import int8
from experiments.run.cli import run_script
from models import save_detector
from models.postprocess import non_max_suppression
from tests.lively import lively

IMGSZ = 64
NAMES = ["a", "b"]
# An untrained network loses much: it decides by little.
ENOUGH = ("--float-rows", "1", "2", "--max-drop", "0.6")


@pytest.fixture(scope="module", autouse=True)
def _no_clock():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(int8, "milliseconds", lambda files: [(1.5, 1.5)] * len(files))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """detector.pt; set.yaml; black.yaml, whose training images are black."""
    folder = tmp_path_factory.mktemp("int8")
    digits, _ = detection_split("digits-detect", "val", IMGSZ)
    images = torch.stack([digits[i].image for i in range(16)])
    model = lively(images.float() / 255, NAMES)
    save_detector(model, folder / "detector.pt", imgsz=IMGSZ)
    with torch.no_grad():
        found = non_max_suppression(model(images.float() / 255)[0], 0.5, 0.3, 20)
    for split, chosen in (("train", range(8)), ("val", range(8, 16)), ("black", range(8))):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in chosen:
            pixels = images[i].permute(1, 2, 0).numpy() * (split != "black")
            Image.fromarray(pixels).save(folder / f"images/{split}/{i}.png")
            rows = []
            for x1, y1, x2, y2, _, c in found[i].clamp(0, IMGSZ).tolist():
                box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
                rows.append(" ".join(map(str, [int(c), *(v / IMGSZ for v in box)])))
            (folder / f"labels/{split}/{i}.txt").write_text("\n".join(rows))
    for name, training in (("set", "train"), ("black", "black")):
        content = {"path": str(folder), "train": f"images/{training}", "val": "images/val", "names": NAMES}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def _export(folder, *options, data="set", status=0, capsys=None):
    arguments = ["--weights", folder / "detector.pt", "--int8", *options]
    arguments += ["--data", folder / f"{data}.yaml"] if data else []
    assert run_script(export.main, export.parse([*map(str, arguments)])) == status
    return capsys.readouterr() if capsys else None


@pytest.fixture(scope="module")
def file(folder):
    """Written beside the weights, with NMS in the graph too."""
    _export(folder, *ENOUGH)
    _export(folder, *ENOUGH, "--nms", "--output", folder / "nms.onnx")
    return folder / "detector-int8.onnx"


def test_what_calibration_has_not_seen_is_lost(folder, tmp_path, capsys):
    """Were it calibrated on validation images, black training images would not matter."""
    output = tmp_path / "new.onnx"
    said = _export(folder, *ENOUGH, "--output", output, data="black", status=2, capsys=capsys)
    assert "calibrating on 8 of 8 training images" in said.out
    assert said.err.count("\n") == 1
    for part in ("INT8 loses", "more than --max-drop 0.6 (60 points)", "(SPPF)", "--float-rows 1 2 ", "--force"):
        assert part in said.err
    assert list(tmp_path.iterdir()) == []
    assert "written since --force" in _export(folder, "--output", output, "--force", data="black", capsys=capsys).out
    assert output.is_file()


def test_a_row_that_must_stay_in_float_is_named(folder, capsys, monkeypatch):
    """Everything is right as soon as row 4 is in float: of the refusal it is the first, with what it gives back."""
    real = int8.Int8.model
    monkeypatch.setattr(int8.Int8, "model", lambda self, rows=(): real(self, self.rows if 4 in rows else rows))
    said = _export(folder, data="set", status=2, capsys=capsys).err
    assert "on 8 images: row 4 (Conv) +" in said
    assert "right would be --float-rows 4" in said


def test_val_and_detect_run_the_file(folder, file, tmp_path, capsys):
    shared = ["--project", str(tmp_path), "--device", "cpu"]
    of_val = ["--weights", str(file), "--data", str(folder / "set.yaml"), *shared, "--name", "val"]
    assert run_script(val.main, val.parse(of_val)) == 0
    results = json.loads((tmp_path / "val/results.json").read_text())
    assert results["dtype"] == "int8"
    assert results["map50_95"] > 0.15
    assert "detector-int8.onnx(int8)" in "".join(capsys.readouterr().out.split())  # a title that is wrapped
    for name in (file, folder / "nms.onnx"):
        options = ["--weights", str(name), "--source", str(folder / "images/val"), *shared, "--save-json"]
        assert run_script(detect.main, detect.parse([*options, "--name", name.stem])) == 0
        assert f"{name} (int8), 64 pixels" in capsys.readouterr().out
    plain, in_graph = (
        sum(len(image["detections"]) for image in json.loads((tmp_path / f"{stem}/detections.json").read_text()))
        for stem in (file.stem, "nms")
    )
    assert plain > 20
    assert abs(plain - in_graph) <= 0.1 * plain


def test_the_file_is_smaller_in_what_is_stored(file):
    """Of this tiny network nodes weigh more than weights."""
    stored = onnx.load(file).graph.initializer
    sizes = {t.name: len(t.raw_data) for t in stored if t.data_type == onnx.TensorProto.INT8}
    assert sum(sizes.values()) > 5000


def test_refusals(folder, capsys):
    for options, data, parts in (
        ((), None, ["--int8", "--data"]),
        (("--format", "openvino"), "set", ["--format onnx"]),
        (("--max-drop", "-1"), "set", ["--max-drop -1"]),
        (("--opset", "12"), "set", ["--opset 12", "13"]),
    ):
        said = _export(folder, *options, data=data, status=2, capsys=capsys).err
        assert said.count("\n") == 1
        assert all(part in said for part in parts)
    arguments = ["--weights", str(folder / "detector.pt"), "--data", "set"]
    assert run_script(export.main, export.parse(arguments)) == 2
    assert "--data: is of --int8" in capsys.readouterr().err
