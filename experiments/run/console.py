"""The console that reports are printed on."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .harmless import harmless


def say(*parts: str | Table, width: int = 100) -> None:
    """Print lines and tables; what is empty is left out.

    Lines stay as they are: names and paths may hold what rich takes for markup, and are copied from the screen.

    Parameters
    ----------
    width
        Of tables in characters, where the output is no terminal.
    """
    console = Console(width=None if Console().is_terminal else width, markup=False, highlight=False, emoji=False)
    for part in filter(None, parts):
        console.print(harmless(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))
