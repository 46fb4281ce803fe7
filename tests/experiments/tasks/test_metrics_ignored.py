"""Crowds of COCO and difficult objects of VOC: what detections on them count, beside the evaluations that define it."""

import contextlib
import io

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from experiments.tasks.metrics import DetectionMetrics

NAMES = ["cat", "dog"]


def crowded(seed, num_images=12):
    """Objects, regions, and detections of both, displaced, doubled or false."""
    rng = np.random.default_rng(seed)
    preds, targets, ignored = [], [], []
    for _ in range(num_images):
        n, k = rng.integers(1, 6), rng.integers(0, 3)
        xy, wh = rng.uniform(0, 300, (n + k, 2)), rng.uniform(20, 120, (n + k, 2))
        boxes, label = np.concatenate([xy, xy + wh], 1), rng.integers(0, 2, (n + k, 1))
        seen = np.repeat(boxes, 3, 0) + rng.normal(0, 0.08, (3 * (n + k), 4)) * np.repeat(wh, 3, 0)[:, [0, 1, 0, 1]]
        # Small ones within a region, as the members of a crowd are.
        centre = np.repeat(xy[n:] + wh[n:] / 2, 2, 0) + rng.normal(0, 10, (2 * k, 2))
        members = np.concatenate([centre - 5, centre + 5], 1)
        scores = rng.permutation(len(seen) + len(members))[:, None] / 100
        rows = np.concatenate([np.concatenate([seen, members]), scores], 1)
        labels = np.concatenate([np.repeat(label, 3, 0), np.repeat(label[n:], 2, 0)])
        preds.append(torch.from_numpy(np.concatenate([rows, labels], 1)).float())
        targets.append(torch.from_numpy(np.concatenate([label[:n], boxes[:n]], 1)).float())
        ignored.append(torch.from_numpy(np.concatenate([label[n:], boxes[n:], np.ones((k, 1))], 1)).float())
    return preds, targets, ignored


def pycocotools_ap(preds, targets, ignored):
    """AP over all IoUs and at 0.5, by COCO's own code."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        x1, y1, x2, y2 = box
        return [x1, y1, x2 - x1, y2 - y1]

    annotations, found = [], []
    for i, (pred, target, region) in enumerate(zip(preds, targets, ignored, strict=True)):
        rows = [(*t, 0) for t in target.tolist()] + region.tolist()
        for c, *box, crowd in rows:
            x, y, w, h = xywh(box)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": int(c), "bbox": [x, y, w, h]}
                | {"area": w * h, "iscrowd": int(crowd)}
            )
        for *box, score, c in pred.tolist():
            found.append({"image_id": i, "category_id": int(c), "bbox": xywh(box), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(preds))],
            "categories": [{"id": c, "name": name} for c, name in enumerate(NAMES)],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[1]


@pytest.mark.parametrize("seed", range(4))
def test_crowds_count_as_in_cocos_own_evaluation(seed):
    pytest.importorskip("pycocotools", reason="COCO's own evaluation is not installed")
    preds, targets, ignored = crowded(seed)
    metrics = DetectionMetrics(NAMES)
    metrics.update(preds, targets, ignored)
    found = metrics.compute()
    assert (found["map50_95"], found["map50"]) == pytest.approx(pycocotools_ap(preds, targets, ignored), abs=1e-9)
    # Were they not ignored, it would be another number.
    plain = DetectionMetrics(NAMES)
    plain.update(preds, targets)
    assert plain.compute()["map50"] < found["map50"] - 0.01
    assert found["instances"] == sum(map(len, targets))


def voc_devkit(preds, targets, difficult, label, iou=0.5):
    """VOCdevkit's VOCevaldet: of the detections of a class by falling confidence, which are right and which false."""
    rows = sorted(
        ((score, i, torch.tensor([box])) for i, p in enumerate(preds) for *box, score, c in p.tolist() if c == label),
        key=lambda row: -row[0],
    )
    objects = [
        [(torch.tensor([row[1:5]]), k >= len(t)) for k, row in enumerate([*t.tolist(), *d.tolist()]) if row[0] == label]
        for t, d in zip(targets, difficult, strict=True)
    ]
    taken, right, false = set(), [], []
    for _, image, box in rows:
        overlaps = [float(box_iou(box, gt)) for gt, _ in objects[image]]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        hit = best is not None and overlaps[best] >= iou
        is_difficult = hit and objects[image][best][1]
        right.append(hit and not is_difficult and (image, best) not in taken)
        false.append(not right[-1] and not is_difficult)
        if right[-1]:
            taken.add((image, best))
    number = sum(not hard for image in objects for _, hard in image)
    tp, fp = np.cumsum(right), np.cumsum(false)
    return tp / number, tp / np.maximum(tp + fp, 1)


def interpolated(recall, precision):
    """COCO's AP of such a curve: the mean of the best precision from each of 101 recalls on."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return np.append(best, 0)[np.minimum(at, len(best))].mean()


def apart(seed, num_images=8):
    """Objects that do not overlap, a third of them difficult, each detected up to three times."""
    rng = np.random.default_rng(seed)
    preds, targets, difficult = [], [], []
    for _ in range(num_images):
        corner = rng.permutation(9)[:6]
        xy = np.stack([corner % 3, corner // 3], 1) * 100.0 + rng.uniform(0, 20, (6, 2))
        boxes, label = np.concatenate([xy, xy + rng.uniform(40, 60, (6, 2))], 1), rng.integers(0, 2, (6, 1))
        times = rng.integers(0, 4, 6)
        seen = np.repeat(boxes, times, 0) + rng.normal(0, 6, (times.sum(), 4))
        scores = rng.permutation(len(seen))[:, None] / 100 + rng.uniform(0, 1e-3, (len(seen), 1))
        preds.append(torch.from_numpy(np.concatenate([seen, scores, np.repeat(label, times, 0)], 1)))
        targets.append(torch.from_numpy(np.concatenate([label[:4], boxes[:4]], 1)))
        difficult.append(torch.from_numpy(np.concatenate([label[4:], boxes[4:], np.zeros((2, 1))], 1)))
    return preds, targets, difficult


@pytest.mark.parametrize("seed", range(4))
def test_difficult_objects_count_as_in_vocs_own_evaluation(seed):
    preds, targets, difficult = apart(seed)
    metrics = DetectionMetrics(NAMES)
    metrics.update(preds, targets, difficult)
    classes = metrics.compute()["classes"]
    for label, name in enumerate(NAMES):
        expected = interpolated(*voc_devkit(preds, targets, difficult, label))
        assert classes[name]["ap50"] == pytest.approx(expected, abs=1e-9)


def test_what_a_detection_on_a_region_counts():
    """One object found; two detections of a difficult one, two in a crowd, and two of another class there are added."""
    target = torch.tensor([[0, 0, 0, 10, 10]]).double()
    found = [[0, 0, 10, 10, 0.5, 0]]
    region = torch.tensor([[0, 50, 0, 60, 10, 0], [0, 100, 0, 200, 100, 1]]).double()
    on_difficult = [[50, 0, 60, 10, 0.9, 0], [50, 1, 60, 10, 0.8, 0]]
    in_crowd = [[110, 10, 120, 20, 0.9, 0], [150, 50, 160, 60, 0.8, 0]]
    within_difficult = [[52, 2, 56, 6, 0.7, 0]]  # IoU 0.16: a false one, as the object is no crowd
    other_class = [[50, 0, 60, 10, 0.9, 1], [110, 10, 120, 20, 0.9, 1]]

    def measured(*more):
        metrics = DetectionMetrics(NAMES)
        metrics.update([torch.tensor([*found, *more]).double()], [target], [region])
        return metrics.compute(), metrics.confusion_matrix()

    result, matrix = measured(*on_difficult, *in_crowd)
    assert (result["map50"], result["precision"], result["recall"], result["instances"]) == (1, 1, 1, 1)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    result, matrix = measured(*within_difficult)
    assert result["map50"] == pytest.approx(0.5)
    assert matrix[0].tolist() == [1, 0, 1]
    _, matrix = measured(*other_class)
    assert matrix[1].tolist() == [0, 0, 2]


def test_a_class_with_ignored_objects_alone_is_not_measured():
    metrics = DetectionMetrics(NAMES)
    region = torch.tensor([[1, 0, 0, 10, 10, 0]]).double()
    metrics.update([torch.tensor([[0, 0, 10, 10, 0.9, 1]])], [torch.tensor([[0, 20, 20, 40, 40]])], [region])
    assert [*metrics.compute()["classes"]] == ["cat"]
