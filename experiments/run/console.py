"""The console that reports are printed on."""

from __future__ import annotations

from rich import get_console
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
    # Of a terminal rich's own one, which knows of what is live there.
    console = get_console() if get_console().is_terminal else Console(width=width)
    for part in filter(None, parts):
        shown = harmless(part) if isinstance(part, str) else part
        console.print(shown, soft_wrap=isinstance(part, str), markup=False, highlight=False, emoji=False)
