"""Tables of reports, and those that are kept as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from models import limits
from models.documents import read_text
from models.errors import InputError
from models.files import atomic

from .harmless import harmless

# How a spreadsheet tells a formula from text, and how it is told that a cell is none.
_FORMULA, _TEXT = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]"), "'"


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, left: Collection[str] = ()
) -> Table:
    """A table to `say`; columns of numbers are aligned on the right, those in `left` on the left."""
    made = Table(title=None if title is None else _shown(title))
    for column in columns:
        made.add_column(_shown(column), justify="left" if column in left else "right")
    for row in rows:
        made.add_row(*map(_shown, row))
    return made


def _shown(cell: str) -> str:
    return harmless(cell).replace("\n", "\\n")


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows, atomically; the columns are all that rows have, in their order, unless told otherwise.

    Text that a spreadsheet would take for a formula has a ``'`` before it, which `read_csv` takes away; numbers stay.
    """
    rows = list(rows)
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([_as_text(column) for column in columns])
        for row in rows:
            if unknown := [name for name in row if name not in columns]:
                raise ValueError(f"{path}: no column is called {unknown[0]!r}")
            writer.writerow([_as_text(row.get(column, "")) for column in columns])


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV, by column, as `write_csv` was given them; other programs' too.

    Raises
    ------
    InputError
        It is none, or cannot be read.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, limits.JSON_BYTES), newline="")))
    except csv.Error as e:
        raise InputError(f"{path}: no CSV: {e}") from None
    return [{_as_given(k): _as_given(v) for k, v in row.items()} for row in rows]


def _as_text(cell: Any) -> Any:
    if cell is None or isinstance(cell, (int, float)) or not _FORMULA.match(text := str(cell)):
        return cell
    try:
        float(text)
    except ValueError:
        return _TEXT + text
    return cell


def _as_given(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell[:1] == _TEXT and _FORMULA.match(cell) else cell
