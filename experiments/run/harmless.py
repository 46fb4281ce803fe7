"""Text of anybody's on a terminal: names of classes, labels and files are shown, and never obeyed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# What a terminal obeys instead of showing it: control characters, those that turn the direction of writing, and halves
# of characters, which names of files may have and no stream takes.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Text whose every character is shown; those that a terminal would obey are written as escapes."""
    return _OBEYED.sub(lambda found: repr(found[0])[1:-1], text)


class _Stream:
    """A stream whose text is `harmless`. What rich writes on its own goes by it, colours and all."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # so rich calls the stream behind one like this

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(harmless(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def harmless_output() -> Iterator[None]:
    """Within, what is printed, logged or warned of is `harmless`."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (s if isinstance(s, _Stream) else _Stream(s) for s in streams)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
