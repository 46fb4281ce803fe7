"""Masks of detections: brought to the image's pixels, and measured as COCO's own code measures them."""

import contextlib
import io

import numpy as np
import pytest
import torch

from data import collate, detection_split
from data.canvas import pad
from data.outline import Crop, paint, run_lengths
from experiments.tasks.masks import Masks, SegmentationMetrics, crops_of, masks_of
from experiments.tasks.metrics import DetectionMetrics, fitness, in_original_pixels, rated, score_table

NAMES = ["cat", "dog"]
SIZE = (60, 80)


def test_a_sum_of_prototypes_is_the_mask_within_the_box():
    """An image of 80 x 40 on a canvas of 160: two canvas pixels each, 40 rows of grey above and below."""
    _, letterbox = pad(np.zeros((80, 160, 3), np.uint8), (40, 80), 160)
    prototypes = torch.full((2, 40, 40), -1.0)
    prototypes[0, 10:20, :20] = 1.0  # the left upper quarter of the image
    prototypes[1] *= -3
    boxes = torch.tensor([[0.0, 0.0, 80.0, 40.0], [4.0, 2.0, 30.0, 10.0], [5.0, 5.0, 5.0, 9.0]])
    coefficients = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    whole, other, empty = (c.on((40, 80)) for c in crops_of(prototypes, coefficients, boxes, letterbox))
    expected = np.zeros((40, 80))
    expected[:20, :40] = 1
    assert np.array_equal(whole, expected)
    assert not other[:, :40].any()
    assert not empty.any()
    # The second prototype lifts the first over 0 everywhere.
    (lifted,) = crops_of(prototypes, torch.tensor([[1.0, 0.5]]), boxes[1:2], letterbox)
    assert (lifted.left, lifted.top, lifted.mask.shape) == (4, 2, (8, 26))
    assert lifted.mask.all()
    assert crops_of(prototypes, coefficients[:0], boxes[:0], letterbox) == []


def scene(seed, num_images=8):
    """Objects as ellipses, detections of them that are displaced, doubled or false, and crowds."""
    rng = np.random.default_rng(seed)
    preds, targets, ignored, masks = [], [], [], []
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]

    def ellipse(x1, y1, x2, y2):
        inside = ((xs - (x1 + x2) / 2) / (x2 - x1) * 2) ** 2 + ((ys - (y1 + y2) / 2) / (y2 - y1) * 2) ** 2 < 1
        return run_lengths(Crop(inside.astype(np.uint8), 0, 0), SIZE)

    for _ in range(num_images):
        n, k = int(rng.integers(1, 5)), int(rng.integers(0, 2))
        xy, wh = rng.uniform(0, 40, (n + k, 2)), rng.uniform(10, 30, (n + k, 2))
        boxes, label = np.concatenate([xy, xy + wh], 1), rng.integers(0, 2, (n + k, 1))
        seen = np.repeat(boxes, 3, 0) + rng.normal(0, 0.08, (3 * (n + k), 4)) * np.repeat(wh, 3, 0)[:, [0, 1, 0, 1]]
        scores = rng.permutation(len(seen))[:, None] / 100
        preds.append(torch.from_numpy(np.concatenate([seen, scores, np.repeat(label, 3, 0)], 1)))
        targets.append(torch.from_numpy(np.concatenate([label[:n], boxes[:n]], 1)))
        ignored.append(torch.from_numpy(np.concatenate([label[n:], boxes[n:], np.ones((k, 1))], 1)))
        masks.append(Masks(SIZE, *([ellipse(*box) for box in rows] for rows in (seen, boxes[:n], boxes[n:]))))
    return preds, targets, ignored, masks


def cocos(preds, targets, ignored, masks):
    """AP of masks by COCO's own code: over all IoUs, at 0.5 and 0.75."""
    coco_mask = pytest.importorskip("pycocotools.mask")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rle(told):
        return coco_mask.frPyObjects(told, *SIZE)

    annotations, found = [], []
    for i, (pred, target, region, mask) in enumerate(zip(preds, targets, ignored, masks, strict=True)):
        rows = [*zip(target[:, 0].tolist(), mask.objects, [0] * len(target), strict=True)]
        rows += [*zip(region[:, 0].tolist(), mask.ignored, [1] * len(region), strict=True)]
        for c, told, crowd in rows:
            area = float(coco_mask.area(rle(told)))
            row = {"id": len(annotations) + 1, "image_id": i, "category_id": int(c), "area": area, "iscrowd": crowd}
            annotations.append({**row, "bbox": [0, 0, 1, 1], "segmentation": rle(told)})
        for (*_, score, c), told in zip(pred.tolist(), mask.found, strict=True):
            found.append({"image_id": i, "category_id": int(c), "segmentation": rle(told), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(preds))],
            "categories": [{"id": c, "name": n} for c, n in enumerate(NAMES)],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3]


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_cocos_own_evaluation(seed):
    given = scene(seed)
    metrics = SegmentationMetrics(NAMES)
    metrics.update(*given)
    measured = metrics.compute()
    found = [measured[k] for k in ("mask_map50_95", "mask_map50", "mask_map75")]
    assert found == pytest.approx(cocos(*given).tolist(), abs=1e-9)
    assert 0.05 < found[0] < 0.95
    boxes = DetectionMetrics(NAMES)
    boxes.update(*given[:3])
    of_boxes = boxes.compute()
    assert {k: v for k, v in measured.items() if k in of_boxes and k != "classes"} == {
        k: v for k, v in of_boxes.items() if k != "classes"
    }
    assert measured["mask_map50_95"] == pytest.approx(
        np.mean([c["mask_ap50_95"] for c in measured["classes"].values()])
    )
    assert rated(measured) == measured["mask_map50_95"]
    assert rated(of_boxes) == of_boxes["map50_95"]
    assert fitness(measured) > fitness(of_boxes)
    assert len(score_table(measured).columns) == len(score_table(of_boxes).columns) + 2


def test_the_objects_own_masks_are_all_right():
    images, names = detection_split("digits-segment", "val", 160, finds="masks")
    batch = collate([images[i] for i in range(4)])
    metrics = SegmentationMetrics(names)
    for i, meta in enumerate(batch.metas):
        rows = batch.targets[batch.targets[:, 0] == i]
        xy, wh = rows[:, 2:4] * 160, rows[:, 4:6] * 160
        boxes = torch.cat((xy - wh / 2, xy + wh / 2, torch.ones(len(rows), 1), rows[:, 1:2]), 1)
        # The prototypes are the objects themselves, at half of the image's resolution.
        drawn = np.stack([
            paint(o, (0, 0, 80, 80), (80, 80), (b[:4] / 2).tolist()).on((80, 80))
            for o, b in zip(meta.outlines.objects, boxes, strict=True)
        ])  # fmt: skip
        one = batch._replace(images=batch.images[i : i + 1], targets=torch.cat((rows[:, :1] * 0, rows[:, 1:]), 1))
        one = one._replace(metas=(meta,))
        found, objects = in_original_pixels([boxes], one)
        prototypes = torch.from_numpy(drawn).float()[None] - 0.5
        masks = masks_of(prototypes, [torch.eye(len(rows))], found, one)
        metrics.update(found, objects, [torch.zeros(0, 6)], masks)
    measured = metrics.compute()
    assert measured["map50_95"] == pytest.approx(1)
    assert measured["mask_map50"] == pytest.approx(1)
    assert measured["mask_map50_95"] > 0.6
