"""What the documentation shows has been run as it is written."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.run import registry

ROOT = Path(__file__).resolve().parents[1]

COMMANDS = sorted(
    {
        (str(page.relative_to(ROOT)), script, line)
        for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"))
        for script, line in re.findall(r"python (\w+)\.py ([^`\n]*)", page.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize(("page", "script", "line"), COMMANDS)
def test_options_that_are_shown_are_the_scripts(page, script, line):
    importlib.import_module(script).parse(shlex.split(line))


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        *((kind, "README.md") for kind in ("oneshot", "multi-trial", "searcher")),
        ("provider", "docs/cost-providers.md"),
        ("sampler", "docs/supernets.md"),
        ("proxy", "docs/supernets.md"),
    ],
)
def test_names_of_the_registry_are_shown(kind, page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in registry.names(kind) if f"`{name}" not in text] == []


def test_script_api_page_runs(tmp_path):
    page = (ROOT / "docs/script-api.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("match_nas:") == 2
    assert (tmp_path / "searched.pt").is_file()


def test_example_of_finding_a_detector_runs(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs/find.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    told = {}
    exec(compile(code, "docs/find.md", "exec"), told)
    found = told["found"]
    assert found.flops <= 42e6
    assert found.imgsz == 64
    assert capsys.readouterr().out.rstrip().endswith("runs/find/exp/report.html")
    names = {path.name for path in (tmp_path / "runs/find/exp/best").iterdir()}
    assert names == {"detector.yaml", "detector.pt", "model.onnx", "model_card.md"}


def test_files_of_the_architecture_are_there():
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / "docs/architecture.md").read_text(encoding="utf-8")))
    assert [
        name for name in sorted(named) if not any((top / name).is_file() for top in (ROOT, ROOT / "experiments"))
    ] == []
