"""`multi_trial_nas.py` under the real training service: results, web UI, a crash, resume; NNI's own scripts."""

import csv
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import multi_trial_nas
from data import classification
from experiments import RetiariiExeConfig, RetiariiExperiment, strategy
from experiments.nni_experiment import web
from experiments.tasks import evaluator
from models import Classifier, InputError, load_detector
from spaces import NASBACKBONE, Space, freeze
from tests.experiments.browser import CHART, Browser, address_in, needs_chromium
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
SPACE = ROOT / "tests/assets/tiny_nas.yaml"
QUICK = ["--cfg", str(SPACE), "--batch", "128", "--device", "cpu", "--threads", "1", "--cost-imgsz", "64"]
# A module that cannot be built in one of the trials.
CRASH = """
import os
if os.environ.get("NNI_TRIAL_SEQ_ID") == "1":
    raise RuntimeError("this one is meant to fail")
"""


@pytest.fixture(scope="module")
def multi_trial(script):
    class MultiTrial(script):
        name, fresh = "multi_trial_nas.py", True

    return MultiTrial


@pytest.fixture(scope="module")
def run(tmp_path_factory, multi_trial):
    """Three trials, two at a time, of which one crashes."""
    cwd = tmp_path_factory.mktemp("multi_trial")
    (cwd / "crash.py").write_text(CRASH)
    args = ["--epochs", "2", "--max-trials", "3", "--target-latency", "0.001ms", "--target-weight", "1e-6"]
    code, out, err = multi_trial(cwd).run(*QUICK, *args, "--plugin", "crash.py", "--port", free_port())
    assert code == 0, err + out
    return cwd, cwd / "runs/multi_trial_nas/exp", out


def rows_of(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def query(folder, sql):
    (database,) = folder.glob("nni/[!_]*/db/nni.sqlite")
    with sqlite3.connect(database) as connection:
        return connection.execute(sql).fetchall()


def test_leaves_the_best_trial_as_a_detector(run):
    _, folder, out = run
    rows = rows_of(folder)
    done = [row for row in rows if row["status"] == "done"]
    best = max(done, key=lambda row: float(row["default"]))
    results = json.loads((folder / "results.json").read_text())
    assert results["trials"] == {"all": 3, "done": 2, "pruned": 0, "failed": 1, "infeasible": 0, "cancelled": 0}
    assert results["best"]["id"] == best["id"]
    arch = json.loads((folder / "arch.json").read_text())
    assert {k: str(v) for k, v in arch.items()} == {k: best[k] for k in Space(SPACE).decisions}
    network = Classifier(freeze(SPACE, arch), 10)
    trained = torch.load(folder / "trials" / best["id"] / "weights.pt", weights_only=True)["state_dict"]
    network.load_state_dict(trained)
    images, labels = zip(*classification("digits", 32).val, strict=True)
    right = network.eval()(torch.stack(images)).argmax(1) == torch.tensor(labels)
    assert float(best["unseen"]) == pytest.approx(right.double().mean().item())
    model, content = load_detector(folder / "detector.pt")
    assert content["arch"] == arch
    for key, value in trained.items():
        if key.startswith("model.0."):
            assert torch.equal(model.state_dict()[key], value)
    assert (folder / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert "results in runs/multi_trial_nas/exp" in out
    assert len(list(folder.glob("nni/*/environments/*/trials/*/weights.pt"))) == 0, "weights nobody needs"


def test_a_trial_has_real_decimals_costs_and_a_reward(run):
    _, folder, _ = run
    for row in rows_of(folder):
        if row["status"] == "done":
            metric = float(row["accuracy"])
            assert len(row["accuracy"]) > 8
            assert float(row["latency"]) > 0.01
            assert float(row["default"]) == pytest.approx(metric - 1e-6 * (float(row["latency"]) / 0.001 - 1))
            assert row["unseen"] != row["accuracy"]
            assert row["epochs"] == "2"


def test_a_crash_is_one_failed_trial_with_its_traceback(run):
    _, folder, out = run
    (failed,) = [row for row in rows_of(folder) if row["status"] == "failed"]
    assert "this one is meant to fail" in (folder / "trials" / failed["id"] / "stderr.txt").read_text()
    assert f"failed, see runs/multi_trial_nas/exp/trials/{failed['id']}/stderr.txt" in out
    arch = json.loads((folder / "trials" / failed["id"] / "arch.json").read_text())
    assert {k: str(v) for k, v in arch.items()} == {k: failed[k] for k in arch}


def test_every_trial_reports_on_its_own_arch(run):
    _, folder, _ = run
    sent = {id: json.loads(data) for id, data in query(folder, "select trialJobId, data from TrialJobEvent") if data}
    for id, parameter_id in query(folder, "select trialJobId, parameterId from MetricData"):
        assert sent[id]["parameter_id"] == int(parameter_id)
    for row in rows_of(folder):
        assert {k: str(v) for k, v in sent[row["id"]]["parameters"].items()} == {
            k: row[k] for k in Space(SPACE).decisions
        }


@needs_chromium
def test_the_web_ui_shows_trials_curves_and_archs(run, multi_trial, tmp_path):
    cwd, folder, _ = run
    rows = rows_of(folder)
    best = max((row for row in rows if row["status"] == "done"), key=lambda row: float(row["default"]))
    url = f"http://{web.LOOPBACK}:{(port := free_port())}"
    viewer = multi_trial(cwd).start(
        "--view", json.loads((folder / "experiment.json").read_text())["id"], "--port", port
    )
    try:
        address = address_in(viewer.stdout.readline())
        assert address.startswith(url)
        browser = Browser(tmp_path)
        try:
            browser.open(address, "SUCCEEDED")
            overview = browser.open(f"{url}/oview", "SUCCEEDED")
            assert "VIEWED" in overview
            assert f"{float(best['default']):.6f}"[:7] in overview
            assert best["id"] in overview

            trials = browser.open(f"{url}/detail", "FAILED")
            for row in rows:
                assert row["id"] in trials
            rows_on_page = "[...document.querySelectorAll('.ms-DetailsRow')]"
            of_best = f"{rows_on_page}.find((r) => r.innerText.includes('{best['id']}'))"
            browser.js(f"{of_best}.querySelector('[data-automation-key=_expand] i').click() || true")
            browser.js("document.body.innerText.includes('Copy as json')")
            page = browser.js("document.body.innerText")
            for label in Space(SPACE).decisions:
                assert f"{label}:{best[label]}" in page

            browser.js(f"{of_best}.querySelector('i[data-icon-name=LineChart]').closest('button').click() || true")
            (series,) = browser.js(CHART)
            reported = query(folder, f"select data from MetricData where trialJobId = '{best['id']}' "
                                     "and type = 'PERIODICAL' order by sequence")  # fmt: skip
            assert series["data"] == [float(json.loads(value)) for (value,) in reported]
            assert len(series["data"]) == 2
        finally:
            browser.close()
    finally:
        viewer.send_signal(signal.SIGINT)
        _, err = viewer.communicate(timeout=60)
    assert viewer.returncode == 0, err


@pytest.mark.parametrize("end", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_interrupted_and_resumed_no_trial_is_lost_and_none_run_twice(end, multi_trial, tmp_path):
    """Of three trials one is done, one under way and one not begun, or two are done."""
    args = [*QUICK, "--epochs", "2", "--max-trials", "3", "--concurrency", "2", "--port", free_port()]
    process = multi_trial(tmp_path).start(*args)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("trial"):
            break
    process.send_signal(end)
    out, err = process.communicate(timeout=120)
    folder = tmp_path / "runs/multi_trial_nas/exp"
    if end == signal.SIGINT:
        assert process.returncode == 130, "".join(lines) + out + err
        assert (
            err.strip()
            == f"interrupted: go on with python {ROOT / 'multi_trial_nas.py'} --resume runs/multi_trial_nas/exp"
        )
    first = rows_of(folder)
    done = {row["id"]: row for row in first if row["status"] == "done"}
    assert 1 <= len(done) < 3
    assert not (folder / "arch.json").exists()

    code, out, err = multi_trial(tmp_path).run("--resume", folder, "--port", free_port())
    assert code == 0, err + out
    rows = rows_of(folder)
    assert [row["status"] for row in rows] == ["done"] * 3
    assert [row["number"] for row in rows] == ["0", "1", "2"]
    for row in rows[: len(first)]:
        labels = list(Space(SPACE).decisions)
        assert [row[k] for k in labels] == [first[int(row["number"])][k] for k in labels]
    for id, row in done.items():
        same = next(r for r in rows if r["id"] == id)
        assert {**same, "seconds": ""} == {**row, "seconds": ""}, "its result is that of its only run"
    assert len({tuple(row[k] for k in Space(SPACE).decisions) for row in rows}) == 3
    ended = query(
        folder, "select trialJobId, count(*) from TrialJobEvent where event = 'SUCCEEDED' group by trialJobId"
    )
    assert dict(ended) == {row["id"]: 1 for row in rows}
    numbers = query(folder, "select distinct trialJobId, sequenceId from TrialJobEvent where sequenceId is not null")
    assert sorted(number for _, number in numbers) == [0, 1, 2]
    assert load_detector(folder / "detector.pt")[1]["arch"] == json.loads((folder / "arch.json").read_text())


TUTORIAL = """
import nni
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear
from torch import nn
from experiments import RetiariiExperiment, RetiariiExeConfig, strategy

class Net(ModelSpace):
    def __init__(self):
        super().__init__()
        self.act = LayerChoice([nn.ReLU(), nn.Tanh()], label="act")
        width = nni.choice("width", [4, 8])
        self.fc, self.out = MutableLinear(3, width), MutableLinear(width, 2)

    def forward(self, x):
        return self.out(self.act(self.fc(x)))

def evaluate_model(model):
    assert model(torch.rand(1, 3)).shape == (1, 2)
    nni.report_final_result(sum(p.numel() for p in model.parameters()) / 1000)

if __name__ == "__main__":
    exp = RetiariiExperiment(Net(), FunctionalEvaluator(evaluate_model), [], strategy.Random(seed=0))
    exp_config = RetiariiExeConfig("local")
    exp_config.experiment_name = "mnist_search"
    exp_config.max_trial_number = 4
    exp_config.trial_concurrency = 2
    exp_config.trial_gpu_number = 1
    exp_config.training_service.use_active_gpu = True
    exp_config.experiment_working_directory = "nni"
    exp.run(exp_config, PORT)
    print("TOP", exp.export_top_models(top_k=2, formatter="dict"))
"""


@pytest.mark.slow
def test_a_script_in_the_style_of_nnis_tutorial_runs(tmp_path):
    (tmp_path / "search.py").write_text(TUTORIAL.replace("PORT", str(free_port())))
    done = subprocess.run(
        [sys.executable, "search.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    top = done.stdout.split("TOP ")[1]
    assert top.count("'width': 8") == 2
    assert "there is no GPU: trials run on the CPU" in done.stderr or torch.cuda.is_available()


def experiment_of(**config):
    given = RetiariiExeConfig("local")
    for name, value in config.items():
        setattr(given, name, value)
    space = NASBACKBONE(str(SPACE), nc=10)
    task = evaluator.Classification(logger=False, enable_checkpointing=False, max_epochs=1)
    return RetiariiExperiment(space, task, [], strategy.Random(), given)


def test_nni_2_names_of_engines():
    for name in ("base", "py"):
        assert experiment_of(execution_engine=name).config.execution_engine.name == "ts"
    assert experiment_of(execution_engine="sequential", max_trial_number=3).config.max_trial_number == 3
    with pytest.raises(InputError, match="execution_engine 'oneshot' does not fit a multi-trial strategy"):
        experiment_of(execution_engine="oneshot")


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="trial_concurrency is 0"):
        experiment_of(trial_concurrency=0).run(port=free_port())
    with pytest.raises(InputError, match="max_trial_number is -1"):
        experiment_of(max_trial_number=-1).run(port=free_port())


BAD = {
    "no choices": (["--cfg", "yolov5n.yaml"], "nothing to search"),
    "a limit that nothing keeps": (["--max-params", "10"], "no arch keeps it, the least possible is"),
    "no run to inherit from": (["--inherit", "nowhere"], "nowhere: not the folder of a run"),
    "no run to resume": (["--resume", "nowhere"], "nowhere: neither the folder of a run nor the id of an experiment"),
    "no run to view": (["--view", "nowhere"], "nowhere: neither the folder of a run nor the id of an experiment"),
    "no machines": (["--config", "nowhere.yaml"], "--config nowhere.yaml: no such file"),
    "a run of another script": (["--resume", "other"], "its config.yaml has options that this version does not know"),
    "a population where there is none": (["--population", "5"], "--population: is of --strategy evolution, nsga3"),
    "a host that is none": (["--host", "here"], "--host here: right would be an IP address"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_would_be_right_and_leaves_nothing(case, tmp_path, call):
    args, message = BAD[case]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.yaml").write_text("options: {source: images}")
    quick = [] if args[0] in ("--resume", "--view") else QUICK  # these keep their options
    code, out, err = call(multi_trial_nas, *quick, "--port", free_port(), *args)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert out == ""
    assert not (tmp_path / "runs").exists()


def test_a_taken_port_is_one_line(tmp_path, call):
    with socket.socket() as s:
        s.bind((web.LOOPBACK, 0))
        s.listen()
        port = s.getsockname()[1]
        code, _, err = call(multi_trial_nas, *QUICK, "--port", port)
    assert code == 2
    assert f"error: --port {port} is taken by" in err
    assert not (tmp_path / "runs").exists()
