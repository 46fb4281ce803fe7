"""``model_card.md``: what a person who gets the files has to know."""

from __future__ import annotations

import platform
import shlex
from pathlib import Path

import torch

from models.files import write_text

from ..costs.latency_table import device_name
from ..run.amounts import written
from .phases import Job
from .sentence import chosen_of, sentence

_SHOWN = ("ap50_95", "ap50", "precision", "recall")


def card(job: Job, path: Path) -> None:
    """Write it."""
    c, seen, exported = chosen_of(job), job.results["look"], job.results["export"]
    scores = c["test"]
    threads = job.options.threads or torch.get_num_threads()
    timed = (
        f"as told by `{job.options.costs}`"
        if job.options.costs is not None
        else f"ONNX Runtime, {device_name('cpu')}, threads: {threads}, one image, without NMS; "
        f"median, and 90 % of the runs take no more than {c['latency_90']:.4g} ms"
    )
    rows = [
        f"| {name} | {m['instances']} | " + " | ".join(f"{m[k]:.3f}" for k in _SHOWN) + " |"
        for name, m in scores["classes"].items()
    ]
    precision = f"{scores['precision']:.3f}, {scores['recall']:.3f}"
    images = seen["images"]
    lines = [
        f"# {c['name']}: a detector of {', '.join(seen['names'][:10])}{' …' if len(seen['names']) > 10 else ''}",
        "",
        sentence(job),
        "",
        "## Use",
        "",
        "```bash",
        f"python detect.py --weights model.onnx --source IMAGES --conf {scores['confidence']:.2f}",
        f"python detect.py --weights detector.pt --source IMAGES --conf {scores['confidence']:.2f}",
        "```",
        "",
        f"`model.onnx` takes `images`, float32 (1, 3, {c['side']}, {c['side']}), RGB from 0 to 1, letterboxed; what it "
        "gives stands in its metadata (`form`). NMS is not in it.",
        f"In 8 bits: {exported['int8']['said']}." if "int8" in exported else "",
        "",
        "## Figures",
        "",
        "| | |",
        "|---|---|",
        f"| mAP50-95, mAP50 on {scores['images']} test images | {scores['map50_95']:.3f}, {scores['map50']:.3f} |",
        f"| mAP50-95 on the validation images, by which it was chosen | {c['map50_95']:.3f} |",
        f"| latency | {written('latency', c['latency'])} ({timed}) |",
        f"| parameters, FLOPs | {c['params']:,}, {written('flops', c['flops'])} at {c['side']} pixels |",
        f"| precision, recall at confidence {scores['confidence']:.2f} | {precision} |",
        "",
        "| class | test objects | AP50-95 | AP50 | precision | recall |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "## Data",
        "",
        f"`{job.options.data}`: {images['train']} training, {images['val']} validation, {images['test']} test images, "
        "none of them in two.",
        "",
        *(f"- {note}" for note in seen["notes"]),
        "",
        "## Made by",
        "",
        "```bash",
        command(job),
        "```",
        "",
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, seed {job.options.seed}. "
        f"SHA-256 of `model.onnx`: `{exported['sha256']}`.",
        "",
        "## Licence",
        "",
        "The code that made it is Apache-2.0. Weights that were begun with are under their own licence "
        f"({', '.join(job.options.weights) or 'none were: it was trained from scratch'}; checkpoints of YOLOv5 are "
        "AGPL-3.0), and so are the pictures: whether what is learnt of them may be passed on is theirs to say.",
    ]
    write_text(path, "\n".join(lines) + "\n")


def command(job: Job) -> str:
    """The command that made the run."""
    import yaml

    config = yaml.safe_load((job.path / "config.yaml").read_text(encoding="utf-8"))
    words = [str(w) for w in config["command"]]
    if not words[0].endswith("find_detector.py"):  # called by Python
        return f"python find_detector.py {options_line(job)}"
    return shlex.join(["python", Path(words[0]).name, *words[1:]])


def options_line(job: Job) -> str:
    """The options that are not as they are by default, as a command line has them."""
    from dataclasses import fields

    words = []
    for f in fields(job.options):
        value = getattr(job.options, f.name)
        default = f.default if not callable(f.default_factory) else f.default_factory()  # type: ignore[misc]
        if value == default:
            continue
        flag = f"--{f.name.replace('_', '-')}"
        words += [flag, *([] if value is True else map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)
