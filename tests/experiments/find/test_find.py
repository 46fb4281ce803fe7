"""The whole way on pictures of digits, with Ctrl-C in every phase, and what it leaves, in a browser too."""

import csv
import errno
import importlib
import json
import os
import re

import numpy as np
import onnxruntime as ort
import pytest
import torch
import yaml

import find_detector as script
from data import detection_sources, detection_split
from data.formats import spec_of
from experiments import find_detector, open_detector
from experiments.find.find import PHASES
from experiments.find.measure import measure
from experiments.find.phases import Job
from experiments.inference.validate import measure as validate
from experiments.run.cli import run_script
from experiments.run.folder import RunFolder
from models import load_detector
from tests.experiments.browser import Browser, needs_chromium

# Where Ctrl-C comes in each phase: module, name, and the call of it that is the last one.
INTERRUPTED = {
    "look": ("experiments.find.look", "_picture", 1),
    "measure": ("experiments.find.measure", "check_limits", 1),
    "baselines": ("experiments.run.callbacks", "LastCheckpoint.on_train_epoch_end", 1),
    "supernet": ("experiments.run.callbacks", "LastCheckpoint.on_train_epoch_end", 1),
    "search": ("experiments.supernets.rating", "Rating.rate", 2),
    "finetune": ("experiments.run.callbacks", "LastCheckpoint.on_train_epoch_end", 2),
    "long": ("experiments.run.callbacks", "LastCheckpoint.on_train_epoch_end", 1),
    "equal": ("experiments.run.callbacks", "LastCheckpoint.on_train_epoch_end", 1),
    "decide": ("experiments.find.finetune", "_time", 1),
    "test": ("experiments.find.test", "difference", 1),
    "export": ("experiments.find.export", "card", 1),
    "fidelity": ("experiments.supernets.fidelity", "report", 1),
    "report": ("experiments.find.report", "front_html", 1),
}


def interrupted(patch, module, name, number):
    """Ctrl-C behind the call of that number."""
    owner = importlib.import_module(module)
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    own, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        result = own(*args, **kwargs)
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return result

    patch.setattr(owner, name, wrapped)


def call(*args):
    environment = dict(os.environ)
    try:
        return run_script(script.main, script.parse([*map(str, args)]))
    finally:
        os.environ.clear()
        os.environ.update(environment)


ALL = tuple(name for name, _, _ in PHASES)


def walk(project, given, names=ALL):
    """A run that is interrupted in these phases: its folder, and the status of every start."""
    statuses, given = {}, [*given, "--project", project]
    for name in names:
        with pytest.MonkeyPatch.context() as patch:
            interrupted(patch, *INTERRUPTED[name])
            statuses[name] = call(*given)
        given = ["--resume", project / "exp"]
    statuses["end"] = call(*given)
    return project / "exp", statuses


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_cfg, digits):
    given = ["--data", digits(36, 64), "--cfg", tiny_cfg, "--max-latency", "5ms", "--epochs", 2, "--trials", 4]
    given += ["--imgsz", 64, "--sizes", 48, 64, "--batch", 8, "--finalists", 1, "--equal-time", "--fidelity", 2]
    given += ["--int8", "--device", "cpu", "--share", 0.2]
    return walk(tmp_path_factory.mktemp("find"), given)


def phase(folder, name):
    return json.loads((folder / f"phases/{name}.json").read_text())["result"]


def test_every_interrupt_is_one_and_the_run_ends_well(found):
    _, statuses = found
    assert statuses == {**dict.fromkeys(ALL, 130), "end": 0}


def test_no_picture_is_in_two_splits_and_none_is_lost(found):
    folder, _ = found
    names, sources = detection_sources(spec_of(folder / "data/data.yaml"))
    seen = {s: {source.name(i) for i in range(len(source.shapes))} for s, source in sources.items()}
    assert len(names) == 10
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 36
    assert {s: len(v) for s, v in seen.items()} == phase(folder, "look")["images"]


def test_counts_are_those_of_the_plan(found):
    folder, _ = found
    counts = json.loads((folder / "plan.json").read_text())["counts"]
    assert counts == {"baselines": 2, "supernet": 2, "search": 4, "finetune": 1, "long": 2}
    with (folder / "search/subnets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert all(float(r["latency"]) <= 5 for r in rows)
    assert {json.loads(r["arch"])["resolution"] for r in rows} <= {48, 64}
    for name in ("baselines/tiny", "supernet", "finalists/tiny", "finalists/searched1", "finalists/tiny-equal"):
        with (folder / name / "metrics.csv").open(newline="") as file:
            epochs = [int(r["epoch"]) for r in csv.DictReader(file)]
        assert epochs == list(range(len(epochs)))  # none is done twice
    assert {*json.loads((folder / "spent.json").read_text())} == {*ALL}


def test_what_is_handed_over_is_what_was_measured(found):
    folder, _ = found
    decided, tested = phase(folder, "decide"), phase(folder, "test")
    chosen = decided["chosen"]
    candidate = decided["candidates"][chosen]
    files = {p.name for p in (folder / "best").iterdir()}
    assert {"detector.yaml", "detector.pt", "model.onnx", "model_card.md"} <= files
    assert files - {"model-int8.onnx"} == {"detector.yaml", "detector.pt", "model.onnx", "model_card.md"}
    assert ("model-int8.onnx" in files) == phase(folder, "export")["int8"]["written"]
    # The file, and the weights, on the test images.
    test, names = detection_split(folder / "data/data.yaml", "test", candidate["side"])
    for name in ("model.onnx", "detector.pt"):
        again = validate(open_detector(folder / "best" / name), test, names=names).metrics.compute()
        assert again["map50_95"] == pytest.approx(tested["scores"][chosen]["map50_95"], abs=1e-6)
    model, content = load_detector(folder / "best/detector.pt")
    assert sum(p.numel() for p in model.parameters()) == candidate["params"]
    assert content["imgsz"] == candidate["side"]
    session = ort.InferenceSession((folder / "best/model.onnx").read_bytes())
    assert session.get_inputs()[0].shape == [1, 3, candidate["side"], candidate["side"]]
    assert set(tested["scores"]) == {chosen, decided["rival"], "tiny-equal"}


def test_front_has_everything_that_was_rated_or_trained(found):
    folder, _ = found
    with (folder / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [r["kind"] for r in rows]
    assert kinds.count("rated in the supernet") == 4
    assert {r["name"] for r in rows if r["kind"] == "plain"} == {"tiny at 48", "tiny at 64"}
    finetuned = {r["name"]: r for r in rows if "finetuned" in r["kind"]}
    assert {*finetuned} == {"tiny", "searched1", "tiny-equal"}
    chosen = phase(folder, "decide")["chosen"]
    assert [name for name, r in finetuned.items() if r["chosen"] == "True"] == [chosen]
    assert all((folder / r["file"]).is_file() for r in finetuned.values())


def test_card_says_what_has_to_be_known(found):
    folder, _ = found
    text = (folder / "best/model_card.md").read_text()
    scores = phase(folder, "test")["scores"][phase(folder, "decide")["chosen"]]
    assert f"{scores['map50_95']:.3f}, {scores['map50']:.3f}" in text
    for said in ("## Licence", "AGPL-3.0", "--max-latency 5", "seed 0", "threads:", "SHA-256", "python detect.py"):
        assert said in text


def test_result_of_a_run_that_is_done_is_read_again(found):
    folder, _ = found
    before = (folder / "report.html").stat().st_mtime_ns
    again = find_detector(resume=folder)
    assert (folder / "report.html").stat().st_mtime_ns == before
    assert again.sentence == phase(folder, "report")["sentence"]
    assert again.is_searched == (again.name == "searched1")
    assert again.weights.is_file()
    assert again.onnx.is_file()
    assert again.report.is_file()
    low, high = again.interval
    assert low <= high
    assert again.latency == phase(folder, "decide")["candidates"][again.name]["latency"]


def test_a_run_is_not_written_over(found, capsys):
    folder, _ = found
    assert call("--data", "digits-detect", "--project", folder.parent, "--exist-ok") == 2
    assert (
        capsys.readouterr().err
        == f"error: {folder}: holds a run; right would be --resume {folder}, or another --name\n"
    )


@pytest.mark.slow
def test_a_run_that_was_interrupted_everywhere_is_the_one_that_was_not(tmp_path, tiny_cfg, digits):
    # Of counted costs: what is timed differs from run to run.
    given = ["--data", digits(36, 64), "--cfg", tiny_cfg, "--max-flops", "5M", "--epochs", 2, "--trials", 4]
    given += ["--imgsz", 64, "--sizes", 48, 64, "--batch", 8, "--finalists", 2, "--fidelity", 2, "--device", "cpu"]
    names = [name for name in ALL if name != "equal"]  # how long that is depends on the time
    stopped, statuses = walk(tmp_path / "stopped", given, names)
    assert statuses == {**dict.fromkeys(names, 130), "end": 0}
    assert call(*given, "--project", tmp_path / "whole") == 0
    whole = tmp_path / "whole/exp"
    for name in ("look", "baselines", "supernet", "search", "finetune", "long", "test", "fidelity"):
        one, other = (phase(folder, name) for folder in (stopped, whole))
        assert _timeless(one) == _timeless(other), name
    for file in sorted((whole / "finalists").rglob("detector.pt")):
        (one, _), (other, _) = (load_detector(folder / file.relative_to(whole)) for folder in (stopped, whole))
        other = other.state_dict()
        assert all(torch.equal(tensor, other[k]) for k, tensor in one.state_dict().items())


def _timeless(result):
    """What a phase found, without minutes and milliseconds."""
    if isinstance(result, dict):
        return {k: _timeless(v) for k, v in result.items() if k not in ("minutes", "latency", "told")}
    return [_timeless(v) for v in result] if isinstance(result, list) else result


def test_page_needs_nothing_beside_it(found):
    folder, _ = found
    page = (folder / "report.html").read_text(encoding="utf-8")
    own = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', own)
    assert all(s.startswith("data:") for s in re.findall(r'src="([^"]*)"', own))
    links = re.findall(r'href="([^"]*)"', own)
    assert links
    assert all((folder / link).is_file() for link in links)


@needs_chromium
def test_page_in_a_browser(found, tmp_path):
    folder, _ = found
    browser = Browser(tmp_path)
    try:
        text = browser.open(f"file://{folder / 'report.html'}", "How to reproduce")
        assert phase(folder, "report")["sentence"].split(".")[0] in text
        for title in ("Front", "Finalists", "Precision and recall", "Confusion", "Architecture", "Kendall's tau"):
            assert title in text
        assert browser.js("document.querySelectorAll('#front .scatterlayer .trace').length") >= 4
        assert browser.js("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        number = phase(folder, "look")["images"]["test"]
        assert browser.js("document.querySelectorAll('figure').length") == min(number, 12)
        # What is missed most comes first.
        captions = browser.js("[...document.querySelectorAll('figcaption')].map(c => c.innerText)")
        missed = [int(re.search(r"(\d+) missed", c)[1]) for c in captions]
        assert missed == sorted(missed, reverse=True)
        # Under the pointer: the arch; behind a click: the file.
        hover = browser.js("document.getElementById('front').data.map(t => t.text[0]).join()")
        assert "latency: " in hover
        assert "resolution = " in hover
        browser.js("(() => { window.opened = []; window.open = (f) => { opened.push(f); }; return 1 })()")
        data = "document.getElementById('front').data"
        file = f"{data}.find(t => t.name === 'plain, finetuned').customdata[0]"
        fire = f"document.getElementById('front').emit('plotly_click', {{points: [{{customdata: {file}}}]}})"
        browser.js(f"({fire}, 1)")
        assert browser.js("opened.join()").startswith("finalists/tiny")
        assert browser.js("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.js("document.querySelectorAll('svg[aria-label=\"both architectures\"] rect').length") > 10
    finally:
        browser.close()


def start(tmp_path, *more):
    return call(
        "--project", tmp_path, "--imgsz", 64, "--sizes", 64, "--epochs", 1, "--batch", 8, "--device", "cpu", *more
    )


def test_a_limit_below_the_smallest_network_says_the_smallest(tmp_path, capsys, tiny_cfg, digits):
    data = digits(16, 64)
    status = start(tmp_path, "--data", data, "--cfg", tiny_cfg, "--max-latency", "1us")
    err = capsys.readouterr().err
    assert status == 2
    said = r"error: --max-latency 0.001 ms: the smallest network of the space around tiny takes [\d.]+ ms, .*\n"
    assert re.fullmatch(said, err)
    status = start(tmp_path, "--data", data, "--cfg", tiny_cfg, "--max-params", "100")
    err = capsys.readouterr().err
    assert status == 2
    assert re.fullmatch(r"error: --max-params 100: no arch keeps it, the least possible is [\d.]+k\n", err)


def test_a_full_disk_is_a_line_that_says_how_to_go_on(tmp_path, capsys, tiny_cfg, digits):
    with pytest.MonkeyPatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device", "labels.jpg")
        patch.setattr("experiments.find.look._picture", lambda job: (_ for _ in ()).throw(full))
        assert start(tmp_path, "--data", digits(12, 64), "--cfg", tiny_cfg) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: labels.jpg: No space left on device; right would be to make room, then to go on with")
    assert str(tmp_path / "exp") in err
    assert len(err.splitlines()) == 1
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, "experiments.find.look", "_picture", 1)  # it is begun anew, and no more is wanted here
        assert call("--resume", tmp_path / "exp") == 130


def test_pictures_without_boxes_are_refused_before_anything_is_measured(tmp_path, capsys, tiny_cfg, digits):
    data = digits(12, 64)
    for file in (data.parent / "labels").iterdir():
        file.write_text("")
    assert start(tmp_path / "runs", "--data", data, "--cfg", tiny_cfg) == 2
    said = f"error: {data}: none of its images has a box; right would be labels of what is to be found\n"
    assert capsys.readouterr().err == said


def test_what_is_measured_of_a_board_is_what_its_command_says(tmp_path, tiny_cfg):
    (tmp_path / "costs.yaml").write_text(
        yaml.safe_dump(
            {
                "costs": {
                    "latency": {
                        "provider": "command",
                        "hw_config": {"command": "test -f {onnx} && echo 7.5", "device": "board"},
                    }
                }
            }
        )
    )
    from experiments.find.options import Options

    options = Options(
        data="d", cfg=str(tiny_cfg), costs=str(tmp_path / "costs.yaml"), max_latency=8.0, sizes=[64], epochs=1
    )
    seen = {"names": ["a", "b"], "imgsz": 64, "images": {"train": 8, "val": 2, "test": 2}}
    job = Job(options, RunFolder(tmp_path, "run"), {"look": seen})
    result = measure(job)
    assert result["costs"]["tiny"][64]["latency"] == 7.5
    assert result["limits"] == {"latency": 8.0}
    assert np.isfinite([*result["paces"]["seconds"].values()]).all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--quick", "--data: pictures with boxes are needed"),
        ("--data digits-detect --quick --hours 1", "--hours beside --quick: right would be one of"),
        ("--data gone", "gone: no such data set"),
        ("--data digits-detect --weights gone.pt", "--weights gone.pt: no such file"),
        ("--data digits-detect --cfg gone", "gone"),
        ("--resume gone", "not the folder of a run"),
    ],
)
def test_bad_options_are_refused_at_once(line, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*line.split()) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
