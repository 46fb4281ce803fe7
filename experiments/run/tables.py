"""Tables of reports, and those that are kept as CSV."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from models.files import atomic


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, left: Collection[str] = ()
) -> Table:
    """A table to `say`; columns of numbers are aligned on the right, those in `left` on the left."""
    made = Table(title=title)
    for column in columns:
        made.add_column(column, justify="left" if column in left else "right")
    for row in rows:
        made.add_row(*row)
    return made


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows, atomically; the columns are all that rows have, in their order, unless told otherwise."""
    rows = list(rows)
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
