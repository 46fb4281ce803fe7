"""The console that reports are printed on."""

from __future__ import annotations

from rich.console import Console


def console(width: int = 100) -> Console:
    """Prints text as it is: names and paths may hold what rich takes for markup.

    Parameters
    ----------
    width
        Of tables in characters, where the output is no terminal.
    """
    return Console(width=None if Console().is_terminal else width, markup=False, highlight=False)
