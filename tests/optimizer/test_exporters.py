"""Exported files: what they compute, what they say of themselves, and that a wrong one is never left behind."""

import copy
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from data import detection_split
from models import Model, read_config
from models.postprocess import non_max_suppression
from optimizer import NMS, export_onnx, export_openvino, exporters
from optimizer.difference import Difference
from tests.lively import TINY, lively
from tests.refusal import refused

IMGSZ = 64
NAMES = [f"digit {i}" for i in range(10)]


@pytest.fixture(scope="module")
def images():
    dataset, _ = detection_split("digits-detect", "val", IMGSZ)
    return torch.stack([dataset[i].image for i in range(6)]).float() / 255


@pytest.fixture(scope="module")
def model(images):
    return lively(images, NAMES)


def _run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(output)


@torch.no_grad()
@pytest.mark.parametrize("opset", [11, 17, 18])
def test_predicts_what_the_detector_predicts(model, images, tmp_path, opset):
    done = export_onnx(model, tmp_path / "a.onnx", IMGSZ, opset, images=images)
    assert done.opset == opset
    assert done.batches == (1, 2, 5)
    assert done.num_detections is None
    assert 0 < done.difference.largest < 0.05  # of up to 500 pixels
    for n in (1, 3, 6):
        torch.testing.assert_close(_run(done.path, images[:n]), model(images[:n])[0], rtol=1e-4, atol=1e-4)
    written = onnx.load(done.path)
    assert [(o.domain, o.version) for o in written.opset_import] == [("", opset)]
    shape = written.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["N", 160, 15]
    assert list(tmp_path.iterdir()) == [done.path]


@torch.no_grad()
@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("nms", [NMS(), NMS(0.05, 0.3, 7), NMS(0.95, 0.45, 300)], ids=["", "at most 7", "next to none"])
def test_detects_what_postprocess_detects(model, images, tmp_path, opset, nms):
    done = export_onnx(model, tmp_path / "a.onnx", IMGSZ, opset, nms=nms, images=images)
    got = _run(done.path, images)
    expected = non_max_suppression(model(images)[0], nms.conf, nms.iou, nms.max_det)
    assert max(map(len, expected)) <= nms.max_det
    if nms.conf < 0.9:
        assert min(map(len, expected)) >= 7
        assert len(got[:, 6].unique()) > 3
    assert got.shape[1] == 7
    for i, rows in enumerate(expected):
        torch.testing.assert_close(got[got[:, 0] == i, 1:], rows, rtol=1e-4, atol=1e-3)
    assert torch.equal(got[:, 0], got[:, 0].sort().values)


def test_nothing_to_detect_is_an_empty_answer(model, images, tmp_path):
    blind = copy.deepcopy(model)
    for conv in blind.head.m:
        conv.bias.data.view(blind.head.na, -1)[:, 4] -= 40
    done = export_onnx(blind, tmp_path / "a.onnx", IMGSZ, nms=NMS())
    assert _run(done.path, images).shape == (0, 7)
    assert done.num_detections > 100


@torch.no_grad()
def test_one_class_goes_by_objectness(images, tmp_path):
    model = lively(images, ["thing"])
    done = export_onnx(model, tmp_path / "a.onnx", IMGSZ, nms=NMS())
    (expected,) = non_max_suppression(model(images[:1])[0])
    assert len(expected) > 3
    torch.testing.assert_close(_run(done.path, images[:1])[:, 1:], expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_a_fixed_batch_is_fixed(model, images, tmp_path):
    done = export_onnx(model, tmp_path / "a.onnx", IMGSZ, batch=3)
    assert done.batches == (3,)
    torch.testing.assert_close(_run(done.path, images[:3]), model(images[:3])[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match="Expected: 3"):
        _run(done.path, images[:2])


def test_metadata_say_what_it_is(model, tmp_path):
    path = export_onnx(model, tmp_path / "a.onnx", IMGSZ, nms=NMS(0.3, 0.5, 50), arch={"row2.0": 16}).path
    said = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(said["names"]) == {str(i): name for i, name in enumerate(NAMES)}
    assert (said["stride"], said["imgsz"], said["batch"]) == ("16", "64", "dynamic")
    assert json.loads(said["arch"]) == {"row2.0": 16}
    assert json.loads(said["nms"]) == {"conf": 0.3, "iou": 0.5, "max_det": 50}
    (tmp_path / "again.yaml").write_text(said["yaml"])
    assert read_config(tmp_path / "again.yaml").rows == tuple(
        type(r)(**{**r.__dict__, "file": str(tmp_path / "again.yaml")}) for r in model.config.rows
    )
    assert Model(tmp_path / "again.yaml").names == {i: f"class{i}" for i in range(10)}
    assert str(tmp_path).encode() not in path.read_bytes()


def test_leaves_no_trace_of_this_machine(model, tmp_path):
    path = export_onnx(model, tmp_path / "a.onnx", IMGSZ, opset=18).path
    assert b"network.py" not in path.read_bytes()


def test_leaves_the_model_as_it_is(model, images, tmp_path):
    before = copy.deepcopy(model.state_dict())
    export_onnx(model, tmp_path / "a.onnx", IMGSZ, nms=NMS())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def _off_by_a_hair(monkeypatch):
    """What is exported differs from the detector: a bias of its head has moved."""
    real = exporters._onnx_of

    def wrong(onnx, model, *args):
        model = copy.deepcopy(model)
        model.head.m[0].bias.data[5] += 1e-3
        return real(onnx, model, *args)

    monkeypatch.setattr(exporters, "_onnx_of", wrong)


def _other_opset(monkeypatch):
    real = exporters._onnx_of
    monkeypatch.setattr(exporters, "_onnx_of", lambda o, m, imgsz, opset, batch: real(o, m, imgsz, opset - 1, batch))


def _not_of_the_class(monkeypatch):
    text = exporters._NMS_TEXT.replace("Where (nms_is_best, nms_scores, nms_zero)", "Identity (nms_scores)")
    monkeypatch.setattr(exporters, "_NMS_TEXT", text)


def _one_too_many(monkeypatch):
    monkeypatch.setattr(exporters, "_NMS_TEXT", exporters._NMS_TEXT.replace("{max_det}.5", "{max_det}1.5"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_off_by_a_hair, "differs from the network by"),
        (_other_opset, "asked for opset 17"),
        (_not_of_the_class, "detections in a batch of 1"),
        (_one_too_many, "detections in a batch of 1"),
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["no file before", "a file before"])
def test_a_wrong_file_is_never_there(model, tmp_path, monkeypatch, spoil, message, there):
    spoil(monkeypatch)
    path = tmp_path / "a.onnx"
    if there:
        path.write_text("of last week")
    with refused(message):
        export_onnx(model, path, IMGSZ, 17, nms=NMS(0.05, 0.45, 10))
    assert [p.read_text() for p in tmp_path.iterdir()] == (["of last week"] if there else [])


def test_a_difference_is_relative_and_absolute():
    expected = torch.tensor([0.0, 1000.0])
    found = exporters._difference(expected, torch.tensor([9e-5, 1000.05]), "x")
    assert (found.largest, found.value) == (pytest.approx(0.05, abs=1e-4), 1000)
    assert found.used == pytest.approx(0.9, abs=1e-3)  # of the first, of which 1e-4 is allowed
    assert found.said(1e-4) == (
        "largest difference 0.05, of the number 1000, which may differ by 0.1 (0.0001 + 0.0001 times the number); no "
        "number takes more than 90 % of what is allowed it"
    )
    further = exporters._difference(expected, torch.tensor([0.0, 1000.09]), "x")
    assert (found | further) == Difference(further.largest, 1000, max(found.used, further.used))
    for wrong in ([1.1e-4, 1000.0], [0.0, 1000.11], [torch.nan, 1000.0], [torch.inf, 1000.0]):
        with refused("x: differs"):
            exporters._difference(expected, torch.tensor(wrong), "x")
    with refused("gives [1]"):
        exporters._difference(expected, torch.zeros(1), "x")


def test_options_that_do_not_fit(model, tmp_path):
    path = tmp_path / "a.onnx"
    with refused("--imgsz 70", "64 or 80"):
        export_onnx(model, path, 70)
    with refused("--opset 9", "11 to"):
        export_onnx(model, path, IMGSZ, 9)
    with refused("--opset 99"):
        export_onnx(model, path, IMGSZ, 99)
    with refused("--conf 1.5"):
        export_onnx(model, path, IMGSZ, nms=NMS(1.5))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript", "openvino"])
def test_a_missing_package_is_named(model, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    write = export_openvino if package == "openvino" else export_onnx
    with refused(f"pip install {package}"):
        write(model, tmp_path / "a.xml", IMGSZ, 18)
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_openvino(model, images, tmp_path):
    ov = pytest.importorskip("openvino", reason="openvino is an optional package")
    done = export_openvino(model, tmp_path / "a.xml", IMGSZ, nms=NMS(0.05, 0.45, 20), images=images)
    assert {p.name for p in tmp_path.iterdir()} == {"a.xml", "a.bin"}
    network = ov.Core().read_model(done.path)
    assert json.loads(network.get_rt_info(["framework", "names"]).astype(str))["3"] == "digit 3"
    compiled = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = torch.from_numpy(np.array(compiled([images.numpy()])[0]))
    expected = non_max_suppression(model(images)[0], 0.05, 0.45, 20)
    for i, rows in enumerate(expected):
        torch.testing.assert_close(got[got[:, 0] == i, 1:], rows, rtol=1e-4, atol=1e-3)


def test_shipped_yaml_exports(tmp_path):
    assert export_onnx(Model("models/yolov5n.yaml", nc=2), tmp_path / "n.onnx", IMGSZ).opset == 17
    assert TINY["head"][-1][2] == "Detect"
