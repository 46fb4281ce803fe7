"""Trainings within a run: each in a folder of its own, gone on with where it stands."""

from __future__ import annotations

import json
from typing import Any

from data import detection_split
from models.upstream import load_weights

from ..inference.validate import evaluate
from ..training import train as training
from ..training.options import Options as Training
from .phases import Job

_MEASURED = ("map50_95", "map50")


def train(job: Job, names: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Train a detector in a folder; one that is trained is not trained again.

    Returns
    -------
    ``map50_95`` and ``map50`` of its best epoch on the validation images, ``best_epoch``, ``epochs``, ``minutes``,
    ``weights``.
    """
    run = job.folder(*names)
    file = run.path / "results.json"
    if not file.is_file():
        o = job.options
        given = Training(
            data=job.data,
            batch=o.batch,
            seed=o.seed,
            device=o.device,
            precision=o.precision,
            plugin=o.plugin,
            **options,
        )
        training.train(given, run, resume=(run.path / "last.ckpt").is_file())
    found = json.loads(file.read_text(encoding="utf-8"))
    return {
        **{k: found["best"][k] for k in _MEASURED},
        **{k: found[k] for k in ("epochs", "minutes")},
        "best_epoch": found["best"]["epoch"],
        "weights": str((run.path / "detector.pt").relative_to(job.path)),
    }


def validated(job: Job, weights: str, side: int) -> dict[str, float]:
    """``map50_95`` and ``map50`` of a detector on the validation images."""
    model, _ = load_weights(job.path / weights)
    found = evaluate(model, detection_split(job.data, "val", side)[0], batch=job.options.batch)
    return {k: found[k] for k in _MEASURED}
