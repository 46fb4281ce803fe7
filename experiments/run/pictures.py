"""Pictures that runs leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def picture(path: str | Path, dpi: int = 110, bbox: str | None = None, **figure: Any) -> Iterator[Figure]:
    """Yield a figure that is written to `path`, atomically, when the block ends without an error.

    It is not pyplot's: no display is needed, and nothing of it stays in the process.

    Parameters
    ----------
    dpi
        Pixels an inch.
    bbox
        ``tight`` cuts off what is empty at the edges.
    figure
        What matplotlib's `Figure` takes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}):  # a name with two dollar signs is no formula
        made = Figure(**figure)
        yield made
        with atomic(path) as temporary:
            made.savefig(temporary, dpi=dpi, bbox_inches=bbox)
