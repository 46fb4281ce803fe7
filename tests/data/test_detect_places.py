"""Sets as people have them: where paths are looked for, how folders, labels, lists and ids may be written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, features

from data import detection, detection_split, formats, places
from data.formats import spec_of
from data.images import SUFFIXES, UNREAD
from models.errors import InputError
from tests.data.detection_sets import NAMES, SIZES, coco, coco_content, save, voc, voc_object, yolo

BOXES_OF_TRAIN = 3  # see detection_sets.BOXES


def boxes(source, **more):
    return detection(source, 64, hyp=None, **more).train.report.boxes


def data_yaml(file: Path, **content) -> Path:
    file.write_text(yaml.safe_dump({"names": [*NAMES], **content}))
    return file


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The working folder is one of its own."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that stands for the project's."""
    folder = tmp_path / "project"
    folder.mkdir()
    for module in ("places", "formats", "format_yolo", "format_coco"):
        monkeypatch.setattr(f"data.{module}.PROJECT", folder)
    return folder


# Where paths are looked for.


@pytest.mark.parametrize("base", ["yaml", "working folder", "project"])
@pytest.mark.parametrize("as_path", [True, False])
def test_paths_of_a_yaml_may_count_from_it_from_here_or_from_the_project(base, as_path, elsewhere, project):
    home = {"yaml": elsewhere / "yamls", "working folder": Path.cwd(), "project": project}[base]
    yolo(home / "set")
    (elsewhere / "yamls").mkdir(exist_ok=True)
    said = {"path": "set", "train": "images/train", "val": "images/val"}
    if not as_path:
        said = {"train": "set/images/train", "val": "set/images/val"}
    assert boxes(data_yaml(elsewhere / "yamls/d.yaml", **said)) == BOXES_OF_TRAIN


def test_a_yaml_in_the_project_is_found_from_elsewhere(elsewhere, project):
    yolo(project).rename(project / "mine.yaml")
    assert boxes("mine.yaml") == BOXES_OF_TRAIN


def test_the_home_folder(elsewhere, monkeypatch):
    monkeypatch.setenv("HOME", str(elsewhere / "home"))
    yolo(elsewhere / "home/set")
    assert boxes("~/set/data.yaml") == BOXES_OF_TRAIN
    for said in ({"path": "~/set", "train": "images/train"}, {"train": "~/set/images/train"}):
        assert boxes(data_yaml(elsewhere / "d.yaml", val="~/set/images/val", **said)) == BOXES_OF_TRAIN


@pytest.mark.parametrize("prefix", ["C:\\Users\\me\\set\\", "/content/set/", "D:/set/", "~nobody/set/", "..\\set\\"])
def test_prefixes_of_other_machines(prefix, elsewhere, caplog):
    source = yolo(elsewhere / "set")
    back = "\\" in prefix
    train, val = ((f"{prefix}images/{s}").replace("/", "\\" if back else "/") for s in ("train", "val"))
    data_yaml(source, train=train, val=val)
    assert boxes(source) == BOXES_OF_TRAIN
    if ".." not in prefix:  # which is in its place
        assert f"{train} is not here; taken is {elsewhere / 'set/images/train'}" in caplog.text
    # The set's folder itself is that of the YAML.
    data_yaml(source, path=prefix, train="images/train", val="images/val")
    assert boxes(source) == BOXES_OF_TRAIN


def test_a_folder_for_all_splits_is_not_taken_for_one(elsewhere):
    source = yolo(elsewhere / "set")
    data_yaml(source, train="/content/other/images", val="images/val")
    with pytest.raises(InputError, match="images is neither a folder"):
        detection(source, 64)


def test_messages_name_the_places_that_were_tried(elsewhere, project):
    source = data_yaml(elsewhere / "d.yaml", train="gone", val="gone")
    with pytest.raises(InputError) as caught:
        detection(source, 64)
    for place in (elsewhere / "gone", project / "gone"):
        assert str(place) in str(caught.value)
    data_yaml(source, path="gone", train="a", val="b")
    with pytest.raises(InputError) as caught:
        detection(source, 64)
    for place in (elsewhere / "gone", project / "gone"):
        assert str(place) in str(caught.value)
    with pytest.raises(InputError) as caught:
        spec_of("gone.yaml")
    for place in (project / "gone.yaml", formats.HERE / "gone.yaml"):
        assert str(place) in str(caught.value)
    data_yaml(source, train="gone.json", val="gone.json")
    with pytest.raises(InputError) as caught:
        detection(source, 64)
    assert str(project / "gone.json") in str(caught.value)


@pytest.mark.parametrize("entry", ["images/train/*.png", "images/tr*", ["images/train/a.png", "images/train/b.png"]])
def test_images_and_patterns(entry, tmp_path):
    source = yolo(tmp_path)
    data_yaml(source, train=entry, val="images/val/a.png")
    data = detection(source, 64)
    assert (data.train.report.boxes, len(data.val)) == (BOXES_OF_TRAIN, 1)
    data_yaml(source, train="images/none*.png", val="images/val")
    with pytest.raises(InputError, match=r"no image matches images/none\*\.png; tried"):
        detection(source, 64)


@pytest.mark.parametrize(
    "line", ["{0}", "images/train/{0}", "/home/me/set/images/train/{0}", "C:\\set\\images\\train\\{0}"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_images(line, encoding, tmp_path):
    source = yolo(tmp_path)
    where = tmp_path / ("images/train" if line == "{0}" else ".")
    (where / "list.txt").write_text("\r\n".join(line.format(f"{stem}.png") for stem in "abc"), encoding=encoding)
    data_yaml(source, train=str((where / "list.txt").relative_to(tmp_path)), val="images/val")
    assert boxes(source) == BOXES_OF_TRAIN


# Label files.


@pytest.mark.parametrize("places_of_labels", ["Labels", "LABELS", "beside", "upper suffix", "Images"])
def test_label_files_may_lie_and_be_spelled_otherwise(places_of_labels, tmp_path):
    source = yolo(tmp_path)
    labels = tmp_path / "labels"
    if places_of_labels == "beside":
        for file in labels.glob("*/*.txt"):
            shutil.move(file, tmp_path / "images" / file.relative_to(labels))
    elif places_of_labels == "upper suffix":
        for file in labels.glob("*/*.txt"):
            file.rename(file.with_suffix(".TXT"))
    elif places_of_labels == "Images":
        (tmp_path / "images").rename(tmp_path / "Images")
        data_yaml(source, train="Images/train", val="Images/val")
    else:
        labels.rename(tmp_path / places_of_labels)
    assert boxes(source) == BOXES_OF_TRAIN


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_label_files_with_a_byte_order_mark(encoding, tmp_path):
    source = yolo(tmp_path)
    for file in tmp_path.glob("labels/*/*.txt"):
        file.write_text(file.read_text().replace("\n", "\r\n"), encoding=encoding)
    source.write_text(source.read_text(), encoding=encoding)
    assert boxes(source) == BOXES_OF_TRAIN


def test_it_is_said_when_most_images_have_no_labels(tmp_path, caplog):
    source = yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").unlink()
    detection(source, 64)
    assert not caplog.records
    (tmp_path / "labels/train/c.txt").unlink()
    detection(source, 64)
    first = tmp_path / "labels/train/a.txt"
    assert (
        f"2 of 3 images have no label file and count as background; that of {tmp_path / 'images/train/a.png'} was "
        in (caplog.text)
    )
    assert f"looked for first at {first}" in caplog.text


def test_dots_in_names(tmp_path):
    source = yolo(tmp_path)
    (tmp_path / "images/train/a.png").rename(tmp_path / "images/train/a.b.c.png")
    (tmp_path / "labels/train/a.txt").rename(tmp_path / "labels/train/a.b.c.txt")
    assert boxes(source) == BOXES_OF_TRAIN


# Images.


@pytest.mark.parametrize("suffix", [".mpo", ".jfif", ".gif", ".JPG", ".avif", ".jpe"])
def test_suffixes_that_are_read(suffix, tmp_path):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    source = yolo(tmp_path)
    form = {".mpo": "JPEG", ".jfif": "JPEG", ".JPG": "JPEG", ".jpe": "JPEG"}.get(suffix, suffix[1:].upper())
    for file in tmp_path.glob("images/*/*.png"):
        Image.open(file).save(file.with_suffix(suffix), form)
        file.unlink()
    assert boxes(source) == BOXES_OF_TRAIN


def test_suffixes_that_are_not_read_are_counted(tmp_path):
    assert not SUFFIXES & UNREAD
    source = yolo(tmp_path)
    for name in ("d.heic", "e.HEIC", "f.dng"):
        (tmp_path / "images/train" / name).write_bytes(b"?")
    assert str(detection(source, 64).train.report).endswith("1 .dng (not read), 2 .heic (not read)")
    for file in tmp_path.glob("images/train/*.png"):
        file.unlink()
    with pytest.raises(InputError, match=r"holds no images that can be read, but 1 \.dng, 2 \.heic"):
        detection(source, 64)


# A folder's own YAML.


def test_yamls_of_other_tools_are_not_the_sets(tmp_path):
    root = voc(tmp_path / "v")
    (root / "dvc.yaml").write_text("stages:\n  train: {cmd: python train.py}\n")
    (root / "broken.yaml").write_text("{")
    assert boxes(root) == BOXES_OF_TRAIN
    source = yolo(tmp_path / "y")
    source.rename(source.with_name("pets.yaml"))
    (tmp_path / "y/dvc.yaml").write_text("stages: {}\n")
    assert boxes(tmp_path / "y") == BOXES_OF_TRAIN
    shutil.copy(tmp_path / "y/pets.yaml", tmp_path / "y/more.yaml")
    with pytest.raises(InputError, match=r"it holds more\.yaml, pets\.yaml: give one of them"):
        detection(tmp_path / "y", 64)


# Pascal VOC.


@pytest.mark.parametrize("line", ["{}  1", "{} -1", "{}.jpg", "JPEGImages/{}.jpg", "VOC\\JPEGImages\\{}.jpg", "{}\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lines_of_voc_lists(line, encoding, tmp_path):
    root = voc(tmp_path)
    (root / "ImageSets/Main/train.txt").write_text("\n".join(map(line.format, "abc")), encoding=encoding)
    assert boxes(root) == BOXES_OF_TRAIN


def test_voc_names_that_look_like_flags(tmp_path):
    root = voc(tmp_path)
    for folder, suffix in (("JPEGImages", ".png"), ("Annotations", ".xml")):
        (root / folder / f"a{suffix}").rename(root / folder / f"a 1{suffix}")
    for split, content in (("train", "a 1\nb\nc\n"), ("val", "a 1\n")):
        (root / f"ImageSets/Main/{split}.txt").write_text(content)
    assert boxes(root) == BOXES_OF_TRAIN


@pytest.mark.parametrize("suffix", [".webp", ".BMP", ".JPG", ".tif"])
def test_voc_images_of_any_suffix(suffix, tmp_path):
    root = voc(tmp_path)
    for file in root.glob("JPEGImages/*.png"):
        Image.open(file).save(file.with_suffix(suffix), {"jpg": "JPEG", "tif": "TIFF"}.get(suffix[1:].lower()))
        file.unlink()
    assert boxes(root) == BOXES_OF_TRAIN


def test_voc_in_lower_case(tmp_path):
    root = voc(tmp_path)
    (root / "Annotations").rename(root / "annotations")
    (root / "JPEGImages").rename(root / "images")
    (root / "ImageSets/Main").rename(root / "ImageSets/main")
    (root / "ImageSets").rename(root / "imagesets")
    assert boxes(root) == BOXES_OF_TRAIN


@pytest.mark.parametrize("lists", ["trainval", "train", None])
def test_voc_without_a_list_for_validation(lists, tmp_path):
    root = voc(tmp_path)
    (root / "ImageSets/Main/val.txt").unlink()
    if lists is None:
        shutil.rmtree(root / "ImageSets")
    else:
        (root / "ImageSets/Main/train.txt").rename(root / f"ImageSets/Main/{lists}.txt")
    data = detection(root, 64)
    held_out, rest = ({Path(s._source.name(i)).stem for i in range(len(s))} for s in (data.val, data.train))
    assert (held_out, rest) == ({"a"}, {"b", "c"})
    assert "held out for validation" in str(data.val.report)


def test_trainval_beside_val_does_not_train_on_val(tmp_path):
    root = voc(tmp_path)
    (root / "ImageSets/Main/train.txt").rename(root / "ImageSets/Main/trainval.txt")
    assert detection(root, 64).train.report.images == 2


def test_voc_as_roboflow_exports_it(tmp_path):
    root = voc(tmp_path / "v")
    for split, stems in (("train", "abc"), ("valid", "a"), ("test", "b")):
        (tmp_path / "r" / split).mkdir(parents=True)
        for stem in stems:
            shutil.copy(root / f"JPEGImages/{stem}.png", tmp_path / "r" / split)
            shutil.copy(root / f"Annotations/{stem}.xml", tmp_path / "r" / split)
    data = detection(tmp_path / "r", 64)
    assert (data.train.report.boxes, len(data.val), data.names) == (BOXES_OF_TRAIN, 1, ("cat", "cow", "dog"))
    assert len(detection_split(tmp_path / "r", "test", 64)[0]) == 1
    data_yaml(tmp_path / "r/mine.yaml", train="train", val="valid")
    assert boxes(tmp_path / "r/mine.yaml") == BOXES_OF_TRAIN


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("gbk", "GBK"),
        ("gb18030", "gb2312"),
        ("utf-8-sig", "utf-8"),
        ("utf-8", "none-such"),
        ("gbk", "none-such"),
        ("gbk", "utf-8"),
        ("gbk", None),
        ("utf-16", "utf-16"),
        ("utf-8", "base64"),
        ("big5", "Big5"),
    ],
)
def test_encodings_of_xml(encoding, declared, tmp_path):
    root = voc(tmp_path)
    head = "" if declared is None else f'<?xml version="1.0" encoding="{declared}"?>\n'
    for stem, size in SIZES.items():
        text = f"{head}<annotation>{voc_object('人', (1, 2, 30, 40)) if size else ''}</annotation>"
        (root / f"Annotations/{stem}.xml").write_bytes(text.encode(encoding))
    assert detection(root, 64).names == ("人",)


# COCO.


def test_coco_as_cvat_exports_it(tmp_path):
    root = coco(tmp_path)
    for split, name in (("train", "Train"), ("val", "Validation")):
        content = json.loads((root / f"annotations/instances_{split}2017.json").read_text())
        (root / f"annotations/instances_{split}2017.json").unlink()
        (root / f"annotations/instances_{name}.json").write_text(json.dumps(content), encoding="utf-8-sig")
        (root / "images").mkdir(exist_ok=True)
        (root / f"{split}2017").rename(root / "images" / name)
    assert boxes(root) == BOXES_OF_TRAIN


@pytest.mark.parametrize(
    "name", ["annotations/instances_default.json", "_annotations.coco.json", "instances_Train.json"]
)
def test_coco_without_a_file_for_validation(name, tmp_path):
    root = coco(tmp_path / "c")
    content = (root / "annotations/instances_train2017.json").read_text()
    shutil.rmtree(root / "annotations")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(content)
    (root / "train2017").rename(root / "images")
    data = detection(root, 64, hyp=None)
    assert ([Path(s[0].meta.name).stem for s in (data.train, data.val)], len(data.train)) == (["b", "a"], 2)
    assert (data.train.report.boxes, data.val.report.boxes, data.train.report.orphans) == (1, 2, 0)
    assert "held out for validation" in str(data.val.report)
    assert len(formats.coco_ids(root, "val")[0]) == 3


def test_a_split_is_a_word_of_a_name(tmp_path):
    root = coco(tmp_path)
    (root / "annotations/a_constraint.json").write_text("{}")
    (root / "annotations/approval.json").write_text("{}")
    assert boxes(root) == BOXES_OF_TRAIN


def write_coco(root: Path, change) -> Path:
    content = coco_content("abc")
    change(content)
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    return root


def ids_as_text(content):
    for image in content["images"]:
        image["id"] = str(image["id"])
    content["categories"][0]["id"] = str(content["categories"][0]["id"])


def ids_as_float(content):
    for annotation in content["annotations"]:
        annotation["image_id"] = float(annotation["image_id"])


def backslashes(content):
    for image in content["images"]:
        image["file_name"] = f"train2017\\{image['file_name']}"


def foreign(content):
    for image in content["images"]:
        image["file_name"] = f"/home/me/coco/train2017/{image['file_name']}"


@pytest.mark.parametrize("change", [ids_as_text, ids_as_float, backslashes, foreign])
def test_coco_ids_and_file_names(change, tmp_path):
    root = write_coco(coco(tmp_path), change)
    data = detection(root, 64, hyp=None)
    assert (data.train.report.boxes, data.names) == (BOXES_OF_TRAIN, ("dog", "cat", "cow"))
    assert len(data.train) == 3


def test_names_of_mixed_ids_are_in_order(tmp_path):
    def change(content):
        for category, id in zip(content["categories"], ("b", 11, "9"), strict=True):
            for annotation in content["annotations"]:
                if annotation["category_id"] == category["id"]:
                    annotation["category_id"] = id
            category["id"] = id

    root = write_coco(coco(tmp_path), change)
    names = [c["name"] for c in coco_content("abc")["categories"]]
    assert formats.class_names(spec_of(root)) == (names[2], names[1], names[0])


def test_orphans_are_counted_and_left_out(tmp_path):
    root = write_coco(coco(tmp_path), lambda c: c["annotations"][0].update(image_id=99))
    report = detection(root, 64).train.report
    assert (report.boxes, report.orphans) == (BOXES_OF_TRAIN - 1, 1)
    assert "1 of images not listed (left out)" in str(report)
    write_coco(root, lambda c: [a.update(image_id=99) for a in c["annotations"]])
    with pytest.raises(InputError, match="no annotation is of one of its images; image_id 99"):
        detection(root, 64)


def test_names_may_be_some_of_the_categories(tmp_path):
    coco(tmp_path / "set")
    said = {s: f"annotations/instances_{s}2017.json" for s in ("train", "val")}
    source = data_yaml(tmp_path / "d.yaml", path="set", **(said | {"names": ["cow", "cat"]}))
    data = detection(source, 64, hyp=None)
    assert data.names == ("cow", "cat")
    assert sorted(np.concatenate(data.train.labels)[:, 0].tolist()) == [0, 1]
    assert (data.train.report.others, data.train.report.background) == (1, 2)
    data_yaml(source, path="set", **(said | {"names": ["cow", "kat"]}))
    with pytest.raises(InputError, match="has no category 'kat', which is one of the names; there are "):
        detection(source, 64)


# Some of the classes.


@pytest.mark.parametrize("write", [yolo, coco, voc])
@pytest.mark.parametrize("asked", [["cow,cat"], ["cow", "cat"]])
def test_some_of_the_classes(write, asked, tmp_path):
    data = detection(write(tmp_path), 64, hyp=None, classes=asked)
    assert data.names == ("cow", "cat")
    assert sorted(np.concatenate(data.train.labels)[:, 0].tolist()) == [0, 1]
    assert (data.train.report.boxes, data.train.report.others, data.train.report.background) == (2, 1, 2)
    assert "1 of other classes (left out)" in str(data.train.report)


def test_classes_by_number_and_those_that_are_not_there(tmp_path):
    source = yolo(tmp_path)
    assert detection(source, 64, classes=["2", "dog"]).names == ("cow", "dog")
    for word in ("bird", "3", "9" * 30):
        with pytest.raises(InputError, match=f"--classes {word}: right would be 0 to 2, or some of cat, dog, cow"):
            detection(source, 64, classes=[f"cat,{word}"])


def test_all_classes_as_one(tmp_path):
    data = detection(yolo(tmp_path), 64, hyp=None, single=True)
    assert data.names == ("item",)
    assert np.concatenate(data.train.labels)[:, 0].tolist() == [0, 0, 0]


def test_classes_of_drawn_digits_leave_the_others_their_sets(tmp_path):
    source = data_yaml(tmp_path / "d.yaml", format="digits-detect", train=20, val=5, canvas=64)
    some, whole = detection(source, 64, classes=["3"]), detection(source, 64)
    assert some.names == ("3",)
    assert 0 < some.train.report.boxes < whole.train.report.boxes
    assert whole.train.report.others == 0


# What is ignored.


def test_crowds_and_difficult_objects_are_regions_of_their_image(tmp_path):
    root = write_coco(coco(tmp_path / "c"), lambda c: c["annotations"][0].update(iscrowd=1))
    train = detection(root, 64, hyp=None).train
    of_cats = train[0].meta.ignored
    assert of_cats.tolist() == [[1, 10, 20, 30, 50, 1]]  # class, box in pixels of the image, a crowd
    assert all(len(train[i].meta.ignored) == 0 for i in (1, 2))
    root = voc(tmp_path / "v")
    hard = voc_object("dog", (1, 2, 30, 60), "<difficult>1</difficult>")
    (root / "Annotations/b.xml").write_text(f"<annotation>{hard}</annotation>")
    train = detection(root, 64, hyp=None).train
    # Within the image, which is 50 pixels high.
    assert train[1].meta.ignored.tolist() == [[2, 1, 2, 30, 50, 0]]
    assert detection(root, 64, hyp=None, classes=["cat"]).train[1].meta.ignored.tolist() == []


def test_tails_never_leave_the_bases(tmp_path):
    for text in ("../../a/b", "/a/../b", "C:\\..\\a", "~/a", "a"):
        for place in places.tails(text, [tmp_path]):
            assert tmp_path in place.parents
            assert ".." not in place.parts


def test_a_small_image_of_each_format_is_the_same(tmp_path):
    save(tmp_path / "a.png", (8, 8))
    Image.open(tmp_path / "a.png").save(tmp_path / "a.gif")
    from data import read_rgb

    assert read_rgb(tmp_path / "a.gif").shape == (8, 8, 3)
