"""What a mistyped name may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant_by(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Names that differ from `word` by case or by one slip of the keyboard, the likeliest first.

    A name with something more in it is no slip: `SPPCSPC` and `RepConvN` are other modules than `SPP` and `RepConv`.
    Nor is one of the short names, where one letter is most of what tells them apart.
    """
    found = [name for name in known if name != word and _is_slip(word, name)]
    return sorted(found, key=lambda name: -difflib.SequenceMatcher(None, word, name).ratio())[:most]


def _is_slip(word: str, name: str) -> bool:
    if word.casefold() == name.casefold():
        return True
    a, b = word.casefold(), name.casefold()
    if min(len(a), len(b)) < 4 or abs(len(a) - len(b)) > 1:
        return False
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if len(a) == len(b):
        swapped = a[:first] + a[first + 1 : first + 2] + a[first] + a[first + 2 :]
        return b == swapped or a[first + 1 :] == b[first + 1 :]
    if len(a) < len(b):  # a letter is missing
        return first > 0 and b[first + 1 :] == a[first:]
    # Or one is there twice: `Convv` differs from `Conv` at its end.
    return a[first + 1 :] == b[first:] and a[first] == a[first - 1]
