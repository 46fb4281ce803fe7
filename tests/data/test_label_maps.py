"""Label maps: read from PNG files of several layouts, painted from outlines, and moved with their images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data import Hyp, collate, detection, detection_split
from data.label_maps import BACKGROUND, NONE, paste
from tests.refusal import refused

OFF = Hyp(hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=0, flipud=0, mosaic=0, mixup=0)
RNG = np.random.default_rng(0)
MAP = np.repeat(np.repeat(np.array([[0, 1], [2, 255]], np.uint8), 24, 0), 32, 1)  # 48 x 64


def save(path, array, mode=None, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path, **more)


def a_set(root, folder="masks", maps=None, more="", suffix=".png"):
    """Two images, each of colours that say its label map's classes."""
    for split in ("train", "val"):
        given = MAP if maps is None else maps
        save(root / f"images/{split}/a.png", np.stack([MAP] * 3, -1))
        save(root / folder / split / f"a{suffix}", given)
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [sky, road, tree]\n{more}")
    return root / "data.yaml"


@pytest.mark.parametrize("folder", ["masks", "labels", "annotations"])
def test_a_png_beside_each_image(tmp_path, folder):
    data = detection(a_set(tmp_path, folder), 64, hyp=None, finds="labels")
    assert data.names == ("sky", "road", "tree")
    assert str(data.train.report) == "train: 1 images, 3 regions"
    item = data.train[0]
    assert np.array_equal(item.meta.label_map, MAP)
    assert item.labels.shape == (0, 5)
    found = item.masks[0].numpy()  # a quarter of 64 x 64; the image lies in its middle
    assert found.shape == (16, 16)
    assert (found[:2] == NONE).all()
    assert (found[14:] == NONE).all()
    assert np.array_equal(found[2:14], MAP[2::4, 2::4])
    batch = collate([item, item])
    assert batch.masks.shape == (2, 16, 16)
    assert batch.targets.shape == (0, 6)


def test_numbers_are_classes_as_the_yaml_says(tmp_path):
    binary = np.where(MAP == 1, 255, 0).astype(np.uint8)
    with refused("masks/train/a.png", "0 and 255 alone", "values: {0: 0, 255: 1}"):
        detection(a_set(tmp_path, maps=binary), 64, finds="labels")
    data = detection(a_set(tmp_path, maps=binary, more="values: {255: road, 0: 2}\n"), 64, hyp=None, finds="labels")
    assert np.array_equal(data.val[0].meta.label_map, np.where(binary == 255, 1, 2))


def test_pascal_voc_as_it_is_unpacked(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    palette = Image.fromarray(np.where(MAP == 255, 255, MAP * 7).astype(np.uint8), "P")
    palette.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
    for name in ("a", "b"):
        save(root / f"JPEGImages/{name}.jpg", np.stack([MAP] * 3, -1))
        (root / "SegmentationClass").mkdir(exist_ok=True)
        palette.save(root / f"SegmentationClass/{name}.png")
    for folder in ("Segmentation", "Main"):
        (root / f"ImageSets/{folder}").mkdir(parents=True)
        (root / f"ImageSets/{folder}/train.txt").write_text("a\n")
        (root / f"ImageSets/{folder}/val.txt").write_text("b\n")
    (root / "Annotations").mkdir()
    data = detection(tmp_path, 64, hyp=None, finds="labels")
    assert len(data.names) == 21
    assert [data.names[c] for c in (0, 7, 14)] == [BACKGROUND, "car", "motorbike"]
    assert np.array_equal(data.val[0].meta.label_map, np.where(MAP == 255, 255, MAP * 7))
    assert data.val[0].meta.name.endswith("b.jpg")
    # A list that a data.yaml names is the one that is read.
    (root / "ImageSets/Segmentation/both.txt").write_text("a\nb\n")
    (tmp_path / "voc.yaml").write_text("format: voc\npath: VOCdevkit/VOC2012\ntrain: both\nval: val.txt\n")
    named = detection(tmp_path / "voc.yaml", 64, hyp=None, finds="labels")
    assert (len(named.train), len(named.val)) == (2, 1)


def test_cityscapes_as_it_is_unpacked(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / f"leftImg8bit/{split}/ulm/ulm_000_leftImg8bit.png", np.stack([MAP] * 3, -1))
        save(tmp_path / f"gtFine/{split}/ulm/ulm_000_gtFine_labelTrainIds.png", MAP)
    (tmp_path / "city.yaml").write_text("train: leftImg8bit/train\nval: leftImg8bit/val\nnames: [sky, road, tree]\n")
    data = detection(tmp_path / "city.yaml", 64, hyp=None, finds="labels")
    assert np.array_equal(data.train[0].meta.label_map, MAP)


@pytest.mark.parametrize(
    ("maps", "parts"),
    [
        (MAP + np.uint8(1), ("masks/train/a.png", "a pixel is 3", "0 to 2", "values")),
        (MAP[:, :32], ("masks/train/a.png", "32 x 48", "64 x 48")),
        (np.stack([MAP] * 3, -1), ("masks/train/a.png", "has colours", "one number a pixel")),
        (MAP.astype(np.uint16) * 256, ("masks/train/a.png", "65280", "0 to 255")),
    ],
)
def test_bad_maps_are_one_line(tmp_path, maps, parts):
    with refused(*parts):
        detection(a_set(tmp_path, maps=maps), 64, finds="labels")


def test_what_is_missing_or_meaningless_is_one_line(tmp_path):
    path = a_set(tmp_path)
    with refused("--classes", "values"):
        detection(path, 64, classes=["sky"], finds="labels")
    for written, parts in (("[1]", ("values", "[1]")), ("{0: 9}", ("values", "9")), ("{x: sky}", ("values", "'x'"))):
        with refused("data.yaml", *parts):
            detection(a_set(tmp_path, more=f"values: {written}\n"), 64, finds="labels")
    a_set(tmp_path)
    (tmp_path / "masks/val/a.png").write_bytes(b"no picture")
    with refused("masks/val/a.png", "cannot be read as a label map"):
        detection(path, 64, finds="labels")
    (tmp_path / "masks/val/a.png").unlink()
    with refused("val", "has no label map", "masks/val/a.png"):
        detection(path, 64, finds="labels")
    path.write_text("train: images/train\nval: images/train\n")
    with refused("data.yaml", "needs names"):
        detection(path, 64, finds="labels")
    with refused("no outline"):
        detection("digits-detect", 64, finds="labels")


def test_objects_are_painted_over_a_background(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / f"images/{split}/a.png", np.zeros((40, 80, 3), np.uint8))
        (tmp_path / f"labels/{split}").mkdir(parents=True)
        lines = ["0 0 0 0.5 0 0.5 1 0 1", "1 0.25 0 0.75 0 0.75 0.5 0.25 0.5"]
        (tmp_path / f"labels/{split}/a.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    data = detection(tmp_path / "data.yaml", 80, hyp=None, finds="labels")
    assert data.names == ("cat", "dog", BACKGROUND)
    expected = np.full((40, 80), 2)
    expected[:, :40] = 0
    expected[:20, 20:60] = 1
    assert np.array_equal(data.train[0].meta.label_map, expected)
    dogs = detection(tmp_path / "data.yaml", 80, hyp=None, finds="labels", classes=["dog"])
    assert dogs.names == ("dog", BACKGROUND)
    assert np.array_equal(dogs.train[0].meta.label_map == 0, expected == 1)


@pytest.mark.parametrize(
    "hyp",
    [
        *(OFF, replace(OFF, fliplr=1.0), replace(OFF, flipud=1.0), replace(OFF, scale=0.5, translate=0.3)),
        replace(OFF, mosaic=1.0, scale=0.4, fliplr=0.5),
    ],
)
def test_pixels_stay_with_their_colours(tmp_path, hyp):
    """An image's grey is its class; whatever it goes through, its map says the same."""
    maps = RNG.integers(0, 3, (3, 4)).astype(np.uint8).repeat(32, 0).repeat(32, 1)
    for split in ("train", "val"):
        for name in "abc":
            save(tmp_path / f"images/{split}/{name}.png", np.stack([maps * 100] * 3, -1))
            save(tmp_path / f"masks/{split}/{name}.png", maps)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [sky, road, tree]\n")
    images = detection(tmp_path / "data.yaml", 128, hyp=hyp, finds="labels").train
    known = agree = 0
    for epoch in range(3):
        images.set_epoch(epoch)
        for item in (images[i] for i in range(3)):
            # The middle of what a pixel of the map stands for.
            seen, labels = item.image[0, 2::4, 2::4].numpy().astype(int), item.masks[0].numpy()
            inside = labels != NONE
            known += inside.sum()
            agree += (np.abs(seen - labels.astype(int) * 100) < 20)[inside].sum()
    assert known > 3000
    assert agree / known > 0.93  # the rest are at edges, whose colours are mixed with the other side's


def test_paste_is_the_nearest_pixel():
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    canvas = np.full((6, 8), NONE, np.uint8)
    paste(labels, (0, 0, 8, 6), canvas, (0, 0, 8, 6))
    assert np.array_equal(canvas, labels.repeat(2, 0).repeat(2, 1))
    canvas[:] = NONE
    paste(labels, (6, 1, 2, 4), canvas, (3, 1, 6, 4))  # mirrored; of its four columns three are seen
    assert np.array_equal(canvas[1:4, 3:6], labels[:, 2::-1])
    assert (canvas != NONE).sum() == 9


def test_digits_have_maps_of_their_ink():
    images, names = detection_split("digits-segment", "val", 64, finds="labels")
    assert names == (*(str(k) for k in range(10)), BACKGROUND)
    for i in range(3):
        found = images[i].meta.label_map
        digits = {int(c) for c in images.labels[i][:, 0]}
        assert digits <= {*np.unique(found).tolist()} <= digits | {10}
        assert isinstance(images[i].masks, torch.Tensor)
