"""The one way in which an inference is timed: warmed up, then the median of many runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from models import limits
from models.errors import InputError

if TYPE_CHECKING:
    from torch import nn

# At least so many runs, and so many seconds of them: first to warm up, then to take the median of.
WARM_UP = (3, 0.03)
REPEATS = (15, 0.1)


# What time is taken by: that on the wall; or the processor's for this thread, which others' work does not add to.
CLOCKS = ("wall", "cpu")


def median_ms(
    run: Callable[[], Any],
    warm_up: tuple[int, float] = WARM_UP,
    repeats: tuple[int, float] = REPEATS,
    clock: str = "wall",
) -> float:
    """Median milliseconds of a run.

    Parameters
    ----------
    run
        Comes back when all is done, also on a device that works on its own.
    warm_up, repeats
        At least so many runs, and at least so many seconds of them.
    clock
        One of `CLOCKS`.
    """
    return statistics.median(times_ms(run, warm_up, repeats, clock))


def times_ms(
    run: Callable[[], Any],
    warm_up: tuple[int, float] = WARM_UP,
    repeats: tuple[int, float] = REPEATS,
    clock: str = "wall",
    before: Callable[[], Any] | None = None,
) -> list[float]:
    """Milliseconds of many runs; see `median_ms`. What is done `before` each of them is not timed."""
    now = time.thread_time if clock == "cpu" else time.perf_counter

    def timed() -> float:
        if before is not None:
            before()
        start = now()
        run()
        return now() - start

    _repeated(timed, *warm_up)
    return [1e3 * seconds for seconds in _repeated(timed, *repeats)]


def measure_latency(network: nn.Module, shape: tuple[int, ...], device: str) -> float:
    """Median milliseconds of an inference of random images `shape`; on as many threads as torch has."""
    import torch

    with torch.inference_mode():
        network, x = network.to(device).eval(), torch.rand(shape, device=device)
        return median_ms(synchronized(lambda: network(x), device))


def synchronized(run: Callable[[], Any], device: str) -> Callable[[], Any]:
    """`run`, waiting for the device."""
    from ..run.device import synchronize

    if device == "cpu":
        return run

    def waiting() -> None:
        run()
        synchronize(device)

    return waiting


def check_threads(number: Any) -> None:
    """`InputError` unless so many threads can be had, or it is None."""
    whole = isinstance(number, int) and not isinstance(number, bool)
    if number is not None and not (whole and 1 <= number <= limits.THREADS):
        raise InputError(f"threads: {number!r}: right would be a positive integer, {limits.THREADS} at most")


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Within, PyTorch computes on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _repeated(timed: Callable[[], float], times: int, seconds: float) -> list[float]:
    found = [timed()]
    while len(found) < times or sum(found) < seconds:
        found.append(timed())
    return found
