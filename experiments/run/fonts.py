"""Fonts that have the letters of a name: not all have those of every script."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from pathlib import Path

# Of the fonts that have the letters, what is set plainly comes first.
_NOT_PLAIN = ("bold", "italic", "oblique", "black", "heavy", "light", "thin", "mono", "serif", "condensed")
_ASCII = range(32, 127)
_said: set[str] = set()


@functools.cache
def font_for(text: str) -> str | None:
    """The file of a font that has every letter of `text`; None where this system has none.

    matplotlib's own DejaVu Sans is among them, which has the letters of most alphabets.
    """
    needed = {ord(letter) for letter in text if not letter.isspace()}
    return next((path for path in _fonts() if needed <= _letters(path)), None)


def is_plain(text: str) -> bool:
    """Whether any font has its letters."""
    return all(ord(letter) in _ASCII for letter in text)


def say_once(names: Iterable[str], how: str) -> None:
    """Say of names that no font has the letters of how they appear instead."""
    new = [name for name in names if name not in _said]
    _said.update(new)
    if new:
        named = ", ".join(new[:3]) + (", …" if len(new) > 3 else "")
        print(f"no font of this system has the letters of {named}: {how}", file=sys.stderr, flush=True)


@functools.cache
def _fonts() -> tuple[str, ...]:
    from matplotlib import font_manager, get_data_path

    own = str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf")

    def order(path: str) -> tuple[int, str]:
        name = Path(path).stem.lower()
        return sum(word in name for word in _NOT_PLAIN), name

    return own, *sorted(font_manager.findSystemFonts(), key=order)


@functools.cache
def _letters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a damaged file, or a font of pictures alone
        return frozenset()
