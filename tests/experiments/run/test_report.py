"""What every report is made of: lines and tables on the screen, CSV, pictures."""

import sys

import pytest

from experiments.run.console import say
from experiments.run.pictures import picture
from experiments.run.tables import table, write_csv


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
