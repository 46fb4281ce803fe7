"""The result in a sentence, as it stands on the screen, in the report and in the model card."""

from __future__ import annotations

from typing import Any

from ..run.amounts import written
from .phases import Job


def chosen_of(job: Job) -> dict[str, Any]:
    """The network that is handed over, with its scores on the test images."""
    decided = job.results["decide"]
    name = decided["chosen"]
    return {"name": name, **decided["candidates"][name], "test": job.results["test"]["scores"][name]}


def best_so_far(job: Job) -> str:
    """The best trained network that there is by now, by the validation images; empty while there is none."""
    scores = {f"plain {k}": n["map50_95"] for k, n in job.results.get("baselines", {}).get("networks", {}).items()}
    for phase in ("finetune", "long", "equal"):
        for name, c in job.results.get(phase, {}).get("candidates", {}).items():
            scores[f"plain {name}" if c["kind"] == "plain" else name] = c["map50_95"]
    if not scores:
        return ""
    best = max(scores, key=lambda name: scores[name])
    return f"best so far: {best}, mAP50-95 {scores[best]:.3f} of validation"


def verdict(job: Job) -> str:
    """How the chosen network does beside its rival on the test images, with the interval; empty without a rival."""
    decided, tested = job.results["decide"], job.results["test"]
    rival = decided["rival"]
    if rival is None:
        return ""
    d = tested["difference"][rival]
    sure = "more than chance" if d["low"] > 0 or d["high"] < 0 else "no more than chance may be"
    better = "better" if d["mean"] > 0 else "worse"
    apart = "as good as" if round(d["mean"], 3) == 0 else f"{abs(d['mean']):.3f} {better} than"
    score, latency = tested["scores"][rival]["map50_95"], decided["candidates"][rival]["latency"]
    return (
        f"{apart} {rival} ({score:.3f} at {written('latency', latency)}), "
        f"95 % interval {d['low']:+.3f} to {d['high']:+.3f} over images: {sure}"
    )


def sentence(job: Job) -> str:
    """What was found."""
    c = chosen_of(job)
    limits = [f"{n} of at most {written(n, limit)}" for n, limit in job.results["measure"]["limits"].items()]
    if job.options.min_map is not None:
        limits.append(f"mAP50-95 of at least {job.options.min_map:g}")
    kind = f"plain {c['base']}" if c["kind"] == "plain" else f"a searched network of the space around {c['base']}"
    images = job.results["test"]["images"]
    first = (
        f"For {', '.join(limits)}: {kind} at {c['side']} pixels, mAP50-95 {c['test']['map50_95']:.3f} on {images} test "
        f"images that it never saw, {written('latency', c['latency'])}, {written('params', c['params'])} parameters, "
        f"{written('flops', c['flops'])} FLOPs."
    )
    if not limits:
        first = first.replace("For : ", "", 1)
    second = verdict(job)
    plain = (
        " No searched network beats the plain one at that cost, so that the plain one is handed over."
        if (c["kind"] == "plain" and job.results["decide"]["rival"] is not None)
        else ""
    )
    return f"{first}{plain}{f' It is {second}.' if second else ''}"
