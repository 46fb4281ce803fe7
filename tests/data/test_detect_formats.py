"""YOLO, COCO and VOC give the same boxes; what is wrong in them is mended and counted, or named in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from data import DetectionData, detect, detection, detection_split
from models.errors import InputError
from tests.data.detection_sets import BOXES, NAMES, SIZES, coco, coco_content, save, voc, voc_object, yolo

BCCD = Path(__file__).resolve().parents[3] / "shared/data/bccd/BCCD"


def boxes_by_name(data: DetectionData) -> dict[str, list[tuple]]:
    """stem: sorted (class name, x1, y1, x2, y2) in pixels of the original image, by way of the letterbox."""
    found = {}
    for i in range(len(data.train)):
        item = data.train[i]
        canvas = item.labels.numpy().astype(np.float64)[:, 1:] * data.train.imgsz
        corners = np.concatenate([canvas[:, :2] - canvas[:, 2:] / 2, canvas[:, :2] + canvas[:, 2:] / 2], 1)
        pixels = item.meta.letterbox.to_image(corners).round(3)
        names = [data.names[int(k)] for k in item.labels[:, 0]]
        found[Path(item.meta.name).stem] = sorted((n, *map(float, b)) for n, b in zip(names, pixels, strict=True))
    return found


@pytest.mark.parametrize("write", [yolo, coco, voc])
def test_every_format_gives_the_same_boxes(write, tmp_path):
    data = detection(write(tmp_path), imgsz=64, hyp=None)
    expected = {stem: sorted((NAMES[k], *map(float, box)) for k, *box in boxes) for stem, boxes in BOXES.items()}
    assert boxes_by_name(data) == expected
    assert sorted(data.names) == sorted(NAMES)
    assert data.nc == 3
    assert len(data.val) == 1
    report = data.train.report
    assert (report.images, report.boxes, report.background, report.clipped, report.zero_area) == (3, 3, 1, 0, 0)


def test_a_test_split_is_not_opened_for_training(tmp_path):
    path = yolo(tmp_path)
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "test": "images/nowhere"}))
    assert len(detection(path, 64).val) == 1


def test_class_order_of_each_format(tmp_path):
    assert detection(yolo(tmp_path / "y"), 64).names == ("cat", "dog", "cow")
    assert detection(coco(tmp_path / "c"), 64).names == ("dog", "cat", "cow")  # by category id: 3, 7, 90
    assert detection(voc(tmp_path / "v"), 64).names == ("cat", "cow", "dog")  # sorted


@pytest.mark.parametrize("write", [coco, voc])
def test_a_yaml_sets_the_names_of_any_format(write, tmp_path):
    write(tmp_path / "set")
    entries = {
        coco: "train: {annotations: annotations/instances_train2017.json, images: train2017}\n"
        "val: annotations/instances_val2017.json\n",
        voc: "train: train\nval: val\n",
    }[write]
    (tmp_path / "d.yaml").write_text(f"path: set\n{entries}names: {{0: cat, 1: dog, 2: cow}}\n")
    data = detection(tmp_path / "d.yaml", 64, hyp=None)
    assert data.names == NAMES
    assert sorted(data.train.labels[0][:, 0].tolist()) == [0, 2]


def test_yolo_folder_list_and_lists_of_them(tmp_path):
    yolo(tmp_path)
    (tmp_path / "train.txt").write_text("./images/train/a.png\n\nimages/train/b.png\n")
    text = "val: images/val\nnames: [cat, dog, cow]\n"
    for train, count in (("train.txt", 2), ("[train.txt, images/val]", 3), ("../images/train", 3)):
        (tmp_path / "d.yaml").write_text(f"train: {train}\n{text}")
        assert len(detection(tmp_path / "d.yaml", 64).train) == count


def test_yolo_polygons_become_the_box_around_them(tmp_path):
    source = yolo(tmp_path)
    (tmp_path / "labels/val/a.txt").write_text("1 0.1 0.2 0.5 0.3 0.2 0.6\n")
    assert detection(source, 64).val.labels[0] == pytest.approx(np.array([[1, 0.3, 0.4, 0.4, 0.4]]), abs=1e-6)


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"the BCCD set is not at {BCCD}")
def test_bccd():
    data = detection("bccd", 320)
    assert data.names == ("Platelets", "RBC", "WBC")
    assert data.names == detection(BCCD, 320).names
    test, _ = detection_split("bccd", "test", 320)
    assert [len(s) for s in (data.train, data.val, test)] == [205, 87, 72]
    # 4,888 objects; two Platelets have no area.
    assert sum(s.report.boxes for s in (data.train, data.val, test)) == 4886
    assert sum(s.report.zero_area for s in (data.train, data.val, test)) == 2
    assert data.train.report.clipped == 0


# What can be mended is mended and counted.


def mended(tmp_path: Path, rows: str) -> detect.DetectionSet:
    source = yolo(tmp_path)
    (tmp_path / "labels/val/a.txt").write_text(rows)
    return detection(source, 64).val


def test_a_box_partly_outside_is_clipped(tmp_path):
    val = mended(tmp_path, "0 0.0 0.5 0.4 0.2\n")
    assert val.labels[0] == pytest.approx(np.array([[0, 0.1, 0.5, 0.2, 0.2]]), abs=1e-6)
    assert val.report.clipped == 1


def test_a_box_wholly_outside_is_dropped(tmp_path):
    val = mended(tmp_path, "0 1.5 0.5 0.4 0.2\n0 0.5 0.5 0.1 0.1\n")
    assert (val.report.boxes, val.report.outside, val.report.clipped) == (1, 1, 0)


def test_a_box_without_area_is_dropped(tmp_path):
    val = mended(tmp_path, "0 0.5 0.5 0 0.2\n0 0.5 0.5 0.2 -0.1\n")
    assert (val.report.boxes, val.report.zero_area, val.report.background) == (0, 2, 1)


def test_a_row_that_repeats_is_dropped(tmp_path):
    val = mended(tmp_path, "1 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n")
    assert val.labels[0][:, 0].tolist() == [1, 0]
    assert val.report.duplicates == 1


def test_a_missing_label_file_makes_background(tmp_path):
    source = yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").unlink()
    report = detection(source, 64).train.report
    assert (report.missing_labels, report.background, report.images) == (1, 2, 3)
    assert str(report) == "train: 3 images, 1 boxes, 2 background, 1 without label file"


def test_crowds_and_difficult_objects_are_left_out(tmp_path):
    root = coco(tmp_path / "c")
    content = coco_content("abc")
    content["annotations"][0]["iscrowd"] = 1
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    assert detection(root, 64).train.report.skipped == 1
    root = voc(tmp_path / "v")
    hard = voc_object("dog", (1, 2, 30, 40), "<difficult>1</difficult>")
    (root / "Annotations/b.xml").write_text(f"<annotation>{hard}{voc_object('dog', (1, 2, 30, 40))}</annotation>")
    report = detection(root, 64).train.report
    assert (report.skipped, report.boxes) == (1, 3)


# Corrupt images are found before training.


def break_image(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "garbage":
        path.write_bytes(b"<html>404</html>")
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("how", ["missing", "empty", "garbage", "truncated"])
def test_a_corrupt_image_is_left_out_and_named_once(how, tmp_path, caplog):
    root = voc(tmp_path)
    break_image(root / "JPEGImages/b.png", how)
    train = detection(root, 64).train
    assert len(train) == 2
    assert len(train.labels) == len(train.shapes) == train.report.images == 2
    assert [Path(name).stem for name in train.report.corrupt] == ["b"]
    assert [r.getMessage().count("\n") for r in caplog.records] == [0]
    assert "JPEGImages/b." in caplog.text
    assert all(train[i].image.shape == (3, 64, 64) for i in range(2))


def test_a_truncated_jpeg_is_left_out(tmp_path):
    root = voc(tmp_path)
    (root / "JPEGImages/b.png").unlink()
    save(root / "JPEGImages/b.jpg", SIZES["b"])
    break_image(root / "JPEGImages/b.jpg", "truncated")
    train = detection(root, 64).train
    assert [Path(name).name for name in train.report.corrupt] == ["b.jpg"]
    assert [Path(train[i].meta.name).stem for i in range(2)] == ["a", "c"]


@pytest.mark.parametrize("how", ["garbage", "truncated"])
def test_mostly_corrupt_is_an_error(how, tmp_path):
    root = voc(tmp_path)
    break_image(root / "JPEGImages/b.png", how)
    break_image(root / "JPEGImages/c.png", how)
    with pytest.raises(InputError, match="train: 2 of 3 images cannot be read") as caught:
        detection(root, 64)
    assert "\n" not in str(caught.value)


def test_a_set_too_large_for_memory_is_the_same_and_survives_a_truncated_image(tmp_path, monkeypatch, caplog):
    root = voc(tmp_path)
    kept = detection(root, 64)
    monkeypatch.setattr(detect, "_RAM_BYTES", 0)
    read = detection(root, 64)
    for i in range(3):
        assert kept.train[i].image.equal(read.train[i].image)
    break_image(root / "JPEGImages/a.png", "truncated")
    item = read.val[0]
    assert (item.image == 114).all()
    assert len(item.labels) == 0
    assert "a.png: cannot be read" in caplog.text


# What cannot be mended is named: file, line and what would be right.


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.1", r"a\.txt:2: has 4 numbers, should be 5"),
        ("0 0.5 0.5 0.1 0.1 0.1", r"a\.txt:2: has 6 numbers, should be 5"),
        ("cat 0.5 0.5 0.1 0.1", r"a\.txt:2: 'cat 0.5 0.5 0.1 0.1' should be numbers"),
        ("0 nan 0.5 0.1 0.1", r"a\.txt:2: .* not finite"),
        ("0 0.5 inf 0.1 0.1", r"a\.txt:2: .* not finite"),
        ("0 40 30 20 10", r"a\.txt:2: .* should be shares of the image's size"),
        ("3 0.5 0.5 0.1 0.1", r"a\.txt:2: class 3 is not one of 0 to 2 \(nc=3\)"),
        ("-1 0.5 0.5 0.1 0.1", r"a\.txt:2: class -1 is not one of"),
        ("0.5 0.5 0.5 0.1 0.1", r"a\.txt:2: class 0.5 is not one of"),
    ],
)
def test_yolo_rows_that_cannot_be_understood(row, message, tmp_path):
    source = yolo(tmp_path)
    (tmp_path / "labels/val/a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{row}\n")
    with pytest.raises(InputError, match=message) as caught:
        detection(source, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 4}, r"annotations\[1\]: category_id 4 is not one of the categories \(nc=3\)"),
        ({"bbox": [1, 2, 3]}, r"annotations\[1\]: needs image_id"),
        ({"bbox": [1, 2, 3, float("nan")]}, r"annotations\[1\]: .* not finite"),
        ({"bbox": "1 2 3 4"}, r"annotations\[1\]: needs image_id"),
    ],
)
def test_coco_annotations_that_cannot_be_understood(change, message, tmp_path):
    root = coco(tmp_path)
    content = coco_content("abc")
    content["annotations"][1] |= change
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        detection(root, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "should have a list 'categories'"),
        ('{"categories": [1]}', "should have a list 'categories'"),
        ('{"categories": [{"id": 1, "name": "x"}], "images": [{}]}', "should have id and file_name"),
        ('{"categories": [{"id": 1, "name": "x"}], "images": []}', "lists no images"),
    ],
)
def test_json_that_is_no_coco(text, message, tmp_path):
    root = coco(tmp_path)
    (root / "annotations/instances_train2017.json").write_text(text)
    with pytest.raises(InputError, match=message):
        detection(root, 64)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<object><name>cat</name></object>", r"b\.xml: object 1: has no <bndbox/xmin>"),
        (voc_object("cat", (1, 2, 3, 4)).replace(">4<", ">four<"), r"b\.xml: object 1: bndbox should hold numbers"),
        (voc_object("cat", (1, 2, 3, 4)).replace(">4<", ">inf<"), r"b\.xml: object 1: .* not finite"),
        (voc_object("", (1, 2, 3, 4)), r"b\.xml: object 1: has no <name>"),
        ("<object>\n<name>", r"b\.xml:2: not XML"),
    ],
)
def test_voc_objects_that_cannot_be_understood(body, message, tmp_path):
    root = voc(tmp_path)
    (root / "Annotations/b.xml").write_text(f"<annotation>{body}</annotation>")
    with pytest.raises(InputError, match=message) as caught:
        detection(root, 64)
    assert "\n" not in str(caught.value)


def test_a_voc_name_seen_only_in_validation(tmp_path):
    root = voc(tmp_path)
    (root / "ImageSets/Main/train.txt").write_text("b\n")
    with pytest.raises(InputError, match=r"a\.xml: object 1: 'cat' is none of dog \(nc=1\)"):
        detection(root, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "not YAML"),
        ("just text", "should be a mapping"),
        ("train: images/train\nnames: [a]", "has no 'val'"),
        ("train: images/train\nval: images/val", "needs names"),
        ("train: images/train\nval: images/val\nnc: 2\nnames: [a]", "nc is 2, but there are 1 names"),
        ("train: images/train\nval: images/val\nnc: two", "nc is 'two'"),
        ("train: images/train\nval: images/val\nnames: {1: a, 2: b}", "numbered 0 to 1"),
        ("train: images/train\nval: images/val\nnames: a", "should be a list"),
        ("train: nowhere\nval: images/val\nnames: [a]", "nowhere is neither a folder nor"),
        ("train: 3\nval: images/val\nnames: [a]", "should be a folder"),
        ("path: nowhere\ntrain: images/train\nval: images/val\nnames: [a]", "path nowhere is not a folder"),
        ("train: a.json\nval: b.json", r"a\.json is not there"),
        ("train: labels\nval: images/val\nnames: [a, b, c]", "holds no images"),
        ("format: tfrecord\ntrain: x\nval: y", "format 'tfrecord' is not one of yolo, coco, voc"),
    ],
)
def test_yamls_that_name_nothing(text, message, tmp_path):
    source = yolo(tmp_path)
    source.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        detection(source, 64)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_unknown_sources(tmp_path):
    with pytest.raises(InputError, match=r"give a data\.yaml, a folder, or one of bccd, digits-detect"):
        detection("coco129")
    with pytest.raises(InputError, match="not a detection set"):
        detection(tmp_path)


def test_exif_orientation_is_obeyed(tmp_path):
    from PIL import Image

    source = yolo(tmp_path)
    path = tmp_path / "images/val/a.jpg"
    save(path, SIZES["a"])
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(path, exif=exif)
    (tmp_path / "images/val/a.png").unlink()
    val = detection(source, 64).val
    assert val.shapes[0] == (80, 60)
    assert val[0].meta.letterbox.pad == (8, 0)
