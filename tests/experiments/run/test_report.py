"""What every report is made of: lines and tables on the screen, CSV, pictures."""

import argparse
import csv
import logging
import sys

import pytest
from rich.console import Console

from experiments.run.cli import run_script
from experiments.run.console import say
from experiments.run.harmless import harmless
from experiments.run.pictures import picture
from experiments.run.tables import read_csv, table, write_csv
from models import InputError


def test_lines_are_printed_as_they_are(capsys):
    line = "runs/[bold]a/b: " + "x" * 300
    say(line, "", "[red]")
    assert capsys.readouterr().out == f"{line}\n[red]\n"


def test_a_table_has_its_title_and_its_columns_aligned(capsys):
    say(table(["name", "count"], [("a", "1"), ("bcdef", "1,000")], "found", left=["name"]))
    title, *rows = (line.strip("┃│ ") for line in capsys.readouterr().out.splitlines())
    assert title.strip() == "found"
    assert [" ".join(r.replace("┃", "│").split()) for r in rows if "a" in r] == ["name │ count", "a │ 1"]
    assert "a     │     1" in rows[3]


def test_csv_has_every_column_that_a_row_has(tmp_path):
    write_csv(tmp_path / "a.csv", ({"x": i, **({"y": 'é,"'} if i else {})} for i in range(2)))
    assert (tmp_path / "a.csv").read_bytes().decode() == 'x,y\r\n0,\r\n1,"é,"""\r\n'
    write_csv(tmp_path / "b.csv", [], ["x"])
    assert (tmp_path / "b.csv").read_text(encoding="utf-8") == "x\n"
    with pytest.raises(ValueError, match="y"):
        write_csv(tmp_path / "a.csv", [{"y": 1}], ["x"])
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.csv", "b.csv"]


def test_a_picture_is_whole_or_not_there(tmp_path):
    with picture(tmp_path / "a.png", 50, figsize=(2, 1)) as figure:
        figure.subplots().plot([1, 2])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        assert pyplot.get_fignums() == []
    with pytest.raises(RuntimeError), picture(tmp_path / "b.png"):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


FORMULAS = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1", "＝1", "-", "--", "=HYPERLINK('x')"]
PLAIN = ["", "a", "'", "'a", "a=1", "1-2", "-0.5", "+1e5", "-inf", "é", '"=1"']


def test_csv_has_no_formulas_and_is_read_as_it_was_given(tmp_path):
    given = [{"name": text, text or "none": -1.5, "n": -2, "none": None} for text in FORMULAS + PLAIN]
    write_csv(tmp_path / "a.csv", given)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        cells = {cell for row in csv.reader(file) for cell in row}
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@＝\t\r") and not is_number(cell)]
    assert {"-1.5", "-2", "-0.5", "+1e5", "'=1+1", "''=1"} <= cells
    rows = read_csv(tmp_path / "a.csv")
    assert [row["name"] for row in rows] == FORMULAS + PLAIN
    assert [float(row[text or "none"] or "nan") for row, text in zip(rows, FORMULAS + PLAIN, strict=True) if text] == [
        -1.5
    ] * (len(rows) - 1)
    assert set(FORMULAS) < set(rows[0])


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


OBEYED = "\x1b[2J\x1b]0;title\x07\x9b31m\r\b\x7f\u202e\u2028\udcff"
SHOWN = r"\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\x7f\u202e\u2028\udcff"


def test_what_a_terminal_would_obey_is_shown(capsys):
    assert harmless(f"é 猫 👩‍🚀\ta{OBEYED}\n") == f"é 猫 👩‍🚀\ta{SHOWN}\n"

    def main(args):
        print(f"print {OBEYED}")
        say(
            f"say {OBEYED}",
            table([f"head {OBEYED}"], [(f"cell {OBEYED}\nnext",)], f"title {OBEYED}", left=["x"]),
            width=200,
        )
        sys.stdout.writelines([f"lines {OBEYED}\n"])
        logging.getLogger("somewhere").warning("log %s", OBEYED)
        print(f"note {OBEYED}", file=sys.stderr)
        raise FileNotFoundError(2, "no such file", f"path {OBEYED}")

    logger = logging.getLogger("somewhere")
    logger.propagate = False  # pytest's own handlers are no streams
    try:
        assert run_script(main, argparse.Namespace()) == 2
    finally:
        logger.propagate = True
    out, err = capsys.readouterr()
    for said in (
        f"print {SHOWN}\n",
        f"say {SHOWN}\n",
        f"lines {SHOWN}\n",
        f"head {SHOWN}",
        rf"cell {SHOWN}\nnext",
        f"title {SHOWN}",
    ):
        assert said in out
    for said in (f"log {SHOWN}\n", f"note {SHOWN}\n", f"error: path {SHOWN}: no such file\n"):
        assert said in err
    assert not any(c in out + err for c in OBEYED if not c.isprintable())


def test_bad_input_and_colours(capsys, monkeypatch):
    def main(args):
        Console(force_terminal=True, color_system="standard").print("[red]red[/red]")
        raise InputError(f"class {OBEYED}")

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run_script(main, argparse.Namespace()) == 2
    out, err = capsys.readouterr()
    assert out == "\x1b[31mred\x1b[0m\n", "rich's own are let through"
    assert "\x1b" not in err
    assert "class \\x1b[2J" in err
