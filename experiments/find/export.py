"""What is handed over: ``best/``, with the files that were measured."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.files import atomic, load_detector, save_model_yaml

from ..inference.convert import convert
from ..inference.detectors import OnnxDetector
from ..inference.options import Export
from ..inference.speed import milliseconds
from .card import card
from .phases import Job
from .test import digest


def export(job: Job) -> dict[str, Any]:
    """Copy the chosen network and its ONNX file, make the one in 8 bits where asked for, and write the model card."""
    decided = job.results["decide"]
    chosen = decided["candidates"][decided["chosen"]]
    folder = job.path / "best"
    _copy(job.path / chosen["weights"], folder / "detector.pt")
    model, _ = load_detector(folder / "detector.pt")
    save_model_yaml(model.config.raw, folder / "detector.yaml")
    _copy(job.path / chosen["onnx"], folder / "model.onnx")
    OnnxDetector(folder / "model.onnx")  # reads it
    found: dict[str, Any] = {"files": ["detector.yaml", "detector.pt", "model.onnx", "model_card.md"]}
    if job.options.int8:
        found["int8"] = _int8(job, folder)
        found["files"] += ["model-int8.onnx"] if found["int8"]["written"] else []
    found["sha256"] = digest(folder / "model.onnx")
    job.results["export"] = found
    card(job, folder / "model_card.md")
    return found


def _copy(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def _int8(job: Job, folder: Path) -> dict[str, Any]:
    """The file in 8 bits; what it loses too much by is told, and the run goes on without it."""
    file = folder / "model-int8.onnx"
    options = Export(weights=str(folder / "detector.pt"), output=str(file), int8=True, data=job.data, batch=1)
    try:
        convert(options)
    except InputError as e:
        job.note(f"no file in 8 bits: {e}")
        return {"written": False, "said": str(e)}
    (plain, _), (small, _) = milliseconds([folder / "model.onnx", file])
    return {"written": True, "said": f"{small:.2f} ms beside {plain:.2f} ms", "latency": small}
