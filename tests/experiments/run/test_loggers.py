"""``--logger``: services besides the event files."""

import importlib.util
import json
from pathlib import Path

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

import oneshot_nas
import train
from experiments.run import loggers
from models import InputError


class Service:
    """What Lightning's loggers of services do, as far as we ask."""

    made: list

    def __init__(self, *_, **given):
        self.given, self.told = given, None
        self.run_id = given.get("run_id") or "new"
        self.made.append(self)

    def log_hyperparams(self, options):
        self.told = options


@pytest.fixture
def services(monkeypatch):
    made = []
    for name in ("WandbLogger", "MLFlowLogger"):
        monkeypatch.setattr(loggers, name, type(name, (Service,), {"made": made}))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


def test_without_services_there_are_event_files_alone(tmp_path):
    (logger,) = loggers.loggers_of([], tmp_path, {})
    assert isinstance(logger, TensorBoardLogger)
    assert Path(logger.log_dir) == tmp_path
    assert not (tmp_path / "loggers.json").exists()


def test_services_are_told_the_options_and_a_run_that_goes_on_stays_one(services, tmp_path):
    first = loggers.loggers_of(["wandb", "mlflow"], tmp_path, {"epochs": 3})
    assert first[1:] == services
    assert [s.told for s in services] == [{"epochs": 3}] * 2
    known = json.loads((tmp_path / "loggers.json").read_text())
    assert known == {"wandb": services[0].given["id"], "mlflow": "new"}
    assert services[1].given["tracking_uri"] == f"sqlite:///{tmp_path.parent / 'mlflow.db'}"
    loggers.loggers_of(["mlflow", "wandb"], tmp_path, {})
    assert services[2].given["run_id"] == "new"
    assert services[3].given["id"] == known["wandb"]


def test_other_processes_tell_no_service(services, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "is_first_process", lambda: False)
    assert len(loggers.loggers_of(["wandb"], tmp_path, {})) == 1
    assert not services


def test_what_a_service_says_is_one_line(services, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("No API key\nlong explanation")

    monkeypatch.setattr(loggers, "WandbLogger", refuse)
    with pytest.raises(InputError, match=r"--logger wandb: No API key$"):
        loggers.loggers_of(["wandb"], tmp_path, {})


@pytest.mark.parametrize(("script", "args"), [(train, ["--cfg", "yolov5n.yaml"]), (oneshot_nas, [])])
def test_a_package_that_is_missing_is_said_at_once(script, args, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--logger mlflow: its package is not installed; right would be: pip install"):
        script.main(script.parse([*args, "--logger", "mlflow"]))
    assert not list(tmp_path.iterdir())
