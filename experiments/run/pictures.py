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
    families = [*matplotlib.rcParams["font.family"], *_families(names)]
    # A name with two dollar signs is no formula.
    with matplotlib.rc_context({"font.family": families, "text.parse_math": False}):
        made = Figure(**figure)
        yield made
        with atomic(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # said by `_families`
            made.savefig(temporary, dpi=dpi, bbox_inches=bbox)


def _families(names: Sequence[str]) -> list[str]:
    """Families of fonts that have the letters of `names`, beside the usual one."""
    from matplotlib import font_manager

    fonts = {name: font_for(name) for name in names if not is_plain(name)}
    say_once([name for name, path in fonts.items() if path is None], "boxes stand in their place")
    found = [*dict.fromkeys(path for path in fonts.values() if path is not None)]
    for path in found:
        font_manager.fontManager.addfont(path)
    return [font_manager.FontProperties(fname=path).get_name() for path in found]
