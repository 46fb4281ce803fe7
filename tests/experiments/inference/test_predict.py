"""Detection in files: what is found where, in every kind of weights, and what a run writes of it."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import detect
import export
from data import detection, detection_split, letterbox, read_rgb, to_tensor
from experiments import detect_image, open_detector
from experiments.inference import predict
from experiments.inference.detectors import TorchDetector
from experiments.inference.draw import color_of, draw_detections
from experiments.run import fonts
from experiments.run.cli import run_script
from models import InputError, save_detector
from models.postprocess import non_max_suppression
from optimizer import NMS, export_onnx
from tests.lively import lively

BCCD = Path(__file__).parents[4] / "shared/data/bccd/BCCD/JPEGImages"
IMGSZ = 64
NAMES = ["cat", "dog", "3"]


def _pictures(source):
    """Real images, uint8 (height, width, 3)."""
    if source == "digits":
        dataset, _ = detection_split("digits-detect", "val", 320)
        return [dataset[i].image.permute(1, 2, 0).numpy() for i in range(8)]
    if not BCCD.is_dir():
        pytest.skip(f"BCCD is not at {BCCD}")
    return [read_rgb(path) for path in sorted(BCCD.glob("*.jpg"))[:8]]


def _inputs(pictures):
    return torch.stack([to_tensor(letterbox(p, IMGSZ)[0]) for p in pictures]).float() / 255


@pytest.fixture(scope="module", params=["digits", "bccd"])
def pictures(request):
    return _pictures(request.param)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """detector.pt; .onnx; .onnx of two at a time; .onnx with NMS."""
    folder = tmp_path_factory.mktemp("weights")
    inputs = _inputs(_pictures("digits"))
    model = lively(inputs, NAMES)
    save_detector(model, folder / "detector.pt", imgsz=IMGSZ)
    export_onnx(model, folder / "detector.onnx", IMGSZ, images=inputs)
    export_onnx(model, folder / "two.onnx", IMGSZ, images=inputs, batch=2)
    export_onnx(model, folder / "nms.onnx", IMGSZ, images=inputs, batch=2, nms=NMS(0.25, 0.45, 300))
    return folder


@pytest.mark.parametrize("file", ["detector.onnx", "two.onnx", "nms.onnx"])
def test_exported_files_detect_the_same_boxes(weights, pictures, tmp_path, file):
    model = lively(_inputs(pictures), NAMES)
    nms = NMS(0.25, 0.45, 300) if file == "nms.onnx" else None
    batch = None if file == "detector.onnx" else 2
    path = export_onnx(model, tmp_path / file, IMGSZ, batch=batch, nms=nms, images=_inputs(pictures)).path
    ours, theirs = TorchDetector(model, "cpu", IMGSZ), open_detector(path, "cpu")
    total = 0
    for picture in pictures:
        expected, found = detect_image(ours, picture), detect_image(theirs, picture)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.05)
        total += len(expected)
    assert total > 5 * len(pictures)


class Fixed:
    """Sees the same boxes on every canvas: x, y, width, height, confidence, class."""

    names, imgsz, stride, batch, rect, nms = dict(enumerate(NAMES)), IMGSZ, 32, None, True, None
    dtype = "float32"

    form = "objectness"

    def __init__(self, *rows):
        self.z = torch.zeros(1, len(rows), 8)
        for z, (x, y, w, h, confidence, label) in zip(self.z[0], rows, strict=True):
            z[:5] = torch.tensor([x, y, w, h, confidence])
            z[5 + label] = 1
        self.shapes, self.seen = [], []

    def check_imgsz(self, imgsz):
        return imgsz

    def prepare(self, images):
        self.shapes.append(tuple(images.shape))
        self.seen.append(images)
        return images

    def predict(self, images):
        return self.z

    def wait(self):
        pass


def test_boxes_are_in_pixels_of_the_image():
    """200 x 100 becomes 64 x 32 with 16 above and below: a canvas pixel is 3.125 of the image."""
    detector = Fixed((32, 32, 16, 8, 0.6, 0), (62, 32, 10, 8, 0.9, 2))
    found = detect_image(detector, np.zeros((100, 200, 3), np.uint8))
    expected = torch.tensor([[178.125, 37.5, 200, 62.5, 0.9, 2], [75, 37.5, 125, 62.5, 0.6, 0]])  # clipped at 200
    torch.testing.assert_close(found, expected)
    assert detector.shapes == [(1, 3, 64, 64)]


def test_rect_pads_less():
    detector = Fixed((32, 16, 16, 8, 0.6, 0))
    found = detect_image(detector, np.zeros((100, 200, 3), np.uint8), rect=True)
    assert detector.shapes == [(1, 3, 32, 64)]
    torch.testing.assert_close(found, torch.tensor([[75, 37.5, 125, 62.5, 0.6, 0]]))


def test_thresholds_and_classes():
    detector = Fixed((20, 32, 16, 8, 0.6, 0), (21, 32, 16, 8, 0.5, 0), (50, 32, 10, 8, 0.9, 2))
    image = np.zeros((64, 64, 3), np.uint8)
    assert detect_image(detector, image)[:, 4].tolist() == pytest.approx([0.9, 0.6])
    assert detect_image(detector, image, iou=0.95)[:, 4].tolist() == pytest.approx([0.9, 0.6, 0.5])
    assert detect_image(detector, image, conf=0.7)[:, 4].tolist() == pytest.approx([0.9])
    assert detect_image(detector, image, classes=[0])[:, 4].tolist() == pytest.approx([0.6])
    assert detect_image(detector, image, max_det=1)[:, 4].tolist() == pytest.approx([0.9])


def test_thresholds_and_classes_of_a_graph_with_nms(weights):
    (picture, *_) = _pictures("digits")
    detector = open_detector(weights / "nms.onnx")
    found = detect_image(detector, picture)
    assert len(found) > 8
    assert torch.equal(detect_image(detector, picture, conf=0.5), found[found[:, 4] > 0.5])
    assert torch.equal(detect_image(detector, picture, classes=[1]), found[found[:, 5] == 1])
    assert torch.equal(detect_image(detector, picture, max_det=3), found[:3])


@pytest.fixture
def folder(tmp_path):
    """Three images, one of them below; a text file; a video of five frames of 96 x 64."""
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    for i, (name, size) in enumerate({"a.png": (200, 100), "b.jpg": (60, 60), "below/c.webp": (64, 96)}.items()):
        Image.new("RGB", size, (40 * i, 90, 120)).save(source / name)
    (source / "notes.txt").write_text("not to be read")
    writer = cv2.VideoWriter(str(source / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    for i in range(5):
        writer.write(np.full((64, 96, 3), (0, 0, 30 * i), np.uint8))  # ever redder
    writer.release()
    return source


def _names(given):
    return [str(s.name) for s in predict.find_sources([str(g) for g in given])]


def test_sources(folder):
    assert _names([folder]) == ["a.png", "b.jpg", "below/c.webp", "film.mp4"]
    assert _names([folder / "a.png", folder / "below"]) == ["a.png", "c.webp"]
    assert _names([folder / "*.*"]) == ["a.png", "b.jpg", "film.mp4"]
    assert _names([f"{folder}/**/*.w*"]) == ["c.webp"]
    assert _names([folder / "a.png", folder / "a*"]) == ["a.png"]
    Image.new("RGB", (8, 8)).save(folder / "below/a.jpg")
    assert _names([folder / "a.png", folder / "below/a.jpg"]) == ["a.png", "a_2.jpg"]
    assert [s.is_video for s in predict.find_sources([str(folder)])] == [False, False, False, False, True]


def test_no_sources(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for given, message in (
        ("absent.jpg", "absent.jpg: no such file or folder"),
        (str(tmp_path / "empty"), "no images or videos there"),
        (str(folder / "*.xyz"), "no images or videos there"),
        ("rtsp://camera/1", "streams are not supported"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            predict.find_sources([given])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_path_is_not_the_folder_that_one_is_in(text, capsys):
    """Path("") is; so of every option that is text."""
    with pytest.raises(InputError, match="--source '': is empty"):
        predict.find_sources([text])
    for option in ("--source", "--weights", "--project", "--name"):
        given = {"--source": "a", "--weights": "a.pt", option: text}
        with pytest.raises(SystemExit):
            detect.parse([word for pair in given.items() for word in pair])
        assert f"argument {option}: is empty" in capsys.readouterr().err


def _run(monkeypatch, detector, *options):
    monkeypatch.setattr(predict, "open_detector", lambda *a: detector)  # whatever file is given
    return run_script(detect.main, detect.parse(["--weights", __file__, *map(str, options)]))


def test_a_run_writes_pictures_labels_and_json(folder, tmp_path, monkeypatch, capsys):
    detector = Fixed((32, 32, 16, 8, 0.6, 0), (50, 32, 4, 8, 0.9, 2))
    assert (
        _run(
            monkeypatch, detector, "--source", folder, "--save-txt", "--save-json", "--save-conf", "--project", tmp_path
        )
        == 0
    )
    run = tmp_path / "exp"
    files = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    labels = ["a", "b", "below/c", *(f"film_{i:06}" for i in range(5))]
    pictures = {"a.png", "b.jpg", "below/c.webp", "film.mp4"}
    assert files == {"config.yaml", "detections.json", *pictures, *(f"labels/{name}.txt" for name in labels)}

    assert (run / "labels/a.txt").read_text().splitlines() == [
        "2 0.781250 0.500000 0.062500 0.250000 0.90000",
        "0 0.500000 0.500000 0.250000 0.250000 0.60000",
    ]
    records = json.loads((run / "detections.json").read_text())
    assert [(Path(r["file"]).name, r.get("frame")) for r in records] == [
        *(("a.png", None), ("b.jpg", None), ("c.webp", None)),
        *(("film.mp4", i) for i in range(5)),
    ]
    assert (records[0]["height"], records[0]["width"]) == (100, 200)
    assert records[0]["detections"][1] == {"class": 0, "name": "cat", "confidence": 0.6, "box": [75, 37.5, 125, 62.5]}

    before, after = read_rgb(folder / "a.png"), read_rgb(run / "a.png")
    changed = (before != after).any(2)
    assert changed[37:63, 75:126].any(1).all()
    assert changed[62, 75:126].all()  # its lower edge
    assert not changed[:, :70].any()
    assert not changed[70:].any()

    video = cv2.VideoCapture(str(run / "film.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (5, 10)
    frames = [video.read()[1] for _ in range(5)]
    assert frames[0].shape == (64, 96, 3)
    assert [int(f[5, 5, 2]) for f in frames] == pytest.approx([30 * i for i in range(5)], abs=12)
    assert frames[4][5, 5, 0] < 20  # OpenCV's order: blue first
    red, _, blue = detector.seen[-1][0, :, 12, 3].tolist()
    assert red == pytest.approx(120, abs=12)
    assert blue < 20
    assert frames[0][20:45, 34:62].max() > 150  # the box on black
    assert frames[0][50:].max() < 60

    said = capsys.readouterr().out
    assert "1 cat, 1 3" in said
    assert "16 detections in 4 files" in said


def test_labels_that_were_written_are_trained_on(folder, tmp_path, monkeypatch):
    detector = Fixed((32, 32, 16, 8, 0.6, 0), (50, 32, 4, 8, 0.9, 2))
    options = ("--source", folder / "a.png", folder / "b.jpg", "--save-txt", "--no-save", "--project", tmp_path)
    assert _run(monkeypatch, detector, *options) == 0
    run = tmp_path / "exp"
    (run / "images").mkdir()
    for name in ("a.png", "b.jpg"):
        shutil.copy(folder / name, run / "images")
    (run / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog, '3']\n")
    train = detection(run, 64, hyp=None).train
    assert train.report.missing_labels == 0
    assert train.labels[0] == pytest.approx(
        np.array([[2, 0.78125, 0.5, 0.0625, 0.25], [0, 0.5, 0.5, 0.25, 0.25]]), abs=1e-6
    )
    # A confidence is no part of a label, and the message says where it may come from.
    (run / "labels/a.txt").write_text("2 0.781250 0.500000 0.062500 0.250000 0.90000\n")
    with pytest.raises(InputError, match=r"a\.txt:1: has 6 numbers, should be 5: .* --save-conf"):
        detection(run, 64)


def test_confidences_are_of_labels(folder, tmp_path, monkeypatch, capsys):
    detector = Fixed((32, 32, 16, 8, 0.6, 0))
    assert _run(monkeypatch, detector, "--source", folder, "--save-conf", "--project", tmp_path) == 2
    assert capsys.readouterr().err == "error: --save-conf: is of --save-txt\n"


def test_crops(folder, tmp_path, monkeypatch):
    detector = Fixed((32, 32, 16, 8, 0.6, 0), (50, 32, 4, 8, 0.9, 2))
    detector.names = {0: "a/b", 1: "dog", 2: ".."}
    sources = ("--source", folder / "a.png", folder / "film.mp4")
    assert _run(monkeypatch, detector, *sources, "--save-crop", "--no-save", "--project", tmp_path) == 0
    crops = tmp_path / "exp/crops"
    assert {str(p.relative_to(crops)) for p in crops.rglob("*.jpg")} == {
        *("a_b/a_1.jpg", "_/a_0.jpg"),
        *(f"a_b/film_{i:06}_1.jpg" for i in range(5)),
        *(f"_/film_{i:06}_0.jpg" for i in range(5)),
    }
    cut = read_rgb(crops / "a_b/a_1.jpg").astype(int)
    assert cut == pytest.approx(read_rgb(folder / "a.png")[37:63, 75:125].astype(int), abs=40)


def test_pictures_that_cannot_be_read_are_counted(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "more")
    (tmp_path / "more/x.heic").touch()
    predict.find_sources([str(tmp_path / "more")])
    assert capsys.readouterr().err == f"--source {tmp_path / 'more'}: 1 .heic left out, which cannot be read\n"


# Names in other scripts than the Latin one.


def drawn(name):
    image = np.zeros((200, 200, 3), np.uint8)
    return draw_detections(image, torch.tensor([[10.0, 100, 150, 150, 0.5, 4]]), {4: name})


def test_names_are_drawn_in_a_font_that_has_their_letters():
    # DejaVu Sans, which matplotlib brings, has these.
    assert {len(np.unique(drawn(name))) > 10 for name in ("Кошка", "γάτα", "Żółw")} == {True}
    assert not np.array_equal(drawn("Кошка"), drawn("Мышка"))
    assert fonts.font_for("猫" * 2 + "\uffff") is None


def test_names_that_no_font_has_are_numbers_and_that_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr("experiments.inference.draw.font_for", lambda text: None)
    monkeypatch.setattr(fonts, "_said", set())
    assert np.array_equal(drawn("猫"), drawn("class 4"))
    drawn("猫")
    assert capsys.readouterr().err == ("no font of this system has the letters of 猫: classes are drawn by number\n")


def test_pictures_of_a_run_have_names_in_other_scripts(tmp_path, monkeypatch, capsys, recwarn):
    from experiments.tasks.metrics import DetectionMetrics

    monkeypatch.setattr(fonts, "_said", set())
    metrics = DetectionMetrics(["Кошка", "\U0010fffd"])
    metrics.update([torch.tensor([[0, 0, 9, 9, 0.9, 0], [0, 0, 9, 9, 0.8, 1]])], [torch.tensor([[0, 0, 0, 9, 9.0]])])
    metrics.plot_confusion_matrix(tmp_path / "a.png")
    metrics.plot_pr_curve(tmp_path / "b.png")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith("boxes stand in their place\n")


def test_a_run_writes_no_more_than_asked(folder, tmp_path, monkeypatch):
    detector = Fixed((32, 32, 16, 8, 0.6, 0))
    assert _run(monkeypatch, detector, "--source", folder, "--no-save", "--project", tmp_path) == 0
    assert [p.name for p in (tmp_path / "exp").iterdir()] == ["config.yaml"]


def test_unreadable_files_are_named_and_left_out(folder, tmp_path, monkeypatch, capsys):
    (folder / "bad.jpg").write_text("hello")
    (folder / "bad.mp4").write_text("hello")
    detector = Fixed((32, 32, 16, 8, 0.6, 0))
    assert _run(monkeypatch, detector, "--source", folder, "--project", tmp_path) == 0
    out, err = capsys.readouterr()
    assert "bad.jpg: skipped, cannot be read (not an image file)" in err
    assert "bad.mp4: skipped" in err
    assert "8 detections in 4 files, 2 skipped" in out
    assert not list((tmp_path / "exp").glob("bad*"))
    assert _run(monkeypatch, detector, "--source", f"{folder}/bad*", "--project", tmp_path) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: none of the 2 files")
    assert not (tmp_path / "exp2").exists()


@pytest.mark.parametrize("wanted", [["dog", "3"], ["1", "3"], ["2", "1"]])
def test_classes_by_name_or_number(wanted, folder, tmp_path, monkeypatch):
    """A name comes before a number: "3" is the third class here."""
    detector = Fixed((10, 32, 16, 8, 0.6, 0), (32, 32, 16, 8, 0.7, 1), (50, 32, 10, 8, 0.9, 2))
    options = ["--source", folder / "b.jpg", "--save-json", "--project", tmp_path, "--classes", *wanted]
    assert _run(monkeypatch, detector, *options) == 0
    (record,) = json.loads((tmp_path / "exp/detections.json").read_text())
    assert [d["class"] for d in record["detections"]] == [2, 1]


def test_refusals(weights, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refused(*options):
        assert run_script(detect.main, detect.parse([*map(str, options)])) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    pt, onnx, nms = (weights / name for name in ("detector.pt", "detector.onnx", "nms.onnx"))
    assert "--classes cow" in refused("--weights", pt, "--source", folder, "--classes", "cow")
    assert "--classes 7" in refused("--weights", pt, "--source", folder, "--classes", "7")
    assert "--rect" in refused("--weights", onnx, "--source", folder, "--rect")
    assert "--conf 0.1" in refused("--weights", nms, "--source", folder, "--conf", "0.1")
    assert "exported for 64" in refused("--weights", onnx, "--source", folder, "--imgsz", "96")
    assert "no such file" in refused("--weights", "absent.pt", "--source", folder)
    assert not (tmp_path / "runs").exists()


def test_pictures_show_each_class_in_its_colour():
    image = np.full((200, 300, 3), 128, np.uint8)
    rows = torch.tensor([[50, 60, 120, 150, 0.9, 0], [180, 60, 299, 199, 0.5, 1], [-5, -5, 20, 20, 0.3, 2]])
    drawn = draw_detections(image, rows, dict(enumerate(NAMES)))
    assert (image == 128).all()
    assert tuple(drawn[100, 50]) == tuple(drawn[150, 80]) == color_of(0)
    assert tuple(drawn[100, 180]) == color_of(1)
    assert tuple(drawn[15, 20]) == color_of(2)
    assert (drawn[80:140, 60:110] == 128).all()
    label = drawn[40:60, 50:110].reshape(-1, 3)
    assert (label == color_of(0)).all(1).mean() > 0.15  # a filled label above the box
    assert len({color_of(i) for i in range(80)}) == 80


def test_export_script_compares_on_real_images(weights, folder, tmp_path, capsys):
    """export.py, then detect.py with its file: the same as with the detector."""
    pt, out = weights / "detector.pt", tmp_path / "out.onnx"
    images = tmp_path / "images"
    images.mkdir()
    for i, picture in enumerate(_pictures("digits")):
        Image.fromarray(picture).save(images / f"{i}.png")
    (images / "bad.png").write_text("hello")
    options = ["--weights", pt, "--output", out, "--nms", "--conf", "0.3", "--source", images]
    assert run_script(export.main, export.parse([*map(str, options)])) == 0
    said = capsys.readouterr().out
    assert "8 real images in batches of 1, 2, 5" in said
    assert "bad.png: skipped" in said
    assert f"{out}: " in said
    assert "opset 17, 64 pixels" in said
    results = []
    for weights_file in (pt, out):
        arguments = ["--weights", weights_file, "--source", images, "--conf", "0.3", "--save-json", "--no-save"]
        assert run_script(detect.main, detect.parse([*map(str, arguments), "--project", str(tmp_path)])) == 0
        results.append(json.loads((tmp_path / f"exp{len(results) + 1 if results else ''}/detections.json").read_text()))
    ours, theirs = results
    assert sum(len(r["detections"]) for r in ours) > 20
    for a, b in zip(ours, theirs, strict=True):
        assert [d["class"] for d in a["detections"]] == [d["class"] for d in b["detections"]]
        for x, y in zip(a["detections"], b["detections"], strict=True):
            assert x["box"] == pytest.approx(y["box"], abs=0.1)


def test_export_script_refuses(weights, tmp_path, capsys):
    for options, message in (
        (["--output", "a.pt"], "ends in .onnx"),
        (["--imgsz", "70"], "64 or 80"),
        (["--source", str(tmp_path)], "no images"),
        (["--opset", "3"], "--opset 3"),
    ):
        assert run_script(export.main, export.parse(["--weights", str(weights / "detector.pt"), *options])) == 2
        assert message in capsys.readouterr().err
    assert {p.name for p in weights.iterdir()} == {"detector.pt", "detector.onnx", "two.onnx", "nms.onnx"}
    with pytest.raises(SystemExit):
        export.parse(["--weights", "a", "--batch", "0"])
    assert export.parse(["--weights", "a", "--batch", "4"]).batch == 4
    assert export.parse(["--weights", "a"]).batch is None


def test_detect_image_is_postprocess_on_a_square(weights):
    """Against the definition."""
    detector = open_detector(weights / "detector.pt", "cpu")
    assert detector.imgsz == IMGSZ
    (picture, *_) = _pictures("digits")
    (found,) = non_max_suppression(detector.predict(_inputs([picture])))
    expected = torch.cat(((found[:, :4] * 5).clamp(0, 320), found[:, 4:]), 1)
    torch.testing.assert_close(detect_image(detector, picture), expected, rtol=1e-4, atol=1e-2)
