"""How good detections are: COCO's average precision, precision and recall, the confusion matrix, pictures, a table.

AP and the matching of detections to objects are faster-coco-eval's, which is COCO's evaluation in C++.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from rich.table import Table
from torch import Tensor
from torchvision.ops import box_area, box_convert, box_iou, clip_boxes_to_image

from data import Batch

from ..run.pictures import picture
from ..run.tables import table

_AP_MAX_DETECTIONS = 100  # an image and class: COCO's rule, https://cocodataset.org/#detection-eval
# Of an object that is to be ignored: COCO ignores objects whose area is beyond the range that is measured.
_BEYOND = 1e11
_CONFIDENCES = np.linspace(0, 1, 1001)
_MAX_NAMED_CLASSES = 20  # beyond these a picture has no room to name each

# How YOLOv5 measures AP: nearly all of the precision-recall curve, and boxes that share a place with other classes.
NMS_FOR_AP: dict[str, Any] = {"conf": 0.001, "iou": 0.6, "multi_label": True}


class DetectionMetrics:
    """Collects detections and objects image by image, then measures.

    Args:
        names: name of each class.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._predictions: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._ignored: list[Tensor] = []
        self._curves: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def update(
        self, preds: Sequence[Tensor], targets: Sequence[Tensor], ignored: Sequence[Tensor] | None = None
    ) -> None:
        """Add images.

        Args:
            preds: for each image (n, 6): x1, y1, x2, y2 in pixels of the original, confidence, class.
            targets: for each image (m, 5): class, x1, y1, x2, y2 in pixels of the original.
            ignored: for each image (k, 6): class, x1, y1, x2, y2, whether it is a crowd. A detection of that class
                that is not an object's, and lies in a crowd or is of such an object, is neither right nor wrong: in a
                crowd by the share of the detection that lies in it, as in COCO's evaluation; else by IoU, as in VOC's.
        """
        ignored = [t.new_zeros(0, 6) for t in targets] if ignored is None else ignored
        if not len(preds) == len(targets) == len(ignored):
            raise ValueError(f"detections of {len(preds)} images, but objects of {len(targets)}")
        self._ignored += [r.detach().cpu().double() for r in ignored]
        self._predictions += [p.detach().cpu().double() for p in preds]
        self._targets += [t.detach().cpu().double() for t in targets]
        self._curves = None

    def compute(self) -> dict[str, Any]:
        """Measure.

        Returns:
            `map50_95`, `map50`, `map75`: AP, mean over the classes that have objects.
            `confidence`: where the F1 score, mean over these classes, is best, in steps of 0.001;
            `precision`, `recall`, `f1`: mean over these classes, at this confidence and IoU 0.5.
            `classes`: `{name: {"instances", "precision", "recall", "f1", "ap50", "ap75", "ap50_95"}}`. A class
            without objects has no AP and is left out.
            `images`, `instances`: how many were seen.
            Where nothing was found, the scores are 0; where nothing was there to find, they are NaN: a score that
            cannot be measured is not 0.
        """
        precision, true_positive, counts = self._evaluate()
        predictions, targets = _stack(self._predictions, 6), _stack(self._targets, 5)
        instances = np.bincount(targets[:, 1].astype(int), minlength=len(self.names))
        present = instances.nonzero()[0]

        ap = precision.mean(1)  # (10, nc): over recall
        p, r, f1 = np.zeros((3, len(self.names), len(_CONFIDENCES)))
        for c in present:
            of_class = (predictions[:, 6] == c) & counts
            p[c], r[c], f1[c] = _by_confidence(predictions[of_class, 5], true_positive[of_class], instances[c])
        best = f1[present].mean(0).argmax() if len(present) else 0

        def mean(of_classes: np.ndarray) -> float:
            return float(of_classes[..., present].mean()) if len(present) else float("nan")

        return {
            "map50_95": mean(ap),
            "map50": mean(ap[0]),
            "map75": mean(ap[5]),
            "confidence": float(_CONFIDENCES[best]),
            "precision": mean(p[:, best]),
            "recall": mean(r[:, best]),
            "f1": mean(f1[:, best]),
            "classes": {
                self.names[c]: {
                    "instances": int(instances[c]),
                    "precision": float(p[c, best]),
                    "recall": float(r[c, best]),
                    "f1": float(f1[c, best]),
                    "ap50": float(ap[0, c]),
                    "ap75": float(ap[5, c]),
                    "ap50_95": float(ap[:, c].mean()),
                }
                for c in present
            },
            "images": len(self._targets),
            "instances": len(targets),
        }

    def confusion_matrix(self, conf: float = 0.25, iou: float = 0.45) -> np.ndarray:
        """Which class is taken for which.

        Each object is paired with at most one detection, those that overlap most first, whatever their classes.

        Args:
            conf: only detections with more than this confidence count.
            iou: a pair overlaps more than this.

        Returns:
            (nc + 1, nc + 1) counts at [detected, true]. The last row is objects that were missed, the last column
            detections of background; those of what is ignored are not among them.
        """
        background = len(self.names)
        matrix = np.zeros((background + 1, background + 1), dtype=int)
        for prediction, target, region in zip(self._predictions, self._targets, self._ignored, strict=True):
            prediction = prediction[prediction[:, 4] > conf]
            detected, true = prediction[:, 5].int().tolist(), target[:, 0].int().tolist()
            overlap = box_iou(prediction[:, :4], target[:, 1:])
            pairs = (overlap > iou).nonzero()
            free_detections, free_objects = set(range(len(detected))), set(range(len(true)))
            for pair in overlap[pairs[:, 0], pairs[:, 1]].argsort(descending=True, stable=True):
                d, t = pairs[pair].tolist()
                if d in free_detections and t in free_objects:
                    matrix[detected[d], true[t]] += 1
                    free_detections.remove(d)
                    free_objects.remove(t)
            in_region = (_overlap_of_ignored(prediction, region) > iou).any(1).tolist()
            for d in free_detections:
                matrix[detected[d], background] += not in_region[d]
            for t in free_objects:
                matrix[background, true[t]] += 1
        return matrix

    def plot_confusion_matrix(self, path: str | Path) -> None:
        """Draw the confusion matrix, each true class (column) as fractions of one."""
        matrix = self.confusion_matrix()
        fractions = matrix / matrix.sum(0, keepdims=True).clip(min=1)
        names = [*self.names, "background"]
        named = len(names) <= _MAX_NAMED_CLASSES + 1
        side = 4 + (0.45 * len(names) if named else 8)
        with picture(path, 150, "tight", names if named else (), figsize=(side + 1, side)) as figure:
            axes = figure.add_subplot(
                xlabel="true class", ylabel="detected class", title="Confusion matrix, fractions of each true class"
            )
            figure.colorbar(axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1), ax=axes, fraction=0.046)
            size = "medium" if named else 6
            axes.set_xticks(range(len(names)), names, rotation=90, size=size)
            axes.set_yticks(range(len(names)), names, size=size)
            if named:
                for (row, column), fraction in np.ndenumerate(fractions):
                    if matrix[row, column]:
                        color = "white" if fraction > 0.5 else "black"
                        axes.text(column, row, f"{fraction:.2f}", ha="center", va="center", color=color, size=8)

    def plot_pr_curve(self, path: str | Path) -> None:
        """Draw precision against recall at IoU 0.5, each class and their mean; the area under it is AP50."""
        precision = self._evaluate()[0][0]  # (101, nc)
        recall = np.linspace(0, 1, len(precision))
        present = np.unique(_stack(self._targets, 5)[:, 1].astype(int))
        named = len(present) <= _MAX_NAMED_CLASSES
        names = self.names if named else ()
        with picture(path, 150, names=names, figsize=(9, 6), layout="constrained") as figure:
            axes = figure.add_subplot(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
            axes.set_title("Precision and recall at IoU 0.5")
            # Ten colours tell apart; from the eleventh class on they come again with a broken line.
            for i, c in enumerate(present):
                label = f"{self.names[c]} {precision[:, c].mean():.3f}" if named else None
                color, style = (f"C{i % 10}", "-" if i < 10 else "--") if named else ("0.8", "-")
                axes.plot(recall, precision[:, c], color=color, linestyle=style, linewidth=1, label=label)
            if len(present):
                mean = precision[:, present].mean(1)
                axes.plot(recall, mean, color="black", linewidth=3, label=f"all classes {mean.mean():.3f}")
                figure.legend(title="AP50", loc="outside right upper")
            axes.grid(alpha=0.3)

    def _evaluate(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run COCO's evaluation, once until the next update.

        Returns:
            Precision at 10 IoUs (0.5 to 0.95), 101 recalls and each class, (10, 101, nc), -1 for a class without
            objects; for each detection whether it is right at IoU 0.5, (D,); and whether it counts there at all, (D,).
        """
        if self._curves is not None:
            return self._curves
        predictions, targets = _stack(self._predictions, 6), _stack(self._targets, 5)
        objects = _coco(targets[:, 0], targets[:, 1], targets[:, 2:6])
        num_objects = len(objects)
        objects += self._ignored_objects(num_objects + 1)
        detections = _coco(predictions[:, 0], predictions[:, 6], predictions[:, 1:5], predictions[:, 5])
        precision = self._run(objects, detections, "bbox")["precision"][..., 0, 0]
        # `matched` mixes the matches of all IoUs; the ones at 0.5 come from a run of their own, where no detection
        # is left out, so that all that are shown count.
        most = max((len(p) for p in self._predictions), default=0)
        true_positive, counts = np.zeros(len(predictions), dtype=bool), np.ones(len(predictions), dtype=bool)
        found = self._run(objects, detections, "bbox", max_detections=max(most, 1), ious=[0.5])
        for match in found["matched"]:  # "detection_object"
            detection, object_ = map(int, match.split("_"))
            true_positive[detection - 1] = object_ <= num_objects
            counts[detection - 1] = object_ <= num_objects
        self._curves = precision, true_positive, counts
        return self._curves

    def _run(
        self,
        objects: list[dict],
        detections: list[dict],
        kind: str,
        sizes: Sequence[tuple[int, int]] | None = None,
        max_detections: int = _AP_MAX_DETECTIONS,
        ious: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """COCO's evaluation of annotations, by IoU of boxes (``bbox``) or masks (``segm``) in images of `sizes`."""
        categories = [{"id": c, "name": name} for c, name in enumerate(self.names)]
        images: list[dict] = [{"id": i} for i in range(len(self._targets))]
        for image, (height, width) in zip(images, sizes or (), strict=False):
            image |= {"height": height, "width": width}
        both = (
            COCO({"images": images, "categories": categories, "annotations": rows}) for rows in (objects, detections)
        )
        coco = COCOeval_faster(*both, kind)
        coco.params.areaRng, coco.params.areaRngLbl = coco.params.areaRng[:1], ["all"]
        coco.params.maxDets = [max_detections]
        if ious is not None:
            coco.params.iouThrs = np.array(ious)
        coco.evaluate()
        coco.accumulate()
        found: dict[str, Any] = coco.eval
        return found

    def _ignored_objects(self, first_id: int) -> list[dict]:
        """What is ignored as COCO's annotations. COCO's evaluation takes any number of detections for a crowd, but one
        for an object, where VOC's takes any: such an object is there once for each detection that may be its own."""
        lowest_iou = 0.5
        copies = []
        for detections, regions in zip(self._predictions, self._ignored, strict=True):
            near = (_overlap_of_ignored(detections, regions) >= lowest_iou).sum(0).clamp(min=1)
            near[regions[:, 5] > 0] = 1
            copies.append(regions.repeat_interleave(near, 0))
        rows = _stack(copies, 6)
        found = _coco(rows[:, 0], rows[:, 1], rows[:, 2:6])
        for id, (row, crowd) in enumerate(zip(found, rows[:, 6] > 0, strict=True), start=first_id):
            row |= {"id": id, "iscrowd": 1} if crowd else {"id": id, "area": _BEYOND}
        return found


def metrics_of(finds: str, names: Sequence[str]) -> Any:
    """What measures what a head finds (`models.head.Head.finds`)."""
    if finds == "boxes":
        return DetectionMetrics(names)
    if finds == "labels":
        from .pixels import SemanticMetrics

        return SemanticMetrics(names)
    from .masks import SegmentationMetrics

    return SegmentationMetrics(names)


def shown_of(finds: str) -> tuple[str, ...]:
    """What is shown of what is measured, by its name."""
    of_boxes = "map50", "map50_95"
    shown = {
        "boxes": of_boxes,
        "masks": (*of_boxes, "mask_map50", "mask_map50_95"),
        "labels": ("miou", "pixel_accuracy"),
    }
    return shown[finds]


def rated(measured: Mapping[str, Any]) -> float:
    """What detectors are compared by: mIoU of labels, mAP50-95 of masks where there are any, else of boxes."""
    return float(next(measured[name] for name in ("miou", "mask_map50_95", "map50_95") if name in measured))


def fitness(measured: Mapping[str, Any]) -> float:
    """What tells a training's best epoch: YOLOv5's, 0.1 mAP50 + 0.9 mAP50-95, of boxes and masks together; or mIoU."""
    if "miou" in measured:
        return float(measured["miou"])
    found = 0.1 * measured["map50"] + 0.9 * measured["map50_95"]
    if "mask_map50" in measured:
        found += 0.1 * measured["mask_map50"] + 0.9 * measured["mask_map50_95"]
    return float(found)


def score_table(measured: Mapping[str, Any], title: str | None = None) -> Table:
    """What metrics of `metrics_of` give, over all classes and of each."""
    if "miou" in measured:
        rows = [["all", "", f"{measured['miou']:.3f}", f"{measured['pixel_accuracy']:.3f}"]]
        rows += [
            [n, f"{c['pixels']:,}", f"{c['iou']:.3f}", f"{c['accuracy']:.3f}"] for n, c in measured["classes"].items()
        ]
        return table(["class", "pixels", "IoU (all: mean)", "accuracy"], rows, title, left=["class"])
    scores = {"mAP50-95": "map50_95", "mAP50": "map50", "mAP75": "map75", "precision": "precision", "recall": "recall"}
    of_class = [key.removeprefix("m") for key in scores.values()]
    if "mask_map50_95" in measured:
        scores |= {"mask mAP50-95": "mask_map50_95", "mask mAP50": "mask_map50"}
        of_class += ["mask_ap50_95", "mask_ap50"]

    def row(name: str, m: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
        # A training of before, gone on with, may have a best epoch without the classes' AP75.
        return [name, f"{m['instances']:,}", *(f"{m[k]:.3f}" if k in m else "" for k in keys)]

    rows = [row("all", measured, scores.values()), *(row(n, c, of_class) for n, c in measured["classes"].items())]
    return table(["class", "objects", *scores], rows, title, left=["class"])


def in_original_pixels(detections: Sequence[Tensor], batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """What `DetectionMetrics.update` takes.

    Parameters
    ----------
    detections
        Of each image (n, 6): x1, y1, x2, y2 in pixels of the network input, confidence, class; more is left out.
    batch
        Of a validation set, whose images have a way back.

    Returns
    -------
    Detections clipped to the original image, and objects (m, 5): class, x1, y1, x2, y2; both in its pixels.
    """
    height, width = batch.images.shape[-2:]
    found, objects = [], []
    for i, (detected, meta) in enumerate(zip(detections, batch.metas, strict=True)):
        assert meta.letterbox is not None
        boxes = clip_boxes_to_image(meta.letterbox.to_image(detected[:, :4]), meta.shape)
        found.append(torch.cat((boxes, detected[:, 4:6]), 1))
        rows = batch.targets[batch.targets[:, 0] == i]
        corners = box_convert(rows[:, 2:], "cxcywh", "xyxy") * rows.new_tensor((width, height, width, height))
        objects.append(torch.cat((rows[:, 1:2], meta.letterbox.to_image(corners)), 1))
    return found, objects


def ignored_of(batch: Batch) -> list[Tensor]:
    """What is to be ignored in each image, (k, 6), as `DetectionMetrics.update` takes it."""
    return [torch.from_numpy(meta.ignored) for meta in batch.metas]


def _overlap_of_ignored(detections: Tensor, regions: Tensor) -> Tensor:
    """(n, k): IoU of a detection and what is ignored, of a crowd the share of the detection; 0 between classes."""
    boxes, areas = detections[:, :4], regions[:, 1:5]
    overlap = box_iou(boxes, areas)
    corner, opposite = torch.maximum(boxes[:, None, :2], areas[:, :2]), torch.minimum(boxes[:, None, 2:], areas[:, 2:])
    within = (opposite - corner).clamp(min=0).prod(2) / box_area(boxes)[:, None].clamp(min=1e-9)
    overlap = torch.where(regions[:, 5] > 0, within, overlap)
    return overlap * (detections[:, None, 5] == regions[:, 0])


def _stack(rows: list[Tensor], width: int) -> np.ndarray:
    """Rows of all images, (R, 1 + width), the image's index in front."""
    stacked = [torch.nn.functional.pad(r.reshape(-1, width), (1, 0), value=i) for i, r in enumerate(rows)]
    return torch.cat([torch.zeros(0, 1 + width, dtype=torch.float64), *stacked]).numpy()


def _coco(image: np.ndarray, label: np.ndarray, xyxy: np.ndarray, score: np.ndarray | None = None) -> list[dict]:
    """COCO's annotations of boxes (R, 4). Their ids start at 1: COCO's evaluation reads 0 as "no match"."""
    xywh = box_convert(torch.from_numpy(xyxy), "xyxy", "xywh").tolist()
    rows = [
        {"id": i, "image_id": int(n), "category_id": int(c), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (n, c, box) in enumerate(zip(image, label, xywh, strict=True), start=1)
    ]
    if score is not None:
        for row, s in zip(rows, score.tolist(), strict=True):
            row["score"] = s
    return rows


def _by_confidence(
    score: np.ndarray, true_positive: np.ndarray, num_objects: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of one class's detections that have at least each of `_CONFIDENCES`."""
    order = (-score).argsort(kind="stable")
    above = np.searchsorted(-score[order], -_CONFIDENCES, side="right")
    right = np.concatenate(([0], true_positive[order].cumsum()))[above]
    precision, recall = right / above.clip(min=1), right / num_objects
    return precision, recall, 2 * right / (above + num_objects)
