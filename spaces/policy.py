"""Policies: choices laid over a plain YAML by rule.

A policy is a YAML with ``rules``. A rule names the rows that it is for, and what becomes of their arguments::

    rules:
      - modules: [Conv, C3]      # required
        section: backbone        # or head; both if it is absent
        rows: [1, 9]             # first and last; all if it is absent
        c2: {scale: [0.75, 1, 1.25]}
        number: {add: [0, 1]}
        k: {of: {3: [3, 5]}}
        e: {choice: [0.5, 0.75]}

| way | choice between |
|---|---|
| ``scale`` | the written width times each, rounded as ``width_multiple`` and ``channel_multiple`` round it |
| ``add`` | as many blocks as are built of the row, and so many more or fewer |
| ``of`` | for a value that is a key, the values that stand there; others stay |
| ``choice`` | these, whatever is written |
| ``range`` | as in the grammar, whatever is written |

Arguments are called by the names of the module's parameters, and ``number``. A later rule takes the place of an earlier
one. A row that has an identity shortcut to its input gets the width of that, as one decision. Attention keeps its
width, as heads of other widths are no part of one another. What keeps its width, because of that or because no rule
opens it, has its input keep the written one, as has `CBFuse` what it adds to. `cfg` has no choices yet.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from models.documents import is_file
from models.errors import InputError
from models.grammar import Config, Row, is_choice, load_yaml, read_config

from .choices import Decision, default_label, read_choice

POLICIES = Path(__file__).parent / "policies"
WAYS = ("scale", "add", "of", "choice", "range")
_PLACE = ("modules", "section", "rows")


def apply_policy(
    cfg: str | Path | Mapping[str, Any] | Config, policy: str | Path | Mapping[str, Any]
) -> dict[str, Any]:
    """The mapping of a space: the plain YAML `cfg` with the choices that `policy` makes.

    Parameters
    ----------
    policy
        Name of a file in ``spaces/policies/``, the path of another, or what such a file holds.

    Raises
    ------
    InputError
        Names the policy and the rule, or the row, that does not fit.
    """
    from models.catalog import registered  # loads torch

    config = read_config(cfg).require_plain()
    rules, name = _rules(policy)
    known = registered()
    if unknown := [module for rule in rules for module in rule["modules"] if module not in known]:
        raise InputError(f"{name}: there is no module {unknown[0]!r}")
    raw = copy.deepcopy(config.raw)
    rows = [*raw["backbone"], *raw["head"]]
    width_of_input, attentive = _kinds(config)
    opened = {row.index for row in config.rows if any("c2" in rule and _is_for(rule, row) for rule in rules)}
    held = _held(config, width_of_input, attentive, opened)
    changed = 0
    for row in config.rows:
        arguments = {arg: way for rule in rules if _is_for(rule, row) for arg, way in rule.items() if arg not in _PLACE}
        for arg, way in arguments.items():
            if (arg == "c2" and row.index in held) or (arg == "e" and row.index in attentive):
                continue
            if arg == "c2" and row.index in width_of_input:
                changed += _tie(rows[row.index], rows[row.sources[0]], row)
            else:
                changed += _open(rows[row.index], arg, way, row, config)
    if not changed:
        raise InputError(f"{name}: no rule fits any row of {config.file}, so that no choice is made")
    if not raw.get("head"):
        raw.pop("head", None)
    return raw


def _rules(policy: str | Path | Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The rules, checked, and what messages call the policy."""
    if isinstance(policy, Mapping):
        written, name = policy, "policy"
    else:
        path = POLICIES / f"{policy}.yaml"
        path = path if is_file(path) else Path(policy)
        if not is_file(path):
            known = ", ".join(sorted(p.stem for p in POLICIES.glob("*.yaml")))
            raise InputError(f"{policy}: no such policy; there are {known}, or give a file")
        written, name = load_yaml(path), str(path)
    rules = written.get("rules") if isinstance(written, Mapping) else None
    if not isinstance(rules, list) or not rules:
        raise InputError(f"{name}: a policy is a mapping with a list of 'rules'")
    for number, rule in enumerate(rules, start=1):
        if problem := _problem(rule):
            raise InputError(f"{name}: rule {number}: {problem}")
    return rules, name


def _problem(rule: Any) -> str | None:
    if not isinstance(rule, Mapping) or not isinstance(rule.get("modules"), list):
        return "it is a mapping with a list of 'modules'"
    if other := [module for module in rule["modules"] if not isinstance(module, str)]:
        return f"modules are names, got {other[0]!r}"
    if rule.get("section", "head") not in ("backbone", "head"):
        return f"section is backbone or head, got {rule['section']!r}"
    rows = rule.get("rows", [0, 0])
    if not isinstance(rows, list) or len(rows) != 2 or not all(type(r) is int for r in rows):
        return f"rows are [first, last], got {rows!r}"
    for arg, way in rule.items():
        if arg in _PLACE:
            continue
        if not isinstance(way, Mapping) or len(way) != 1 or next(iter(way)) not in WAYS:
            return f"{arg} is {{way: …}} with one of {', '.join(WAYS)}, got {way!r}"
        kind, value = next(iter(way.items()))
        if not isinstance(value, dict if kind == "of" else list):
            return f"{arg}: {kind} takes a {'mapping' if kind == 'of' else 'list'}, got {value!r}"
        if kind in ("scale", "add") and not all(type(v) in (int, float) and math.isfinite(v) for v in value):
            return f"{arg}: {kind} takes numbers, got {value!r}"
        if (kind == "add") != (arg == "number") and kind in ("add", "scale"):
            return f"{arg}: add is for number, and scale for widths"
    return None


def _is_for(rule: Mapping[str, Any], row: Row) -> bool:
    first, last = rule.get("rows", [row.index, row.index])
    return (
        row.module in rule["modules"] and rule.get("section", row.section) == row.section and first <= row.index <= last
    )


def _kinds(config: Config) -> tuple[set[int], set[int]]:
    """Rows whose width is their input's (one that has an identity shortcut, or is repeated); rows with attention."""
    import torch

    from models.blocks import Attention
    from models.catalog import lookup
    from models.network import build_row

    channels: list[int] = []
    tied, attentive = set(), set()
    for row in config.rows:
        c_in = [config.ch if j < 0 else channels[j] for j in row.sources]
        entry = lookup(row)
        channels.append(entry.channels(config, row, c_in)[1])
        with torch.device("meta"):
            block = build_row(config, row, c_in)[0]
        if any(isinstance(m, Attention) for m in block.modules()):
            attentive.add(row.index)
        if c_in == [channels[-1]]:
            adds = any(vars(m).get("add") is True for name, m in block.named_modules() if name in ("", "0"))
            if adds or getattr(block, "keeps_width", False) or (config.depth(row) > 1 and not entry.repeats):
                tied.add(row.index)
    return tied, attentive


def _held(config: Config, tied: set[int], attentive: set[int], opened: set[int]) -> set[int]:
    """Rows with attention, and those whose width has to be what is written because another row's is."""
    held = attentive | {row.sources[-1] for row in config.rows if row.module == "CBFuse"}
    for row in reversed(config.rows):
        if row.index in tied and (row.index in held or row.index not in opened):
            held.update(j for j in row.sources if j >= 0)
    return held


def _tie(written: list[Any], source: list[Any], row: Row) -> bool:
    """Give a row's width the decision of its input's, if that is one and says the same."""
    theirs = source[3][0] if source[3] else None
    if not isinstance(theirs, dict) or written[3][0] not in theirs.get("choice", ()):
        return False
    theirs.setdefault("label", default_label(row.sources[0], "0"))
    written[3][0] = dict(theirs)
    return True


def _open(written: list[Any], arg: str, way: Mapping[str, Any], row: Row, config: Config) -> bool:
    """Make an argument of a row, as written in the YAML, a choice. Returns whether there is anything to choose."""
    if arg == "number":
        holder: Any = written
        key: Any = 1
        default: Any = None
    else:
        holder, key, default = _find(written, arg, row)
    if isinstance(holder, list) and key >= len(holder):
        value = default
    else:
        value = holder.get(key, default) if isinstance(holder, dict) else holder[key]
    values = _values(value, way, row, config)
    if values is None or (isinstance(values, list) and len(values) < 2):
        return False
    choice: dict[str, Any] = {"range": values["range"]} if isinstance(values, dict) else {"choice": values}
    if value in cast(Decision, read_choice(choice, arg)).values:
        choice["plain"] = value
    if isinstance(holder, list) and key >= len(holder):
        # Not written so far: by name, in the mapping that closes the arguments.
        args = written[3]
        if not args or not isinstance(args[-1], dict) or is_choice(args[-1]):
            args.append({})
        args[-1][arg] = choice
    else:
        holder[key] = choice
    return True


def _find(written: list[Any], arg: str, row: Row) -> tuple[Any, Any, Any]:
    """(list or mapping that holds an argument, its place there, its default)."""
    from models.catalog import lookup  # loads torch

    entry = lookup(row)
    parameters = dict(inspect.signature(entry.cls).parameters)
    if arg not in parameters:
        raise row.error(f"the policy opens '{arg}', which it does not take; it takes {', '.join(parameters)}")
    args = written[3]
    named = args[-1] if args and isinstance(args[-1], dict) and not is_choice(args[-1]) else None
    default = parameters[arg].default
    if named is not None and arg in named:
        return named, arg, default
    positional = [
        name
        for name, p in parameters.items()
        if p.kind is p.POSITIONAL_OR_KEYWORD and name != "c1" and not (entry.repeats and name == "n")
    ]
    place = positional.index(arg) if arg in positional else len(args)
    num_written = len(args) - (named is not None)
    return args, place if place < num_written else len(args), default


def _values(value: Any, way: Mapping[str, Any], row: Row, config: Config) -> Any:
    """Values to choose from; None where the way says nothing of this one."""
    kind, given = next(iter(way.items()))
    if kind == "range":
        return {"range": given}
    if kind == "choice":
        return list(given)
    if kind == "of":
        return list(given[value]) if _is_key(value, given) else None
    if kind == "add":
        built = config.depth(row)
        return _unique(_number(built + more, value, config) for more in sorted({0, *given}) if built + more >= 1)
    widths = {config.width(value, row): value}
    for factor in given:
        if type(value) in (int, float) and value * factor > 0:
            # The nominal width that comes to just this many channels, so that the YAML says what is built.
            channels = config.width(value * factor, row)
            widths.setdefault(channels, _whole(channels / config.width_multiple))
    return [widths[c] for c in sorted(widths)]


def _is_key(value: Any, given: Mapping[Any, Any]) -> bool:
    return isinstance(value, (int, float, str)) and value in given and isinstance(given[value], list)


def _number(built: int, written: int, config: Config) -> int | None:
    """A `number` of which `built` blocks are built: the written one if that does, else the smallest."""
    if max(round(written * config.depth_multiple), 1) == built and (written > 1 or built == 1):
        return written
    if built == 1:
        return 1
    return next((n for n in range(2, 1000) if max(round(n * config.depth_multiple), 1) == built), None)


def _unique(values: Any) -> list[Any]:
    return list(dict.fromkeys(v for v in values if v is not None))


def _whole(value: float) -> Any:
    return int(value) if value == int(value) else value
