"""YOLO, COCO and VOC give the same boxes; what is wrong in them is mended and counted, or named in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from data import DetectionData, UnreadableImageError, coco_ids, detect, detection, detection_split, read_rgb
from data.images import is_constant
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
    return detection_split(source, "val", 64)[0]


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
        ("train: [", "not valid YAML"),
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


POSE = "1 0.5 0.5 0.2 0.4 0.4 0.4 2 0.6 0.4 1 0.6 0.6 2 0.4 0.6 0\n"


def test_key_points_are_not_taken_for_polygons(tmp_path):
    """class, box, and four points x, y, visibility: 16 numbers, as many as of a polygon of eight points."""
    source = yolo(tmp_path)
    (tmp_path / "labels/val/a.txt").write_text(POSE + "2 0.5 0.5 0.5 0.5\n")
    with pytest.raises(InputError, match=r"a\.txt:1: .*polygon, whose points should lie from 0 to 1; .*kpt_shape"):
        detection(source, 64)
    plain = source.read_text()
    source.write_text(f"{plain}kpt_shape: [4, 3]\n")
    boxes = detection(source, 64).val.labels[0]
    assert boxes == pytest.approx(np.array([[1, 0.5, 0.5, 0.2, 0.4], [2, 0.5, 0.5, 0.5, 0.5]]), abs=1e-6)
    for shape, says in (
        ("[5, 3]", "has 17 numbers, should be 20 .kpt_shape. or 5"),
        ("[4, 4]", "kpt_shape is"),
        ("4", "kpt_shape is"),
    ):
        source.write_text(f"{plain}kpt_shape: {shape}\n")
        with pytest.raises(InputError, match=says):
            detection(source, 64)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_set_without_any_box_is_refused(split, tmp_path):
    """Else every mAP is 0, and the best epoch the first."""
    source = yolo(tmp_path)
    for file in (tmp_path / "labels" / split).iterdir():
        file.unlink()
    with pytest.raises(InputError, match=rf"nothing to find in any image: {split}: .* without label file") as caught:
        detection(source, 64)
    assert str(caught.value).endswith(f"missing: {tmp_path / 'labels' / split / 'a.txt'}")


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        (np.linspace(0, 1, 9, dtype=np.float32), "float of 0 to 1", np.linspace(0, 255, 9)),
        (np.linspace(-40, 60, 9, dtype=np.float32), "degrees", np.linspace(0, 255, 9)),
        (np.linspace(0, 255, 9, dtype=np.float32), "float of 0 to 255", np.linspace(0, 255, 9)),
        (np.linspace(0, 16383, 9).astype(np.uint16), "14 of 16 bits", np.linspace(0, 255, 9)),
        (np.linspace(7900, 8300, 9).astype(np.uint16), "few of 16 bits", np.linspace(0, 255, 9)),
        (np.linspace(0, 65535, 9).astype(np.uint16), "16 bits", np.linspace(0, 255, 9)),
        (np.array([256 * 200, 0, 1, 255, 256, 511, 512, 513, 1000], np.uint16), "16", [200, 0, 0, 0, 1, 1, 2, 2, 3]),
        (np.linspace(-3000, 3000, 9).astype(np.int32), "signed", np.linspace(0, 255, 9)),
        (np.linspace(0, 10**6, 9).astype(np.int32), "32 bits", np.linspace(0, 255, 9)),
    ],
)
def test_more_than_8_bits(values, mode, expected, tmp_path):
    Image.fromarray(values.reshape(3, 3)).save(tmp_path / "a.tif")
    image = read_rgb(tmp_path / "a.tif")
    assert (image.shape, image.dtype) == ((3, 3, 3), np.uint8)
    assert np.abs(image[..., 0].ravel().astype(float) - expected).max() <= 1
    assert not is_constant(image)


def test_values_that_are_not_finite_are_no_image(tmp_path):
    Image.fromarray(np.array([[0, np.nan], [1, 0.5]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match="not finite"):
        read_rgb(tmp_path / "a.tif")


def test_an_image_of_one_colour_is_counted_and_warned_of(tmp_path, caplog):
    source = yolo(tmp_path)
    Image.new("RGB", (50, 50), (1, 2, 3)).save(tmp_path / "images/train/b.png")
    train = detection(source, 64).train
    assert train.report.constant == 1
    assert "1 of one colour" in str(train.report)
    assert "train: 1 of 3 images are of one colour" in caplog.text


def test_names_of_a_data_yaml(tmp_path):
    """What a name may be: tests/models/test_classes.py."""
    source = yolo(tmp_path)
    for names, says in (
        ("[yes, no, b]", "class 0 is True"),
        ("[010, a, b]", "reads 010"),
        ("[a, b, a]", "'a' is the name"),
    ):
        source.write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
        with pytest.raises(InputError, match=rf"data\.yaml: names: .*{says}"):
            detection(source, 64)
    source.write_text("train: images/train\nval: images/val\nnc: yes\n")
    with pytest.raises(InputError, match="nc is True"):
        detection(source, 64)
    source.write_text("train: images/train\nval: images/val\nnc: 3\n")
    assert detection(source, 64).names == ("class0", "class1", "class2")


def changed_coco(tmp_path, change):
    root = coco(tmp_path)
    file = root / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return root


def test_two_categories_of_one_name_are_one_class(tmp_path):
    """As exports have them whose first category is the name of the whole set."""
    root = changed_coco(tmp_path, lambda c: c["categories"].insert(0, {"id": 0, "name": "cow"}))
    data = detection(root, 64)
    assert data.names == ("cow", "dog", "cat")
    assert [int(k) for k in data.train.labels[0][:, 0]] == [2, 0]
    assert coco_ids(root, "train")[1] == [90, 3, 7], "the category that has objects"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda c: c["categories"].append({"id": 7, "name": "pig"}),
            "category id 7 is there twice, of 'cat' and of 'pig'",
        ),
        (
            lambda c: c["images"].append({"id": 10, "file_name": "b.png"}),
            "image id 10 is there twice, of 'a.png' and of 'b.png'",
        ),
        (lambda c: c["annotations"][0].update(bbox="1234"), r"needs image_id, category_id and bbox \[left"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, True, 4]), r"needs image_id, category_id and bbox \[left"),
        (lambda c: c["categories"][0].update(name=None), "category 90: names: class 0 is None"),
        (lambda c: c["categories"][0].update(name=True), "is True"),
    ],
)
def test_coco_that_could_mean_either_is_refused(change, says, tmp_path):
    with pytest.raises(InputError, match=says):
        detection(changed_coco(tmp_path, change), 64)


def test_a_number_of_classes_without_names_is_compared(tmp_path):
    root = coco(tmp_path)
    files = {f"{split}": f"annotations/instances_{split}2017.json" for split in ("train", "val")}
    (root / "data.yaml").write_text(yaml.safe_dump({**files, "nc": 3}))
    assert detection(root / "data.yaml", 64).names == detection_split(root, "val", 64)[1]
    (root / "data.yaml").write_text(yaml.safe_dump({**files, "nc": 2}))
    with pytest.raises(InputError, match="nc is 2, but the training annotations have 3: "):
        detection(root / "data.yaml", 64)


def test_two_images_of_one_file_are_one_with_the_objects_of_both(tmp_path):
    def change(content):
        content["images"].append({"id": 99, "file_name": "a.png"})
        content["annotations"].append({"image_id": 99, "category_id": 3, "bbox": [1, 2, 10, 10], "iscrowd": 0})

    data = detection(changed_coco(tmp_path, change), 64)
    assert len(data.train) == 3
    assert [len(rows) for rows in data.train.labels] == [3, 1, 0]
