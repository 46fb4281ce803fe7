"""One training of all networks of the space, begun with the plain one's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from models.documents import read_yaml

from ..oneshot.options import Options as OneShot
from ..oneshot.search import search
from .bases import with_sizes, write_yaml
from .phases import Job
from .plan import plan_of

# Smaller images that leave the plain network less of its mAP are not searched: nearly all archs that keep a low limit
# are of the smallest, and a search of those finds nothing (benchmarks/find.md, the third run).
_LEFT = 0.5


def supernet(job: Job) -> dict[str, Any]:
    """Train the supernet."""
    base = job.results["baselines"]["chosen"]
    epochs = plan_of(job).decide("supernet")
    run = job.folder("supernet")
    if not (run.path / "results.json").is_file():
        o, sides = job.options, _restricted(job, base)
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


def _restricted(job: Job, base: str) -> list[int]:
    """The sides that are searched, now that the plain network is trained; the others are no choice any more."""
    measured, network = job.results["measure"], job.results["baselines"]["networks"][base]
    sides: list[int] = measured["sides"][base]
    if job.options.sizes or job.options.cfg is not None:
        return sides
    kept = worth(sides, network["at"], network["side"])
    if kept != sides:
        job.note(
            f"sides {', '.join(str(s) for s in sides if s not in kept)}: the plain network keeps less than half of its "
            "mAP there; not searched"
        )
        path = job.path / "spaces" / f"{base}.yaml"
        raw = {k: v for k, v in read_yaml(path).items() if k != "resolution"}
        write_yaml(with_sizes(raw, kept, network["side"]), path)
    return kept


def worth(sides: Sequence[int], at: Mapping[str, float], own: int) -> list[int]:
    """Without the sides below its own at which a plain network loses more than half of its mAP."""
    return [side for side in sides if side >= own or at[str(side)] >= _LEFT * at[str(own)]]
