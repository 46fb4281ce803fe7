"""``report.html``: one page, self-contained, that a person sends to a colleague. And ``front.csv``."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.files import write_text
from models.upstream import load_weights

from ..run.amounts import written
from ..run.console import say
from .arch_picture import side_by_side
from .card import command
from .front import front_html, front_rows, write_front
from .gallery import COLOURS, gallery
from .phases import Job
from .plan import duration
from .sentence import chosen_of, sentence

_STYLE = Path(__file__).with_name("report.css")


def report(job: Job) -> dict[str, Any]:
    """Write both, and say what was found."""
    rows = front_rows(job)
    write_front(job, rows)
    page = _page(job, rows)
    write_text(job.path / "report.html", page)
    say(
        "",
        sentence(job),
        f"the files: {job.run.path / 'best'}",
        f"the report: {job.run.path / 'report.html'}",
        f"try it: python detect.py --weights {job.run.path / 'best' / 'model.onnx'} --source IMAGES",
    )
    return {"sentence": sentence(job)}


def _page(job: Job, rows: Sequence[dict[str, Any]]) -> str:
    chosen = chosen_of(job)
    sections = [
        _section(
            "Front",
            front_html(job, rows)
            + _soft("Points show what they are under the pointer; a click opens the file, a double click shows all."),
        ),
        _section("Finalists", _finalists(job)),
        _section("Classes, on the test images", _classes(job)),
        f'<div class="pair">{_picture(job, "Precision and recall", "pr_curve.png")}'
        f"{_picture(job, 'Confusion', 'confusion_matrix.png')}</div>",
        _section("Detections on test images, worst misses first", _gallery(job, chosen)),
        _section("Architecture", _arch(job, chosen)),
        _section("How the supernet ranks", _fidelity(job)),
        _section("Data", _data(job)),
        _section("What each phase took", _phases(job)),
        _section("How to reproduce", _reproduce(job)),
    ]
    title = f"{chosen['name']}, a detector of {', '.join(job.results['look']['names'][:4])}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE.read_text(encoding='utf-8')}</style></head><body><main>"
        f'<h1>Which detector to ship</h1><p class="lead" id="sentence">{html.escape(sentence(job))}</p>'
        f"{_tiles(job, chosen)}{''.join(sections)}</main></body></html>"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>"


def _soft(text: str) -> str:
    return f'<p class="soft">{html.escape(text)}</p>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], chosen: int | None = None) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        f"<tr{' class=chosen' if i == chosen else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for i, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _tiles(job: Job, chosen: dict[str, Any]) -> str:
    scores = chosen["test"]
    ninety = f"90 %: {chosen['latency_90']:.3g} ms" if "latency_90" in chosen else f"told by {job.options.costs}"
    tiles = [
        (f"{scores['map50_95']:.3f}", f"mAP50-95 on {scores['images']} test images"),
        (f"{scores['map50']:.3f}", "mAP50"),
        (written("latency", chosen["latency"]), f"median latency as exported, {ninety}"),
        (written("params", chosen["params"]), "parameters"),
        (written("flops", chosen["flops"]), f"FLOPs at {chosen['side']} pixels"),
        (duration(sum(job.spent.values())), "for all of it"),
    ]
    made = "".join(f'<div class="tile"><b>{html.escape(b)}</b><span>{html.escape(s)}</span></div>' for b, s in tiles)
    return f'<div class="tiles">{made}</div>'


def _finalists(job: Job) -> str:
    decided, tested = job.results["decide"], job.results["test"]
    rows, chosen = [], None
    for i, (name, c) in enumerate(decided["candidates"].items()):
        chosen = i if name == decided["chosen"] else chosen
        scores = tested["scores"].get(name)
        d = tested["difference"].get(name)
        rows.append(
            [
                f'<a href="{html.escape(c["weights"])}">{html.escape(name)}</a>',
                str(c["side"]),
                html.escape(written("latency", c["latency"])),
                written("flops", c["flops"]),
                written("params", c["params"]),
                f"{c['rated']:.3f}" if "rated" in c else "",
                f"{c['map50_95']:.3f}",
                f"{scores['map50_95']:.3f}" if scores else "",
                f"{d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" if d else "",
            ]
        )
    columns = (
        "",
        "pixels",
        "latency",
        "FLOPs",
        "parameters",
        "in the supernet",
        "validation",
        "test",
        "handed over better by",
    )
    epochs = job.results["finetune"]["epochs"]
    more = job.results["long"]["epochs"]
    said = (
        f"mAP50-95. All were finetuned alike, {epochs} epoch{'s' * (epochs != 1)}, the best of each kind was trained "
        f"on, {more} epoch{'s' * (more != 1)}, and the validation images chose: {decided['said']}. "
        "Test images were looked at once, by those that have a figure there; intervals are 95 %, over images, paired."
    )
    return _table(columns, rows, chosen) + _soft(said)


def _classes(job: Job) -> str:
    decided, tested = job.results["decide"], job.results["test"]["scores"]
    own = tested[decided["chosen"]]["classes"]
    rival = tested[decided["rival"]]["classes"] if decided["rival"] else {}
    rows = []
    for name, m in own.items():
        other = f"{rival[name]['ap50_95']:.3f}" if name in rival else ""
        numbers = [m["ap50_95"], m["ap50"], m["precision"], m["recall"]]
        rows.append([html.escape(name), str(m["instances"]), *(f"{n:.3f}" for n in numbers), other])
    columns = [
        "class",
        "objects",
        "AP50-95",
        "AP50",
        "precision",
        "recall",
        f"AP50-95 of {decided['rival'] or 'no other'}",
    ]
    return _table(columns, rows)


def _picture(job: Job, title: str, file: str) -> str:
    data = base64.b64encode((job.path / "test" / file).read_bytes()).decode()
    return _section(title, f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">')


def _gallery(job: Job, chosen: dict[str, Any]) -> str:
    conf = chosen["test"]["confidence"]
    figures = "".join(
        f'<figure><img alt="{html.escape(said)}" src="{url}"><figcaption>{html.escape(said)}</figcaption></figure>'
        for said, url in gallery(job, conf)
    )
    legend = " ".join(f'<b style="color:{colour}">{kind}</b>' for kind, colour in COLOURS.items())
    return f'<p class="soft">{legend}, at confidence {conf:.2f} and IoU 0.5</p><div class="grid">{figures}</div>'


def _arch(job: Job, chosen: dict[str, Any]) -> str:
    """The searched one beside the plain one; where the plain one is handed over, the best searched beside it."""
    decided = job.results["decide"]
    searched = next((n for n, c in decided["candidates"].items() if c["kind"] == "searched"), None)
    first = decided["chosen"] if chosen["kind"] == "searched" else searched or decided["chosen"]
    names = (first, decided["plain"])
    models = [load_weights(job.path / decided["candidates"][n]["weights"])[0] for n in names]
    drawn = side_by_side(models, [decided["candidates"][n]["side"] for n in names], names)
    return drawn + _soft("Bars are FLOPs of a row; rows that differ from the plain network's are bold.")


def _fidelity(job: Job) -> str:
    found = job.results["fidelity"]
    if not found:
        return _soft("Kendall's tau was not measured: --fidelity 8 trains eight archs alone and tells it.")
    own = found["predictors"]["supernet"]
    size = found["predictors"]["flops"]
    rows = [
        [name, f"{f['tau']:.2f}", f"{f['low']:.2f} to {f['high']:.2f}"]
        for name, f in (("the supernet", own), ("FLOPs alone", size))
    ]
    said = f"{found['archs']} archs, ranked beside what each reaches trained alone ({found['metric']})."
    return _table(["ranked by", "Kendall's tau", "95 %"], rows) + _soft(said)


def _data(job: Job) -> str:
    seen = job.results["look"]
    rows = [[html.escape(name), *map(str, numbers)] for name, numbers in seen["boxes"].items()]
    notes = "".join(f"<li>{html.escape(n)}</li>" for n in seen["notes"])
    counts = seen["images"]
    said = f"{counts['train']} training, {counts['val']} validation, {counts['test']} test images; none is in two."
    return _soft(said) + f"<ul>{notes}</ul>" + _table(["boxes of class", "training", "validation", "test"], rows)


def _phases(job: Job) -> str:
    total = sum(job.spent.values()) or 1
    rows = [
        [name, duration(s), f'<div class="bar" style="width:{260 * s / total:.0f}px"></div>']
        for name, s in job.spent.items()
    ]
    return _table(["phase", "took", ""], rows)


def _reproduce(job: Job) -> str:
    import yaml

    config = yaml.safe_load((job.path / "config.yaml").read_text(encoding="utf-8"))
    versions = ", ".join(f"{k} {v}" for k, v in config["versions"].items())
    plan = json.loads((job.path / "plan.json").read_text(encoding="utf-8"))["counts"]
    counts = ", ".join(f"{k} {v}" for k, v in plan.items())
    commit = f", commit {config['git_commit']}" if config.get("git_commit") else ""
    said = (
        f"Python {config['python']}, {versions}{commit}; seed {job.options.seed}. With --hours the counts follow from "
        f"the machine's pace: here {counts}. Everything it was made of is in the folder of this page."
    )
    return f"<pre>{html.escape(command(job))}</pre>" + _soft(said)
