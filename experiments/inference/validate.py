"""How good and how fast a detector is on a data set: what `val.py` calls, and `evaluate` for a network at hand."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.ops import box_convert

from data import DetectionSet, Meta, coco_ids, collate, detection_split, require_boxes
from models.classes import difference, names_of, order_of, some
from models.detector import Model
from models.errors import InputError
from models.files import is_classifier, write_text

from ..run.console import say
from ..run.folder import RunFolder
from ..tasks.masks import Masks, masks_of
from ..tasks.metrics import NMS_FOR_AP, ignored_of, in_original_pixels, metrics_of, score_table
from ..tasks.pixels import counts_of
from .detectors import Detector, TorchDetector, computed, detections_of, finds_of, open_detector
from .options import Validation


@dataclass(frozen=True)
class Measured:
    """What a detector did on a data set.

    Attributes
    ----------
    metrics
        Of `experiments.tasks.metrics.metrics_of`.
    detections
        Of each image (n, 6): x1, y1, x2, y2 in pixels of the original, confidence, class; not of classes of pixels.
    metas
        Of each image.
    masks
        Of each image, in step with its detections, where they were asked for.
    speed
        Milliseconds an image: ``pre`` (from the data set to the network's input, where it computes), ``model``,
        ``nms`` (and back to the pixels of the original).
    """

    metrics: Any
    detections: list[Tensor]
    metas: list[Meta]
    speed: dict[str, float]
    masks: list[Masks] = field(default_factory=list)


def evaluate(
    model: Model,
    dataset: DetectionSet,
    batch: int = 32,
    device: str | torch.device | None = None,
    names: Sequence[str] | None = None,
    conf: float = NMS_FOR_AP["conf"],
    iou: float = NMS_FOR_AP["iou"],
    max_det: int = 300,
) -> dict[str, Any]:
    """COCO's mAP of a network, and its speed.

    Parameters
    ----------
    model
        Left as it is: a copy of it is fused and measured.
    dataset
        Without augmentation, such as `DetectionData.val`; images have the size that it gives them.
    device
        Where to compute; the model's own unless told otherwise.
    names
        Of the data's classes; as the data set says unless told otherwise.

    Returns
    -------
    What `DetectionMetrics.compute` returns, and ``speed``, see `Measured`.
    """
    detector = TorchDetector(model, device)
    measured = measure(detector, dataset, batch, names, conf, iou, max_det)
    return {**measured.metrics.compute(), "speed": measured.speed}


def measure(
    detector: Detector,
    dataset: DetectionSet,
    batch: int = 32,
    names: Sequence[str] | None = None,
    conf: float = NMS_FOR_AP["conf"],
    iou: float = NMS_FOR_AP["iou"],
    max_det: int = 300,
    workers: int = 0,
) -> Measured:
    """Run a detector over a data set; see `evaluate`."""
    if dataset.hyp is not None:
        raise InputError("an augmented data set has no way back to its images; right would be DetectionData.val")
    own: Sequence[str] = names_of(detector) or ()
    names = (getattr(dataset, "names", None) or own) if names is None else [*names]
    if (order := order_of(own, names)) is None:
        raise InputError(f"the detector was made for other classes: the data {difference(own, names)}")
    # Class k of the detector is class number[k] of the data.
    number = torch.tensor(order, dtype=torch.long).argsort()
    _require_predictions(detector)
    detector.check_imgsz(dataset.imgsz)
    loader = DataLoader(dataset, detector.batch or batch, collate_fn=collate, num_workers=workers)
    finds = finds_of(detector)
    if finds == "masks" and getattr(dataset, "finds", "boxes") != finds:
        finds = "boxes"
    metrics = metrics_of(finds, names)
    measured = Measured(metrics, [], [], {"pre": 0.0, "model": 0.0, "nms": 0.0})
    clock = _Clock(detector, measured.speed)
    for images in track(loader, "validating", transient=True, disable=not Console().is_terminal):
        prepared = detector.prepare(images.images)
        clock.stop("pre")
        predicted, prototypes = computed(detector, prepared)
        clock.stop("model")
        if finds == "labels":
            counts = counts_of(predicted, images, order)
            clock.stop("nms")
            metrics.update(counts)
            measured.metas.extend(images.metas)
            clock.start()
            continue
        found = detections_of(detector, predicted, len(images.images), conf, iou, max_det, multi_label=True)
        detections, objects = in_original_pixels(found, images)
        for detected in detections:
            detected[:, 5] = number[detected[:, 5].long()].to(detected.dtype)
        seen: list[Any] = [detections, objects, ignored_of(images)]
        if prototypes is not None and finds == "masks":
            seen.append(masks_of(prototypes, [d[:, 6:] for d in found], detections, images))
            measured.masks.extend(seen[3])
        clock.stop("nms")
        metrics.update(*seen)
        measured.detections.extend(detections)
        measured.metas.extend(images.metas)
        clock.start()
    for part, seconds in measured.speed.items():
        measured.speed[part] = 1000 * seconds / max(len(measured.metas), 1)
    return measured


def _require_predictions(detector: Detector) -> None:
    if detector.nms is not None:
        raise InputError(
            f"NMS at confidence {detector.nms.conf} is in the graph, but mAP needs the less confident detections too; "
            "right would be a file exported without --nms"
        )


class _Clock:
    """Adds up the time between stops."""

    def __init__(self, detector: Detector, seconds: dict[str, float]) -> None:
        self._detector, self._seconds = detector, seconds
        self.start()

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self, part: str) -> None:
        self._detector.wait()
        now = time.perf_counter()
        self._seconds[part] += now - self._since
        self._since = now


def validate(options: Validation, run: RunFolder) -> dict[str, Any]:
    """Measure the detector (or classifier) of a file, and write what was found into the run's folder.

    Returns
    -------
    The content of ``results.json``.
    """
    if is_classifier(options.weights):
        from ..training import classifiers

        return classifiers.validate(options, run)
    if not 0 <= options.conf < 1 or not 0 < options.iou <= 1:
        raise InputError(f"--conf {options.conf} --iou {options.iou}: shares from 0 to 1 are meant")
    detector = open_detector(options.weights, options.device)
    _require_predictions(detector)
    if options.save_json and finds_of(detector) == "labels":
        raise InputError("--save-json is of boxes and masks; label maps are what detect.py --save-txt writes")
    imgsz = detector.check_imgsz(options.imgsz or detector.imgsz)
    chosen = options.classes, options.single_cls, finds_of(detector)
    dataset, names = detection_split(options.data, options.split, imgsz, *chosen)
    check_classes(options.weights, names_of(detector) or (), options.data, names)
    require_boxes(dataset, options.data)
    print(dataset.report, flush=True)
    measured = measure(
        detector, dataset, options.batch, names, options.conf, options.iou, options.max_det, options.workers
    )
    results = {"imgsz": imgsz, "dtype": detector.dtype, **measured.metrics.compute(), "speed": measured.speed}

    run.write_config(asdict(options))
    run.write_json("results.json", results)
    measured.metrics.plot_confusion_matrix(run.path / "confusion_matrix.png")
    if finds_of(detector) != "labels":
        measured.metrics.plot_pr_curve(run.path / "pr_curve.png")
    if options.save_json:
        save_coco_json(measured, run.path / "predictions.json", coco_ids(options.data, options.split, names))
    title = f"{options.weights} ({detector.dtype}) on {options.data} ({options.split}), {imgsz} pixels"
    speed = ", ".join(f"{part} {ms:.1f} ms" for part, ms in measured.speed.items())
    say(
        score_table(results, title),
        f"{results['images']:,} images; an image: {speed}",
        *([f"precision and recall at confidence {results['confidence']:.3f}"] if "confidence" in results else []),
        f"results in {run.path}",
    )
    return results


def check_classes(weights: Any, theirs: Sequence[str], data: Any, own: Sequence[str]) -> None:
    """`InputError` unless a detector's classes are the data's; a line where they are in another order."""
    if (order := order_of(theirs, own)) is None:
        raise InputError(
            f"--data {data}: other classes than {weights} was made for: the data {difference(theirs, own)}; right "
            "would be the same names, in any order"
        )
    if list(theirs) == list(own):
        return
    if order == [*range(len(order))]:
        print(f"note: {weights} calls its classes {some(theirs)}, the data {some(own)}: they are taken by number")
    else:
        print(f"note: classes are in another order in {data} than in {weights}: they are taken by name")


def save_coco_json(
    measured: Measured, path: str | Path, ids: tuple[Mapping[str, Any], Sequence[Any]] | None = None
) -> None:
    """Write detections as COCO's results.

    ``[{"image_id", "category_id", "bbox": [left, top, width, height], "score"}, …]``, and ``segmentation``,
    uncompressed RLE, where masks were measured.

    Parameters
    ----------
    ids
        The data set's own, as `data.coco_ids` finds them. Without, ``image_id`` is the name of the file without its
        suffix, as an integer where it is one, and ``category_id`` the class's number from 0.
    """
    rows = []
    of_images: Sequence[Any] = measured.masks if measured.masks else [None] * len(measured.metas)
    for meta, found, of_image in zip(measured.metas, measured.detections, of_images, strict=True):
        file = Path(meta.name)
        image_id = _id_of(file, ids[0]) if ids else int(file.stem) if file.stem.isdecimal() else file.stem
        boxes = box_convert(found[:, :4], "xyxy", "xywh").tolist()
        masks: list[Any] = of_image.found if of_image is not None else [None] * len(boxes)
        each = zip(boxes, found[:, 4].tolist(), found[:, 5].int().tolist(), masks, strict=True)
        for box, score, label, mask in each:
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": ids[1][label] if ids else label,
                    "bbox": [round(v, 3) for v in box],
                    "score": round(score, 5),
                    **({} if mask is None else {"segmentation": mask}),
                }
            )
    write_text(path, json.dumps(rows))


def _id_of(file: Path, ids: Mapping[str, Any]) -> Any:
    """An image's id, by the longest end of its path that has one: files in several folders may share a name."""
    ends = ("/".join(file.parts[i:]) for i in range(len(file.parts)))
    return next(ids[end] for end in ends if end in ids)
