"""One training of all networks of the space, begun with the plain one's weights."""

from __future__ import annotations

import json
from typing import Any

from ..oneshot.options import Options as OneShot
from ..oneshot.search import search
from .phases import Job
from .plan import plan_of


def supernet(job: Job) -> dict[str, Any]:
    """Train the supernet."""
    base = job.results["baselines"]["chosen"]
    epochs = plan_of(job).decide("supernet")
    run = job.folder("supernet")
    if not (run.path / "results.json").is_file():
        o, sides = job.options, job.results["measure"]["sides"][base]
        options = OneShot(
            strategy="bignas",
            task="detect",
            cfg=str(job.path / "spaces" / f"{base}.yaml"),
            data=job.data,
            epochs=epochs,
            batch=o.batch,
            imgsz=max(sides),
            cost_imgsz=max(sides),
            weights=str(job.path / job.results["baselines"]["networks"][base]["weights"]),
            finetune=0,
            baseline=False,
            seed=o.seed,
            device=o.device,
            precision=o.precision,
            plugin=o.plugin,
        )
        search(options, run, resume=(run.path / "last.ckpt").is_file())
    found = json.loads((run.path / "results.json").read_text(encoding="utf-8"))
    return {"epochs": epochs, "largest": found["derived"]["inherited"], "metric": found["metric"]}
