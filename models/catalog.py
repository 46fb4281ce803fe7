"""The modules that a row may name: this project's blocks and heads, and those of plug-ins."""

from __future__ import annotations

import difflib

from . import blocks, dfl, heads, registry  # noqa: F401  (importing blocks and heads registers what they define)
from .grammar import Row
from .registry import Entry


def registered() -> dict[str, Entry]:
    """All registered modules by name."""
    return dict(registry._REGISTRY)


def lookup(row: Row) -> Entry:
    """The entry of a row's module; `InputError` with the nearest known names otherwise."""
    known = registered()
    if row.module in known:
        return known[row.module]
    if row.module == "Segment":
        raise row.error("Segment heads are not supported yet; Detect is")
    if row.module in ("NASConv", "NASC3"):
        raise row.error("is a searchable block: freeze the space first (spaces.freeze)")
    close = difflib.get_close_matches(row.module, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(known))}"
    raise row.error(f"unknown module; {hint}")
