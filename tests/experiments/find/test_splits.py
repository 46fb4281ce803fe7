"""Who sees which pictures: splits that are made, copies that are taken out, and what is said of classes."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from data import detection, detection_sources, detection_split
from data.digits_detect import DigitImages
from data.formats import spec_of
from experiments.find.look import fitting_side
from experiments.find.splits import SPLITS, class_notes, open_splits
from models.errors import InputError


def yolo(folder, splits, names=("a", "b")):
    """A YOLO set. splits: name to (number that makes the image, [(class, x, y, w, h), …]) of each image."""
    for split, images in splits.items():
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for i, (number, boxes) in enumerate(images):
            pixels = np.random.default_rng(number).integers(0, 255, (24, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"images/{split}/{i:02}.png")
            (folder / f"labels/{split}/{i:02}.txt").write_text("\n".join(" ".join(map(str, b)) for b in boxes))
    content = {**{s: f"images/{s}" for s in splits}, "names": list(names)}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder / "data.yaml"


A, B = [(0, 0.5, 0.5, 0.5, 0.25)], [(1, 0.25, 0.5, 0.25, 0.5)]


def files(found):
    return {s: {p.file for p in part} for s, part in found.pictures.items()}


def test_missing_splits_are_made_of_training_images_class_by_class(tmp_path):
    source = yolo(tmp_path / "set", {"train": [(i, B if i % 4 == 0 else A) for i in range(40)]})
    found = open_splits(str(source), 0.2, 0, tmp_path / "out")
    assert {s: len(part) for s, part in found.pictures.items()} == {"train": 26, "val": 6, "test": 8}
    assert len(set().union(*files(found).values())) == 40
    counts, notes = class_notes(found.names, found.pictures)
    assert counts["b"] == [6, 2, 2]
    assert notes == []
    assert files(open_splits(str(source), 0.2, 0, tmp_path / "again")) == files(found)
    assert files(open_splits(str(source), 0.2, 1, tmp_path / "other")) != files(found)


def test_what_is_written_opens_as_the_same_boxes(tmp_path):
    boxes = [(0, 0.5, 0.5, 0.5, 0.25), (1, 0.1, 0.9, 0.2, 0.2)]
    source = yolo(tmp_path / "set", {s: [(k, boxes)] for k, s in enumerate(SPLITS)})
    open_splits(str(source), 0.2, 0, tmp_path / "out")
    for split in SPLITS:
        written, names = detection_split(tmp_path / "out/data.yaml", split, 32)
        assert names == ("a", "b")
        assert np.allclose(written.labels[0], detection_split(source, split, 32)[0].labels[0], atol=1e-6)
        assert np.allclose(written.labels[0], boxes, atol=1e-6)


def test_an_image_of_two_splits_stays_in_the_one_that_is_looked_at_last(tmp_path):
    splits = {"train": [(i, A) for i in range(6)], "val": [(0, A), (10, A), (11, A)], "test": [(1, A), (10, A)]}
    found = open_splits(str(yolo(tmp_path / "set", splits)), 0.2, 0, tmp_path / "out")
    assert {s: len(part) for s, part in found.pictures.items()} == {"train": 4, "val": 2, "test": 2}
    said = "\n".join(found.notes)
    assert "train: 2 images are in a later split too" in said
    assert "val: 1 images are in a later split too" in said


def test_a_validation_split_of_training_images_is_none(digits, tmp_path):
    found = open_splits(str(digits(12, 64, copies=2)), 0.25, 0, tmp_path / "out")
    assert any("val: 12 of its" in n or "val: 24 of its 24" in n or "are training images" in n for n in found.notes)
    sets = files(found)
    assert not sets["train"] & sets["val"] | sets["train"] & sets["test"] | sets["val"] & sets["test"]
    # Copies of an image stay together: digits are there twice, as files of one content.
    stems = {s: {name.rsplit("/", 1)[1][:3] for name in part} for s, part in sets.items()}
    assert not stems["train"] & stems["val"] | stems["train"] & stems["test"] | stems["val"] & stems["test"]
    assert sum(map(len, sets.values())) == 24
    data = detection(tmp_path / "out/data.yaml", 64)
    assert len(data.train) == len(sets["train"])


def test_no_boxes_are_refused_in_one_line(tmp_path):
    source = yolo(tmp_path / "set", {"train": [(i, []) for i in range(8)]})
    with pytest.raises(InputError, match="none of its images has a box"):
        open_splits(str(source), 0.2, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_images_are_refused(tmp_path):
    source = yolo(tmp_path / "set", {"train": [(0, A), (1, A), (2, A)]})
    with pytest.raises(InputError, match=r"3 different training images are too few to make a test split of; .* 4"):
        open_splits(str(source), 0.2, 0, tmp_path / "out")


def test_an_empty_class_is_named(tmp_path):
    splits = {"train": [(i, A) for i in range(8)], "val": [(20, A)], "test": [(21, A + B)]}
    found = open_splits(str(yolo(tmp_path / "set", splits, ("a", "b", "c"))), 0.2, 0, tmp_path / "out")
    counts, notes = class_notes(found.names, found.pictures)
    assert counts == {"a": [8, 1, 1], "b": [0, 0, 1], "c": [0, 0, 0]}
    assert notes == [
        "class b: has boxes in validation or test images alone, so that it cannot be learnt",
        "class c: has boxes in no split, so that it cannot be learnt",
    ]


def test_a_rare_class_and_one_that_is_not_measured_are_named(tmp_path):
    splits = {"train": [(i, A * 1) for i in range(25)] + [(50, B)], "val": [(60, A)], "test": [(61, A)]}
    found = open_splits(str(yolo(tmp_path / "set", splits)), 0.2, 0, tmp_path / "out")
    notes = class_notes(found.names, found.pictures)[1]
    assert "class b: has no boxes in the validation and test images, where it is not measured" in notes
    assert "class b: has 1 training boxes, the most frequent one 25: expect little of it" in notes


def test_digits_are_given_test_images_of_a_handwriting_of_their_own(tmp_path):
    found = open_splits("digits-detect", 0.15, 0, tmp_path / "out")
    content = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert {s: content[s] for s in SPLITS} == {"train": 800, "val": 200, "test": 200}
    assert {s: len(part) for s, part in found.pictures.items()} == {"train": 800, "val": 200, "test": 200}
    own = {s: DigitImages(s, 1, 64, (0.8, 0.1, 0.1))._patterns for s in SPLITS}
    assert np.array_equal(own["train"], DigitImages("train", 1, 64)._patterns)
    rest = np.concatenate([own["val"], own["test"]]).ravel()
    assert np.array_equal(np.sort(rest), np.sort(DigitImages("val", 1, 64)._patterns.ravel()))
    assert detection_sources(spec_of(tmp_path / "out/data.yaml"))[1]["test"].shapes[0] == (320, 320)


@pytest.mark.parametrize(("sides", "expected"), [([640, 640, 500], 640), ([4000], 640), ([100, 90], 96), ([20], 64)])
def test_side_of_the_images_follows_the_data(sides, expected):
    assert fitting_side(sides) == expected


def test_coco_files_hold_what_cocos_do(tmp_path):
    open_splits(str(yolo(tmp_path / "set", {s: [(k, A)] for k, s in enumerate(SPLITS)})), 0.2, 0, tmp_path / "out")
    content = json.loads((tmp_path / "out/train.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    (box,) = content["annotations"]
    assert box["bbox"] == [8.0, 9.0, 16.0, 6.0]
    assert (box["area"], box["image_id"], box["category_id"]) == (96.0, 1, 1)
