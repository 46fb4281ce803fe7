"""`--help` fits a screen, `--help-all` has every option."""

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.run.help import Parser
from experiments.run.options import add_options, option

SCRIPTS = sorted(p.stem for p in Path(__file__).resolve().parents[3].glob("*.py"))


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_a_screen(script):
    parser = importlib.import_module(script).make_parser()
    lines = parser.format_help().splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 102  # a list of choices is not broken
    everything = parser.format_all()
    for action in parser._actions:
        assert f"  {action.option_strings[-1]}" in everything or f", {action.option_strings[-1]}" in everything
    assert any(line.startswith("  --plugin") for line in everything.splitlines())
    assert not any(line.startswith("  --plugin") for line in lines)


@dataclass
class Some:
    cfg: str = option("a file")
    size: int = option("of it", 3, type=int)
    quick: bool = option("less", False)
    rate: float = option("seldom", 0.5, type=float, group="rare", advanced=True)


def test_what_is_advanced_is_shown_by_help_all(capsys):
    parser = Parser("What it does.")
    parser.prog = "it.py"
    add_options(parser, Some)
    assert parser.format_usage() == "usage: it.py --cfg CFG [options]\n"
    short = parser.format_help()
    assert "--size N" in short
    assert "of it (default: 3)" in short
    assert "less\n" in short  # False tells nothing
    assert "--rate" not in short
    assert "rare" not in short
    assert short.endswith("--help-all shows 1 more\n")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--help-all"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "rare:\n  --rate X" in out
    assert "shows" not in out
