"""Runs that version 0.1 left interrupted: tests/assets/earlier_runs, one of each kind.

Each archive holds the run's folder as a kill left it, and in ``expected/`` what the code of then made of it. Trainings
were others then: they cannot be gone on with, and say so. What was trained is still searched.
"""

import csv
import importlib
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from experiments.run.cli import run_script

ROOT = Path(__file__).resolve().parents[1]
ARCHIVES = ROOT / "tests/assets/earlier_runs"


@pytest.fixture
def resumed(request, tmp_path, monkeypatch, capsys):
    """The folder of a run of then, what was expected, status and error of ``--resume``, whether PyTorch is the same."""
    kind, script = request.param
    with tarfile.open(ARCHIVES / f"{kind}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    (run,) = tmp_path.glob("runs/*/exp")
    # Of another PyTorch the last digits of a rating are others, and who is the best by a hair.
    same_torch = yaml.safe_load((run / "config.yaml").read_text())["versions"]["torch"] == torch.__version__
    module = importlib.import_module(script)
    code = run_script(module.main, module.parse(["--resume", str(run.relative_to(tmp_path))]))
    return run, tmp_path / "expected", (code, capsys.readouterr().err), same_torch


def rows_of(content):
    return list(csv.DictReader(content.splitlines()))


@pytest.mark.parametrize("resumed", [("search", "search_subnets")], indirect=True)
def test_subnets(resumed):
    run, expected, code, same_torch = resumed
    assert code[0] == 0
    found, then = (rows_of((folder / "subnets.csv").read_text()) for folder in (run, expected))
    assert len(found) == len(then) == 16
    if same_torch:
        for row in (*found, *then):
            del row["seconds"]
        assert found == then
    assert (run / "detector.pt").exists()


SEARCHES = [(k, "oneshot_nas") for k in ("darts", "spos", "bignas")]
SEARCHES += [(k, "multi_trial_nas") for k in ("multi_random", "multi_tpe")]
TRAININGS = [("train", "train"), ("finetune", "train")]


@pytest.mark.parametrize(
    ("resumed", "message"),
    [
        *((kind, "its config.yaml has options that this version does not know (") for kind in SEARCHES),
        *((kind, "last.ckpt: of version 0.2 or before") for kind in TRAININGS),
    ],
    indirect=["resumed"],
)
def test_trainings_say_that_they_cannot_be_gone_on_with(resumed, message):
    run, _, (code, error), _ = resumed
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (run / "results.json").exists()
