"""Outlines: read from YOLO and COCO, painted as masks wherever their image lies, told as RLE and polygons again."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data import DetectionSet, Hyp, collate, detection, detection_split
from data.detect_index import NOTHING_IGNORED, Outlines
from data.outline import Crop, Pixels, Polygons, of_coco, paint, polygons_of, run_lengths, segmentation
from data.report import Report
from tests.refusal import refused

from .detection_sets import NAMES, SIZES, coco, coco_content, save, voc

OFF = Hyp(hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=0, flipud=0, mosaic=0, mixup=0)
TRIANGLE = Polygons((np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75]]),))


def test_a_polygon_is_painted_where_its_image_lies():
    mask = paint(TRIANGLE, (0, 0, 40, 40), (40, 40), (10, 10, 30, 30)).on((40, 40)).astype(int)
    assert mask.sum() == pytest.approx(200, abs=12)
    assert (mask[11, 11], mask[11, 27], mask[27, 11], mask[27, 27]) == (1, 1, 1, 0)
    mirrored = paint(TRIANGLE, (40, 0, 0, 40), (40, 40), (10, 10, 30, 30)).on((40, 40))
    assert np.abs(mirrored[:, ::-1].astype(int) - mask).sum() <= 20  # half pixels fall to either side
    cut = paint(TRIANGLE, (0, 0, 40, 40), (40, 40), (10, 10, 20, 30)).on((40, 40))
    assert not cut[:, 20:].any()
    assert np.array_equal(cut[:, :19], mask[:, :19])


def test_parts_that_overlap_are_one():
    square = np.array([[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]])
    twice = paint(Polygons((square, square)), (0, 0, 20, 20), (20, 20), (0, 0, 20, 20)).mask
    assert twice.sum() == 144


def test_pixels_are_painted_as_they_are():
    pixels = (np.random.default_rng(0).random((6, 8)) > 0.5).astype(np.uint8)
    outline = Pixels(pixels, (2 / 20, 3 / 20, 10 / 20, 9 / 20))
    mask = paint(outline, (0, 0, 20, 20), (20, 20), (2, 3, 10, 9)).on((20, 20))
    assert np.array_equal(mask[3:9, 2:10], pixels)
    assert mask.sum() == pixels.sum()
    mirrored = paint(outline, (20, 20, 0, 0), (20, 20), (10, 11, 18, 17)).on((20, 20))
    assert np.array_equal(mirrored[::-1, ::-1], mask)


@pytest.mark.parametrize("box", [(-5, -5, -1, -1), (50, 0, 60, 9), (3, 3, 3, 9)])
def test_what_is_not_seen_is_no_mask(box):
    assert paint(TRIANGLE, (0, 0, 40, 40), (40, 40), box).mask.size == 0


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_cocos(seed):
    coco_masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    mask = (rng.random((7, 9)) > 0.4).astype(np.uint8)
    crops = [Crop(mask, 0, 0), Crop(mask[1:4, 2:5], 2, 1), Crop(mask[:, 4:], 4, 0), Crop(mask[3:5, :1] * 0, 3, 3)]
    for crop in crops:
        whole = crop.on((7, 9))
        told = run_lengths(crop, (7, 9))
        found = coco_masks.frPyObjects(told, 7, 9)
        assert np.array_equal(coco_masks.decode(found), whole)
        compressed = coco_masks.encode(np.asfortranarray(whole))
        text = {"size": [7, 9], "counts": compressed["counts"].decode()}
        for written in (told, text):
            read = of_coco(written)
            if not whole.any():
                assert read is None
                continue
            scaled = read.scaled(1 / 9, 1 / 7)
            assert np.array_equal(paint(scaled, (0, 0, 9, 7), (7, 9), (0, 0, 9, 7)).on((7, 9)), whole)
            again = segmentation(scaled, (7, 9))
            assert np.array_equal(coco_masks.decode(coco_masks.frPyObjects(again, 7, 9)), whole)


@pytest.mark.parametrize(
    "written",
    [
        *(None, [], "x", 3, [[1, 2, 3, 4]], [[1, 2, 3, "a", 5, 6]], [[1, 2, 3, float("nan"), 5, 10**400]], {}),
        *({"size": [2, 2]}, {"size": [2, 2], "counts": [1, 2]}, {"size": [2, 2], "counts": [-1, 5]}),
        *(
            {"size": [10**6, 10**6], "counts": [10**12]},
            {"size": [2, 2], "counts": "~~~~"},
            {"size": [2], "counts": []},
        ),
        *(
            {"size": [2, 2], "counts": "ooooooooooo"},
            {"size": [2, 2], "counts": [4]},
            {"size": [True, 2], "counts": []},
        ),
    ],
)
def test_what_is_no_outline(written):
    assert of_coco(written) is None


def test_polygons_of_a_mask_paint_it_again():
    mask = np.zeros((12, 12), dtype=np.uint8)
    mask[2:9, 3:10], mask[10, 1:4] = 1, 1
    rings = polygons_of(Crop(mask, 5, 4))
    assert len(rings) == 2
    assert all(len(ring) >= 3 for ring in rings)
    outline = Polygons(tuple(ring / 30 for ring in rings))
    assert np.array_equal(paint(outline, (0, 0, 30, 30), (30, 30), (0, 0, 30, 30)).on((30, 30))[4:16, 5:17], mask)


# Sets.


def yolo_polygons(root, rows=("0 0.125 0.3 0.375 0.3 0.25 0.8", "1 0.5 0.5 0.9 0.5 0.9 0.9 0.5 0.9")):
    for split in ("train", "val"):
        save(root / f"images/{split}/a.png", SIZES["a"])
        label = root / f"labels/{split}/a.txt"
        label.parent.mkdir(parents=True)
        label.write_text("\n".join(rows) + "\n")
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return root / "data.yaml"


def test_yolo_polygons_become_masks(tmp_path):
    data = detection(
        yolo_polygons(tmp_path), 80, hyp=None, finds="masks"
    )  # 80 x 60, below and above it 10 rows of grey
    item = data.val[0]
    assert item.masks.shape == (2, 20, 20)
    assert item.masks.dtype == torch.uint8
    assert not item.masks[:, :2].any()
    # 0.4 x 0.4 of 80 x 60 pixels, a quarter a side
    assert item.masks[1].sum() == pytest.approx(0.4 * 20 * 0.4 * 15, abs=4)
    assert item.masks[0].sum() == pytest.approx(0.25 * 20 * 0.5 * 15 / 2, abs=4)
    assert [len(o.parts[0]) for o in item.meta.outlines.objects] == [3, 4]
    batch = collate([item, item])
    assert batch.masks.shape == (4, 20, 20)
    plain = detection(tmp_path / "data.yaml", 80, hyp=None)
    assert plain.val[0].masks is None
    assert collate([plain.val[0]]).masks is None
    assert torch.equal(plain.val[0].labels, item.labels)
    only = detection(tmp_path / "data.yaml", 80, hyp=None, classes=["dog"], finds="masks").val[0]
    assert torch.equal(only.masks, item.masks[1:])


def test_coco_polygons_and_rle_become_masks(tmp_path):
    root = coco(tmp_path)
    for split, stems in (("train", "abc"), ("val", "a")):
        content = coco_content(stems)
        for image in content["images"]:
            image["width"], image["height"] = SIZES[image["file_name"][0]]
        for i, annotation in enumerate(content["annotations"]):
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            if i == 0:
                crop = Crop(np.ones((h, w), dtype=np.uint8), x, y)
                annotation["segmentation"] = run_lengths(crop, SIZES["a"][::-1])
        crowd = {**content["annotations"][0], "iscrowd": 1}
        content["annotations"].append(crowd)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    item = detection(root, 80, hyp=None, finds="masks").val[0]
    boxes = item.labels[:, 3] * 20 * item.labels[:, 4] * 20
    # Rows of which half is the object's are its own, above and below.
    assert item.masks.sum((1, 2)).tolist() == pytest.approx(boxes.tolist(), abs=21)
    assert isinstance(item.meta.outlines.ignored[0], Pixels)
    assert len(item.meta.ignored) == 1


def test_boxes_without_outlines_are_one_line(tmp_path):
    path = yolo_polygons(tmp_path / "yolo", ["0 0.5 0.5 0.2 0.2", "1 0.5 0.5 0.9 0.5 0.9 0.9"])
    assert len(detection(path, 64).train[0].labels)
    with refused("train: 1 of 2 objects", "no outline", "a.png", "polygons", "Detect"):
        detection(path, 64, finds="masks")
    with refused("no outline"):
        detection_split(voc(tmp_path / "voc"), "val", 64, finds="masks")
    with refused("no outline", "digits-detect/train/0"):
        detection("digits-detect", 64, finds="masks")


COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)])


class Corners:
    """Black images, each with an L in the colour of its class, which looks the same from no other side."""

    def __init__(self, count=6):
        rng = np.random.default_rng(0)
        self.report = Report("train")
        self.shapes = [(int(h), int(w)) for h, w in rng.integers(80, 200, (count, 2))]
        self.labels, self.outlines, self.ignored, self._parts = [], [], [NOTHING_IGNORED] * count, []
        for i, (h, w) in enumerate(self.shapes):
            left, top = int(rng.integers(0, w // 4)), int(rng.integers(0, h // 4))
            right, bottom = left + int(rng.integers(w // 2, w * 3 // 4)), top + int(rng.integers(h // 2, h * 3 // 4))
            x, y = (left + right) // 2, (top + bottom) // 2
            self._parts.append(((left, top, x, bottom), (x, y, right, bottom)))
            corners = [(left, top), (x, top), (x, y), (right, y), (right, bottom), (left, bottom)]
            self.outlines.append(Outlines([Polygons((np.array(corners) / [w, h],))], []))
            box = [i % 4, (left + right) / 2 / w, (top + bottom) / 2 / h, (right - left) / w, (bottom - top) / h]
            self.labels.append(np.array([box], dtype=np.float32))

    def name(self, i):
        return f"corners/{i}"

    def read(self, i):
        image = np.zeros((*self.shapes[i], 3), dtype=np.uint8)
        for x1, y1, x2, y2 in self._parts[i]:
            image[y1:y2, x1:x2] = COLOURS[i % 4]
        return image


@pytest.mark.parametrize(
    "hyp",
    [
        *(None, OFF, replace(OFF, fliplr=1.0), replace(OFF, flipud=1.0), replace(OFF, scale=0.5, translate=0.2)),
        *(replace(OFF, mosaic=1.0, scale=0.4), replace(OFF, mosaic=1.0, fliplr=0.5, flipud=0.5)),
    ],
)
def test_masks_are_on_their_objects(hyp):
    images = DetectionSet(Corners(), 160, hyp, finds="masks")
    seen = 0
    for i in range(6):
        item = images[i]
        assert len(item.masks) == len(item.labels)
        pixels = item.image.permute(1, 2, 0).numpy().astype(int)
        for mask, (label, x, y, w, h) in zip(item.masks.numpy(), item.labels.tolist(), strict=True):
            fine = mask.repeat(4, 0).repeat(4, 1).astype(bool)
            like = (np.abs(pixels - COLOURS[int(label)]) < 100).all(2)
            box = np.zeros_like(like)
            x1, y1, x2, y2 = (round(160 * v) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            box[y1:y2, x1:x2] = True
            assert not (fine & ~box).sum() > 8 * (w + h) * 160
            if min(w, h) > 0.2:
                seen += 1
                assert (fine & like & box).sum() / ((fine | like) & box).sum() > 0.85
    assert seen >= 5


def test_masks_of_a_mixup_are_those_of_both():
    images = DetectionSet(Corners(), 160, replace(OFF, mosaic=1.0, mixup=1.0), finds="masks")
    items = [images[i] for i in range(6)]
    assert max(len(item.masks) for item in items) > 4
    for item in items:
        assert len(item.masks) == len(item.labels)
        assert item.masks.flatten(1).any(1).all()


def test_masks_are_the_digits():
    """Ink and paper are far apart in brightness: under the mask lies ink."""
    images = detection_split("digits-segment", "val", 320, finds="masks")[0]
    for i in range(4):
        item = images[i]
        grey = item.image.float().mean(0)
        for mask, label in zip(item.masks, item.labels, strict=True):
            fine = mask.repeat_interleave(4, 0).repeat_interleave(4, 1).bool()
            x, y, w, h = (label[1:] * 320).tolist()
            box = torch.zeros_like(fine)
            box[round(y - h / 2) : round(y + h / 2), round(x - w / 2) : round(x + w / 2)] = True
            inside, outside = grey[fine & box], grey[box & ~fine]
            assert (inside.mean() - outside.mean()).abs() > 40
