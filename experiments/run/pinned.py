"""A line that stays at the bottom of a terminal while all else is printed above it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import get_console
from rich.live import Live
from rich.text import Text

from .harmless import harmless

_pinned: list[Live] = []


def has_bars() -> bool:
    """Whether Lightning's bar can be shown: at a terminal, without a pinned line, which it would take away."""
    return get_console().is_terminal and not _pinned


@contextmanager
def pinned(line: Callable[[], str]) -> Iterator[None]:
    """Within, a terminal shows the line, made anew every second; elsewhere nothing."""
    if not get_console().is_terminal:
        yield
        return

    def shown() -> Text:
        return Text(harmless(line()), style="dim", no_wrap=True, overflow="ellipsis")

    live = Live(get_renderable=shown, refresh_per_second=1, transient=True)
    _pinned.append(live)
    try:
        with live:
            yield
    finally:
        _pinned.remove(live)
