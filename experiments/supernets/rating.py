"""Archs of a trained supernet, rated one after another, with a bar that shows the best so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..tasks.task import SearchTask
from .subnets import cut_out

_EVERY = 25


class Rating:
    """Arch to the task's metric of its slice of a supernet.

    Parameters
    ----------
    supernet
        Gives the supernet, once it is there.
    total
        So many ratings at most, for the time that is left.
    cut
        (supernet, task, arch) -> the slice.
    """

    def __init__(
        self,
        supernet: Callable[[], Any],
        task: SearchTask,
        total: int,
        cut: Callable[[Any, Any, Mapping[str, Any]], Any] = cut_out,
    ) -> None:
        self.cut, self.supernet, self.task, self.total, self.metric = cut, supernet, task, total, task.metric
        self.best, self.count = float("-inf"), 0
        columns = ("search", BarColumn(), MofNCompleteColumn(), TextColumn("best {task.fields[best]:.4f}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), disable=not Console().is_terminal)
        self._row: Any = None

    def __call__(self, arch: Mapping[str, Any]) -> float:
        metric = self.rate(arch)
        self.best, self.count = max(self.best, metric), self.count + 1
        if self._row is None:
            self._row = self._bar.add_task("search", total=self.total, best=self.best)
            self._bar.start()
        self._bar.update(self._row, advance=1, best=self.best)
        if not Console().is_terminal and self.count % _EVERY == 0:
            print(f"search  {self.count} archs rated  best {self.metric} {self.best:.4f}", flush=True)
        return metric

    def rate(self, arch: Mapping[str, Any]) -> float:
        """The rating itself."""
        supernet = self.supernet()
        return self.task.rate(self.cut(supernet, self.task, arch).to(next(supernet.parameters()).device))

    def __enter__(self) -> Rating:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
