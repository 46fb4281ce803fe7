"""Ctrl-C and SIGTERM are one wish: a script ends in order, with one line that says how to go on.

What comes within a second of the first says the same: a key that bounced, or a supervisor that signals a process and
its group. Later on a script ends at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STATUS = 130
_SAME_SECONDS = 1.0


class _Wish:
    """That this process ends.

    Attributes
    ----------
    since
        When it was said first; None as long as it was not.
    deferred
        What ends things in order, at their own time; the last one is asked.
    how
        In a script, what the user is told to go on with; None in a process that may live on, such as a notebook's.
    """

    since: float | None = None

    def __init__(self) -> None:
        self.deferred: list[Callable[[], None]] = []
        self.how: Callable[[], str] | None = None


_wish = _Wish()


@contextmanager
def heard(is_script: bool = False) -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise KeyboardInterrupt, once, or ask what is `deferred`."""
    if threading.current_thread() is not threading.main_thread() or _hear in _handlers().values():
        yield
        return
    _wish.since, _wish.how = None, (lambda: "") if is_script else None
    # A shell starts jobs in its background with Ctrl-C ignored, and so it stays.
    before = {number: handler for number, handler in _handlers().items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, _hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            # The interpreter of a script that was interrupted still has a way to go, and a line to say.
            signal.signal(number, handler if _wish.since is None or not is_script else _hear_late)


@contextmanager
def deferred(ask: Callable[[], None]) -> Iterator[None]:
    """Within, the first signal calls `ask` in place of raising wherever the process happens to be."""
    _wish.deferred.append(ask)
    try:
        yield
    finally:
        _wish.deferred.remove(ask)


@contextmanager
def told(how: Callable[[], str]) -> Iterator[None]:
    """Within, an interrupted script says `how` to go on."""
    before = _wish.how
    if before is not None:
        _wish.how = how
    try:
        yield
    finally:
        _wish.how = before


def end_with_parent() -> None:
    """Wait for the parent's end, and end then; for a thread of a process that `multiprocessing` started.

    However it ended, by SIGKILL even: nobody would hear of what is done after it.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def line(how: str) -> str:
    """What an interrupted script says."""
    return f"interrupted{f': {how}' if how else ''}"


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _hear(number: int, frame: Any) -> None:
    now = time.monotonic()
    if _wish.since is None:
        _wish.since = now
        if _wish.deferred:
            _wish.deferred[-1]()
            return
        raise KeyboardInterrupt
    if now - _wish.since < _SAME_SECONDS:
        return
    if _wish.how is None:
        raise KeyboardInterrupt
    # Nothing else is run, so that nothing else can fail: files are whole at any time.
    os.write(2, f"{line(_wish.how())}\n".encode())
    _end()


def _hear_late(*_: Any) -> None:
    if _wish.since is None or time.monotonic() - _wish.since >= _SAME_SECONDS:
        _end()


def _end() -> None:
    os._exit(STATUS)


def _forget() -> None:
    """A fork, such as a loader's worker, is ended by SIGTERM, and is not to take note of a wish."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL and _hear in _handlers().values():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
