"""``nas NAME``, which ``pip install -e .`` leaves."""

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from experiments.run import command

ROOT = Path(command.__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_command_is_what_the_project_declares():
    module, name = PROJECT["project"]["scripts"]["nas"].split(":")
    assert getattr(import_module(module), name) is command.main


def test_every_package_is_installed():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert {f"{room}*" for room in rooms} == set(PROJECT["tool"]["setuptools"]["packages"]["find"]["include"])


def test_what_it_names_is_what_can_be_run(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nas"])
    command.main()
    told = capsys.readouterr().out
    assert {"train", "oneshot_nas", "search_subnets"} <= set(command.scripts())
    assert all(name in told for name in command.scripts())
    monkeypatch.setattr(sys, "argv", ["nas", "quark"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "no such script; right would be one of detect, export" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "search-subnets"])
def test_a_script_runs_from_another_folder_and_its_status_is_the_commands(name, tmp_path):
    code = "from experiments.run.command import main; main()"
    given = ["--cfg", "nothing.yaml", *(["--sample-cost", "3"] if name == "search-subnets" else [])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", code, name, *given]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing.yaml: no such file")
