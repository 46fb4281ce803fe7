"""What every refusal of bad input must be: one `InputError`, one line, that names the place."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from models import InputError


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """The block raises an `InputError` of one line that holds every one of `parts`."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
