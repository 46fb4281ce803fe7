"""What a reader has to keep whatever it is given: a result, or one `InputError` of one line, in 10 s and 1 GiB."""

import resource
import signal
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

from hypothesis import settings

from models import InputError

SECONDS, BYTES = 10, 1 << 30
TRIED: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # reader: inputs, refusals


def slowly(test):
    """Fewer examples, for a reader that takes a second for an input."""
    return settings(max_examples=max(settings().max_examples // 5, 3))(test)


class _Late(BaseException):
    """Past `except Exception`."""


def holds(reader, call, *args):
    """Call a reader within the bounds; its result, or None where it refused."""
    TRIED[reader][0] += 1
    try:
        with _bounded():
            return call(*args)
    except InputError as e:
        TRIED[reader][1] += 1
        message = str(e)
        assert message, "says something"
        assert message.isprintable(), f"one line, and no control characters: {message!r}"
        return None
    except _Late:
        pass
    raise AssertionError(f"{reader}: more than {SECONDS} s of processor time")


@contextmanager
def _bounded():
    def late(*_):
        raise _Late

    before = signal.signal(signal.SIGPROF, late)  # SIGALRM is pytest-timeout's
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + BYTES, limits[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        signal.signal(signal.SIGPROF, before)


def _data_bytes():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    return int(line.split()[1]) << 10
