"""The modules that a row may name: this project's blocks and heads, and those of plug-ins."""

from __future__ import annotations

from typing import Any

from . import blocks, dfl, heads, registry, segment, semantic  # noqa: F401  (importing blocks and heads registers what they define)
from .errors import InputError
from .grammar import Config, Row
from .head import Head
from .registry import Entry
from .suggest import meant_by


def registered() -> dict[str, Entry]:
    """All registered modules by name."""
    return dict(registry._REGISTRY)


def lookup(row: Row) -> Entry:
    """The entry of a row's module; `InputError` with the nearest known names otherwise."""
    known = registered()
    if row.module in known:
        return known[row.module]
    if row.module in ("NASConv", "NASC3"):
        raise row.error("is a searchable block: freeze the space first (spaces.freeze)")
    close = meant_by(row.module, known)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(known))};"
    raise row.error(f"unknown module; {hint} one of your own is registered by a file that is given as --plugin FILE")


def is_head(row: Row) -> bool:
    """Whether a row is a detection head."""
    entry = registered().get(row.module)
    return entry is not None and isinstance(entry.cls, type) and issubclass(entry.cls, Head)


def finds(config: Config) -> str:
    """What the last row finds, see `models.head.Head.finds`; ``boxes`` where it is no head."""
    head: Any = registered()[config.rows[-1].module].cls if is_head(config.rows[-1]) else Head
    return str(head.finds)


def check_head(config: Config) -> None:
    """`InputError` unless the last row is a detection head; it says what would do in a head's place.

    The heads of YOLOv7 and YOLOv9 that train by two sets of maps have those to detect with first (``IAuxDetect``) or
    last (``DualDDetect``).
    """
    last = config.rows[-1]
    for row in config.rows[:-1]:
        if is_head(row):
            raise row.error(f"a detector has one head, its last row (row {last.index}, {last.module})")
    if is_head(last):
        return
    right = "a detector's last row is Detect, such as [[17, 20, 23], 1, Detect, [nc, anchors]]"
    if last.module in registered():
        if not config.has_head:
            raise InputError(f"{config.file}: {right}; this YAML has no head to detect with")
        raise last.error(f"is no head; {right}")
    if not isinstance(last.source, tuple):
        close = meant_by(last.module, registered())
        hint = f", did you mean {' or '.join(close)}?" if close else ";"
        raise last.error(f"no head of this name is known{hint} {right}; one of a plug-in needs --plugin FILE")
    levels, half = list(last.source), len(last.source) // 2
    if last.module in ("IAuxDetect", "DualDDetect"):
        levels = levels[:half] if last.module == "IAuxDetect" else levels[half:]
    args, key = "[nc, anchors]", ""
    if "anchors" not in last.written[3]:
        args, key = "[nc]", "" if config.anchors is None else " and leave out the key 'anchors'"
    raise last.error(
        f"no head of this name is known; write [{levels}, 1, Detect, {args}]{key} to find boxes, or give the plug-in "
        "that registers it (--plugin FILE)"
    )
