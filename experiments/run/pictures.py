"""Pictures that runs leave."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.files import atomic

from .fonts import font_for, is_plain, say_once

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def picture(
    path: str | Path, dpi: int = 110, bbox: str | None = None, names: Sequence[str] = (), **figure: Any
) -> Iterator[Figure]:
    """Yield a figure that is written to `path`, atomically, when the block ends without an error.

    It is not pyplot's: no display is needed, and nothing of it stays in the process.

    Parameters
    ----------
    dpi
        Pixels an inch.
    bbox
        ``tight`` cuts off what is empty at the edges.
    names
        People's own words in it, which may need a font of their script.
    figure
        What matplotlib's `Figure` takes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # Text takes its font when it is made; letters are looked for in one family after the other.
    with matplotlib.rc_context({"font.family": [*matplotlib.rcParams["font.family"], *_families(names)]}):
        made = Figure(**figure)
        yield made
        with atomic(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # said by `_families`
            made.savefig(temporary, dpi=dpi, bbox_inches=bbox)


def _families(names: Sequence[str]) -> list[str]:
    """Families of fonts that have the letters of `names`, beside the usual one."""
    from matplotlib import font_manager

    found: list[str] = []
    for name in names:
        if is_plain(name):
            continue
        if (path := font_for(name)) is None:
            say_once([name], "boxes stand in their place")
            continue
        font_manager.fontManager.addfont(path)
        found.append(font_manager.FontProperties(fname=path).get_name())
    return [*dict.fromkeys(found)]
