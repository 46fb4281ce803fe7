"""Validation: the numbers are the metrics', whatever computes the predictions, and a run leaves what it should."""

import copy
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from faster_coco_eval import COCO, COCOeval_faster

import val
from data import coco_ids, detection, detection_split
from experiments import DetectionMetrics, evaluate
from experiments.inference import validate
from experiments.inference.detectors import OnnxDetector, TorchDetector, open_detector
from experiments.run.cli import run_script
from models import InputError, Model, load_plugin, registry, save_detector
from models.files import atomic
from models.postprocess import non_max_suppression
from optimizer import NMS, export_onnx
from tests.data.detection_sets import NAMES, coco, voc, yolo
from tests.lively import lively

BCCD = Path(__file__).parents[4] / "shared/data/bccd/BCCD"
IMGSZ = 64


class Oracle:
    """Predicts the objects of a data set, in order; what `spoil` makes of them."""

    stride, batch, rect, nms, dtype, form = 32, None, False, None, "float32", "objectness"

    def __init__(self, dataset, names, spoil=lambda z: z):
        self.names, self.imgsz = dict(enumerate(names)), dataset.imgsz
        self._dataset, self._spoil, self._next = dataset, spoil, 0

    def check_imgsz(self, imgsz):
        assert imgsz == self.imgsz
        return imgsz

    def prepare(self, images):
        assert images.dtype == torch.uint8
        return images

    def predict(self, images):
        rows = [self._dataset[self._next + i].labels for i in range(len(images))]
        self._next += len(images)
        z = torch.zeros(len(images), max(map(len, rows)), 5 + len(self.names))
        for image, labels in zip(z, rows, strict=True):
            image[: len(labels), :4] = labels[:, 1:] * self.imgsz
            image[: len(labels), 4] = torch.linspace(0.9, 0.5, len(labels))
            image[range(len(labels)), 5 + labels[:, 0].int()] = 1.0
        return self._spoil(z)

    def wait(self):
        pass


@pytest.fixture(scope="module")
def bccd():
    if not BCCD.is_dir():
        pytest.skip(f"BCCD is not at {BCCD}")
    return detection_split("bccd", "val", IMGSZ)


@pytest.fixture(scope="module")
def digits():
    return detection_split("digits-detect", "val", IMGSZ)


@pytest.fixture(scope="module")
def model(digits):
    dataset, names = digits
    return lively(torch.stack([dataset[i].image for i in range(6)]).float() / 255, list(names))


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The same detector as detector.pt, as ONNX, as ONNX of three images at a time, and as ONNX with NMS."""
    folder = tmp_path_factory.mktemp("weights")
    save_detector(model, folder / "detector.pt", imgsz=IMGSZ)
    dataset, _ = detection_split("digits-detect", "val", IMGSZ)
    images = torch.stack([dataset[i].image for i in range(6)]).float() / 255
    export_onnx(model, folder / "detector.onnx", IMGSZ, images=images)
    export_onnx(model, folder / "three.onnx", IMGSZ, images=images, batch=3)
    export_onnx(model, folder / "nms.onnx", IMGSZ, images=images, nms=NMS())
    return folder


@pytest.mark.parametrize("data", ["digits", "bccd"])
def test_what_is_right_scores_one(data, request):
    dataset, names = request.getfixturevalue(data)
    found = validate.measure(Oracle(dataset, names), dataset, 7).metrics.compute()
    assert found["images"] == len(dataset)
    assert found["instances"] == sum(len(labels) for labels in dataset.labels)
    # Letterboxed to 64 pixels and back, boxes keep their places to rounding.
    assert found["map50_95"] > 0.99
    assert found["precision"] > 0.99


@pytest.mark.parametrize(
    ("spoil", "map50", "map75"),
    [
        (lambda z: z * torch.tensor([1, 1, 1, 0.6] + [1] * 13)[: z.shape[2]], 1, 0),  # IoU 0.6
        (lambda z: torch.cat((z[..., :5], z[..., 5:].roll(1, 2)), 2), 0, 0),  # another class
        (lambda z: z.flip(0), 0, 0),  # another image's
    ],
    ids=["flat", "class", "image"],
)
def test_what_is_wrong_scores_less(digits, spoil, map50, map75):
    dataset, names = digits
    found = validate.measure(Oracle(dataset, names, spoil), dataset, 8).metrics.compute()
    assert found["map50"] == pytest.approx(map50, abs=0.2)
    assert found["map75"] == pytest.approx(map75, abs=0.2)


@torch.no_grad()
def test_measures_the_models_detections_in_original_pixels(digits, model):
    """Against the definition, image by image, on the model as it is (`measure` fuses it)."""
    dataset, names = digits
    measured = validate.measure(TorchDetector(model), dataset, 16, conf=0.25, max_det=20)
    metrics = DetectionMetrics(names)
    for i in range(len(dataset)):
        item = dataset[i]
        (found,) = non_max_suppression(model(item.image[None].float() / 255)[0], 0.25, 0.6, 20, multi_label=True)
        boxes = (found[:, :4] * 320 / IMGSZ).clamp(0, 320)  # digits are on squares: no border
        metrics.update([torch.cat((boxes, found[:, 4:]), 1)], [torch.zeros(0, 5)])
        assert measured.metas[i].name == item.meta.name
    found, expected = measured.detections, metrics._predictions
    assert sum(map(len, expected)) > 5 * len(dataset)
    assert _share_of_same(found, expected) > 0.95


def _share_of_same(found, expected):
    """Images whose detections are the same, in any order: two of equal confidence change places."""

    def same(a, b):
        difference = (a[:, None].float() - b[None].float()).abs()
        near = (difference <= 0.05 * torch.tensor([1, 1, 1, 1, 0.01, 0.01])).all(2)
        return len(a) == len(b) and bool(near.any(0).all() and near.any(1).all())

    return sum(same(a, b) for a, b in zip(found, expected, strict=True)) / len(found)


def test_evaluate_is_what_measure_finds(digits, model):
    measured = validate.measure(TorchDetector(model), digits[0], 16)
    found = evaluate(model, digits[0], 16)
    assert set(found) == {*measured.metrics.compute(), "speed"}
    assert {**found, "speed": None} == {**measured.metrics.compute(), "speed": None}


def test_evaluate_leaves_the_model_as_it_is(digits, model):
    before = copy.deepcopy(model.state_dict())
    training = copy.deepcopy(model).train()
    evaluate(model, digits[0])
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    evaluate(training, digits[0])
    assert training.training


def test_speed_is_the_time_it_took(digits, model, monkeypatch):
    real = validate.detections_of
    monkeypatch.setattr(validate, "detections_of", lambda *a, **k: (time.sleep(0.1), real(*a, **k))[1])
    monkeypatch.setattr(DetectionMetrics, "update", lambda *a: time.sleep(0.1))  # which is no part of it
    monkeypatch.setattr(DetectionMetrics, "compute", lambda *a: {})
    started = time.perf_counter()
    speed = evaluate(model, digits[0], 20)["speed"]
    ms = 1000 * (time.perf_counter() - started) / len(digits[0])
    assert list(speed) == ["pre", "model", "nms"]
    assert all(part > 0 for part in speed.values())
    assert sum(speed.values()) < ms - 0.99 * 100 / 20
    assert speed["nms"] > 100 / 20


@pytest.mark.parametrize("file", ["detector.onnx", "three.onnx"])
def test_onnx_gives_the_same_numbers(digits, files, file):
    dataset, names = digits
    ours = validate.measure(open_detector(files / "detector.pt", "cpu"), dataset, 32, names, conf=0.25)
    theirs = validate.measure(open_detector(files / file, "cpu"), dataset, 32, names, conf=0.25)
    assert len(theirs.detections) == len(dataset) == 200  # three do not divide it
    assert sum(map(len, ours.detections)) > 5 * len(dataset)
    assert _share_of_same(theirs.detections, ours.detections) > 0.95
    expected, found = ours.metrics.compute(), theirs.metrics.compute()
    assert found["map50"] == pytest.approx(expected["map50"], rel=0.05)


def test_a_run_leaves_its_files(files, tmp_path, capsys):
    arguments = ["--weights", str(files / "detector.pt"), "--project", str(tmp_path), "--save-json", "--conf", "0.3"]
    assert run_script(val.main, val.parse(arguments)) == 0
    run = tmp_path / "exp"
    names = {"config.yaml", "results.json", "confusion_matrix.png", "pr_curve.png", "predictions.json"}
    assert {p.name for p in run.iterdir()} == names
    results = json.loads((run / "results.json").read_text())
    assert (results["imgsz"], results["images"]) == (IMGSZ, 200)
    assert set(results["speed"]) == {"pre", "model", "nms"}
    assert yaml.safe_load((run / "config.yaml").read_text())["options"]["conf"] == 0.3
    said = capsys.readouterr().out
    assert all(word in said for word in ("mAP50-95", "pre ", "model ", "nms ", "val: 200 images"))
    predictions = json.loads((run / "predictions.json").read_text())
    assert predictions
    assert min(p["score"] for p in predictions) > 0.3
    assert run_script(val.main, val.parse(arguments[:-3])) == 0
    assert (tmp_path / "exp2/results.json").is_file()
    assert not (tmp_path / "exp2/predictions.json").exists()


def test_predictions_json_scores_the_same_with_cocos_own_file(tmp_path, monkeypatch):
    """Image and category ids are those of the annotations, which have gaps and another order than the names."""
    root = coco(tmp_path / "set")
    dataset, names = detection_split(root, "train", IMGSZ)
    oracle = Oracle(dataset, names, lambda z: z * torch.tensor([1, 1, 1, 0.72] + [1] * 4))
    monkeypatch.setattr(validate, "open_detector", lambda *a: oracle)
    (tmp_path / "oracle").touch()
    weights = tmp_path / "oracle"
    options = ["--weights", weights, "--data", root, "--split", "train", "--save-json", "--project", tmp_path]
    assert run_script(val.main, val.parse([*map(str, options)])) == 0
    truth = json.loads((root / "annotations/instances_train2017.json").read_text())
    for i, annotation in enumerate(truth["annotations"], 1):
        annotation.update(id=i, area=annotation["bbox"][2] * annotation["bbox"][3])
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    truth = COCO(str(tmp_path / "truth.json"))
    theirs = COCOeval_faster(truth, truth.loadRes(str(tmp_path / "exp/predictions.json")), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    results = json.loads((tmp_path / "exp/results.json").read_text())
    assert 0.3 < results["map50_95"] < 0.6
    assert results["map50_95"] == pytest.approx(theirs.stats[0], abs=1e-6)


def test_other_formats_name_images_by_their_files(tmp_path):
    data = yolo(tmp_path)
    dataset, names = detection_split(data, "train", IMGSZ)
    measured = validate.measure(Oracle(dataset, names), dataset)
    validate.save_coco_json(measured, tmp_path / "p.json")
    rows = json.loads((tmp_path / "p.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in rows] == [("a", 0), ("a", 2), ("b", 1)]
    assert rows[0]["bbox"] == pytest.approx([10, 20, 20, 30], abs=0.01)


def test_ids_of_files_that_share_a_name(tmp_path):
    data = coco(tmp_path)
    file = next((tmp_path / "annotations").glob("instances*train*.json"))
    content = json.loads(file.read_text())
    folder = next(p.parent for p in tmp_path.rglob(content["images"][0]["file_name"]))
    for i, image in enumerate(content["images"]):
        (folder / f"v{i}").mkdir()
        (folder / image["file_name"]).rename(folder / f"v{i}" / "same.png")
        image["file_name"] = f"v{i}/same.png"
    file.write_text(json.dumps(content))
    dataset, names = detection_split(data, "train", IMGSZ)
    measured = validate.measure(Oracle(dataset, names), dataset)
    validate.save_coco_json(measured, tmp_path / "p.json", coco_ids(data, "train"))
    found = {row["image_id"] for row in json.loads((tmp_path / "p.json").read_text())}
    assert found == {a["image_id"] for a in content["annotations"]}
    assert len(found) == 2


def test_a_split_opens_no_other(tmp_path):
    data = yolo(tmp_path)
    (tmp_path / "labels/train/b.txt").write_text("9 none of these is a number")
    dataset, names = detection_split(data, "val", IMGSZ)
    assert (len(dataset), names) == (1, NAMES)
    assert dataset.hyp is None
    with pytest.raises(InputError, match=r"b\.txt"):
        detection_split(data, "train", IMGSZ)
    with pytest.raises(InputError, match="has no 'test'; right would be one of train, val"):
        detection_split(data, "test", IMGSZ)


def _refused(capsys, *options):
    assert run_script(val.main, val.parse([*map(str, options)])) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    return err


def test_refusals(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = files / "detector.pt"
    assert "--nms" in _refused(capsys, "--weights", files / "nms.onnx")
    assert "no such file" in _refused(capsys, "--weights", "absent.pt")
    assert "no such file" in _refused(capsys, "--weights", "absent.onnx")
    assert "10 classes" in _refused(capsys, "--weights", three_classes(tmp_path))
    assert "has no 'test'" in _refused(capsys, "--weights", weights, "--split", "test")
    assert "64 or 80" in _refused(capsys, "--weights", weights, "--imgsz", "70")
    assert "exported for 64" in _refused(capsys, "--weights", files / "detector.onnx", "--imgsz", "96")
    assert "--conf 1.5" in _refused(capsys, "--weights", weights, "--conf", "1.5")
    assert "--device tpu" in _refused(capsys, "--weights", weights, "--device", "tpu")
    if not torch.cuda.is_available():
        assert "0 CUDA devices" in _refused(capsys, "--weights", weights, "--device", "cuda")
    assert "--arch: is of --supernet" in _refused(capsys, "--weights", weights, "--arch", "min")
    assert "--split: the subnets of" in _refused(capsys, "--supernet", "run", "--split", "test")
    (tmp_path / "text.onnx").write_text("hello")
    assert "text.onnx" in _refused(capsys, "--weights", "text.onnx")
    assert not (tmp_path / "runs").exists()


def test_a_detector_of_ones_own_modules_is_measured_with_the_plugin(tmp_path, capsys, monkeypatch):
    plugin, data = tmp_path / "mine.py", yolo(tmp_path)
    plugin.write_text(
        "from models import register\nfrom models.blocks import Conv\n@register()\nclass Mine(Conv): pass"
    )
    module = load_plugin(plugin)
    rows = {"backbone": [[-1, 1, "Mine", [8, 3, 8]]], "head": [[[0], 1, "Detect", ["nc", [[8, 8]]]]]}
    save_detector(Model({"nc": 3, "anchors": [[8, 8]], **rows}), tmp_path / "mine.pt")
    del registry._REGISTRY["Mine"], sys.modules[module.__name__]
    monkeypatch.chdir(tmp_path)
    options = ("--weights", tmp_path / "mine.pt", "--data", data, "--imgsz", "64", "--device", "cpu")
    assert "unknown module" in _refused(capsys, *options)
    assert run_script(val.main, val.parse([*map(str, options), "--plugin", str(plugin)])) == 0


def three_classes(folder):
    save_detector(Model("models/yolov5n.yaml", nc=3), folder / "three.pt")
    return folder / "three.pt"


def test_onnx_of_others_has_no_names(files, tmp_path):
    import onnx

    content = onnx.load(files / "detector.onnx")
    del content.metadata_props[:]
    with atomic(tmp_path / "other.onnx") as path:
        onnx.save(content, path)
    with pytest.raises(InputError, match=r"not a file of export\.py"):
        OnnxDetector(tmp_path / "other.onnx")


def test_augmented_images_and_other_channels_are_refused(model, digits, tmp_path):
    with pytest.raises(InputError, match="augmented"):
        evaluate(model, detection(yolo(tmp_path), IMGSZ).train, names=range(10))
    with pytest.raises(InputError, match="takes 1 channels"):
        TorchDetector(Model("models/yolov5n.yaml", ch=1))
    with pytest.raises(InputError, match=r"has a, b and lacks 0, 1, 2, 3, 4… \(2 classes for 10\)"):
        evaluate(model, digits[0], names=["a", "b"])


def test_a_detector_of_other_names_is_refused_and_one_without_names_noted(files, tmp_path, capsys, model):
    other = copy.deepcopy(model)
    other.names = dict(enumerate("0123456ab9"))
    save_detector(other, tmp_path / "other.pt", imgsz=IMGSZ)
    assert "other.pt was made for: the data has 7, 8 and lacks a, b" in _refused(
        capsys, "--weights", tmp_path / "other.pt", "--project", tmp_path
    )
    assert not (tmp_path / "exp").exists()
    other.names = {i: f"class{i}" for i in range(10)}
    save_detector(other, tmp_path / "other.pt", imgsz=IMGSZ)
    options = ["--weights", str(tmp_path / "other.pt"), "--project", str(tmp_path)]
    assert run_script(val.main, val.parse(options)) == 0
    assert "calls its classes class0, class1, class2, class3, class4…" in capsys.readouterr().out


def test_classes_in_another_order_are_taken_by_name(digits):
    """Each class has its own scores, whatever order the detector has them in."""
    dataset, names = digits
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]

    def scores(*spoil):
        found = validate.measure(Oracle(dataset, *spoil), dataset, 7, names)
        return found.metrics.compute(), found.detections

    def without_threes(z):
        z[..., 5 + 3] = 0
        return z

    own, detections = scores(names, without_threes)
    other, again = scores(
        [names[k] for k in order], lambda z: torch.cat((z[..., :5], without_threes(z)[..., 5:][..., order]), 2)
    )
    assert own == other
    assert own["classes"]["3"]["ap50"] == 0
    assert own["classes"]["4"]["ap50"] > 0.99
    assert all(torch.equal(a, b) for a, b in zip(detections, again, strict=True))


def test_a_voc_folder_and_a_coco_folder_of_the_same_classes(tmp_path):
    """The one numbers classes by name, the other by id."""
    made = {write: detection_split(write(tmp_path / write.__name__), "train", IMGSZ) for write in (voc, coco)}
    (_, by_name), (dataset, by_id) = made[voc], made[coco]
    assert sorted(by_name) == sorted(by_id)
    assert by_name != by_id
    to_theirs = [by_id.index(name) for name in by_name]
    oracle = Oracle(dataset, by_name, lambda z: torch.cat((z[..., :5], z[..., 5:][..., to_theirs]), 2))
    found = validate.measure(oracle, dataset).metrics.compute()
    assert found["map50"] == pytest.approx(1)


def test_nothing_to_find_is_not_measured(files, tmp_path, capsys):
    source = yolo(tmp_path)
    for label in (tmp_path / "labels/val").iterdir():
        label.write_text("")
    model = Model("yolov5n.yaml", nc=3)
    model.names = dict(enumerate(NAMES))
    save_detector(model, tmp_path / "three.pt")
    given = ("--weights", tmp_path / "three.pt", "--data", source, "--imgsz", IMGSZ, "--project", tmp_path / "runs")
    assert "nothing to find in any image: val: 1 images, 0 boxes" in _refused(capsys, *given)
    assert not (tmp_path / "runs").exists()


def test_an_exported_file_that_predicts_what_is_not_finite_is_refused(files, tmp_path):
    import onnx

    content = onnx.load(files / "detector.onnx")
    weights = next(t for t in content.graph.initializer if len(t.dims) == 4)
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(weights.dims, np.nan, np.float32), weights.name))
    onnx.save(content, tmp_path / "nan.onnx")
    with pytest.raises(InputError, match=r"nan\.onnx: predicts numbers that are not finite"):
        validate.measure(OnnxDetector(tmp_path / "nan.onnx"), detection_split("digits-detect", "val", IMGSZ)[0])
