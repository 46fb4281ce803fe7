"""`nas completion`: a shell that has taken it in completes scripts, options, choices and files."""

import shlex
import shutil
import subprocess
import sys

import pytest

from experiments.run import command
from experiments.run.completion import completion
from tests.refusal import refused

NAMES = ["search_subnets", "train"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path):
    (tmp_path / "nas.bash").write_text(completion("bash", NAMES))
    (tmp_path / "mine.yaml").touch()
    lines = [
        "nas sea",
        "nas train --ba",
        "nas train --recipe y",
        "nas search-subnets --searcher nsga",
        "nas train --cfg mi",
    ]
    words = [shlex.split(line) for line in lines]
    asked = [f"COMP_WORDS=({' '.join(w)}); COMP_CWORD={len(w) - 1}; _shtab_nas; echo ${{COMPREPLY[@]}}" for w in words]
    code = "; ".join(["source ./nas.bash", *asked])
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["search-subnets", "--batch", "yolov5", "nsga3 nsga2", "mine.yaml"]


def test_zsh_gets_the_options_too():
    script = completion("zsh", NAMES)
    assert script.startswith("#compdef nas")
    assert "--help-all" in script
    assert "--teacher" in script


def test_the_command_prints_it_and_refuses_other_shells(monkeypatch, capsys):
    monkeypatch.setattr(command, "scripts", lambda: NAMES)
    monkeypatch.setattr(sys, "argv", ["nas", "completion"])
    command.main()
    assert "_shtab_nas_train_option_strings" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["nas", "completion", "fish"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: nas completion fish: right would be one of bash, zsh\n"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with refused("the package shtab is missing; right would be: pip install shtab"):
        completion("bash", NAMES)
