"""The test images, looked at once: the network that was chosen beside its rival, as files that are handed over."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from data import detection_split

from ..inference.detectors import OnnxDetector
from ..inference.validate import Measured, measure
from .bootstrap import Matched, difference, objects_in_pixels
from .phases import Job


def test(job: Job) -> dict[str, Any]:
    """Measure on images that nothing was trained on and nothing was chosen by.

    What was detected is kept for the report in ``test/``.
    """
    decided = job.results["decide"]
    # The plain network that was trained for equal time, where there is one, is measured too.
    long = job.results["equal"].get("candidates", {})
    names = [n for n in dict.fromkeys((decided["chosen"], decided["rival"], *long)) if n is not None]
    scores, matched = {}, {}
    for name in names:
        candidate = decided["candidates"][name]
        dataset, classes = detection_split(job.data, "test", candidate["side"])
        measured = measure(OnnxDetector(job.path / candidate["onnx"]), dataset, names=classes)
        objects = [objects_in_pixels(rows, s) for rows, s in zip(dataset.labels, dataset.shapes, strict=True)]
        ignored = [torch.from_numpy(meta.ignored) for meta in measured.metas]
        matched[name] = Matched(measured.detections, objects, len(classes), ignored)
        scores[name] = measured.metrics.compute()
        if name == decided["chosen"]:
            _keep(job, measured, objects)
        job.note(f"test images: {name} mAP50-95 {scores[name]['map50_95']:.4f}")
    apart = {n: asdict(difference(matched[names[0]], matched[n], seed=job.options.seed)) for n in names[1:]}
    return {"scores": scores, "difference": apart, "images": scores[names[0]]["images"]}


def _keep(job: Job, measured: Measured, objects: list[torch.Tensor]) -> None:
    """Pictures of the metrics, and detections with the objects of their images."""
    measured.metrics.plot_confusion_matrix(job.path / "test" / "confusion_matrix.png")
    measured.metrics.plot_pr_curve(job.path / "test" / "pr_curve.png")
    rows = [
        {"file": meta.name, "detections": found[found[:, 4] > 0.05].tolist(), "objects": true.tolist()}
        for meta, found, true in zip(measured.metas, measured.detections, objects, strict=True)
    ]
    job.run.write_json("test/detections.json", rows)


def digest(file: Path) -> str:
    """SHA-256 of a file, by which the one that was measured is known."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
