"""How the supernet ranks, where that was asked for: each of some archs is trained alone."""

from __future__ import annotations

import json
from typing import Any

from ..supernets.fidelity import report_fidelity
from ..supernets.options import FidelityOptions
from .phases import Job


def fidelity(job: Job) -> dict[str, Any]:
    """Kendall's tau of the supernet's ratings; nothing without ``--fidelity``."""
    o = job.options
    if not o.fidelity:
        return {}
    run = job.folder("fidelity")
    file = run.path / "results.json"
    if not file.is_file():
        supernet = str(job.path / "supernet")
        given = FidelityOptions(supernet=supernet, fidelity=o.fidelity, seed=o.seed, device=o.device, plugin=o.plugin)
        report_fidelity(given, run)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
