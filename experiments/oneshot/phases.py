"""Phases of progressive shrinking: which values of a space's decisions are trained when. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.grammar import load_yaml
from spaces.kinds import DEPTH, RESOLUTION, kind_of
from spaces.space import Space

KERNEL, DEPTHS, WIDTH = "kernel", "depth", "width"
_KEYS = ("name", "open", "subnets", "share", "rate", "sort")
# Of Once-for-All's training on ImageNet (arXiv:1908.09791, section 4.1, and its code): epochs of the largest network,
# of the first and of the last phase of depth and of width; and their learning rates, beside that of the largest.
_LARGEST, _FIRST, _LAST = 180.0, 25.0, 125.0
_RATE_KERNEL, _RATE_FIRST, _RATE_LAST = 0.4, 0.03, 0.1
_SUBNETS = {KERNEL: 1, DEPTHS: 2, WIDTH: 4}


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    Attributes
    ----------
    opens
        Group (``kernel``, ``depth``, ``width``), or kind (``c2``, ``e``, …), to how many of each decision's values are
        trained from here on, the largest ones; None: all.
    subnets
        In a step.
    share
        Of the training, beside the others'.
    rate
        Share of the learning rate that it begins with.
    sort
        Whether channels are put in the order of their importance when it begins.
    """

    name: str
    opens: Mapping[str, int | None] = field(default_factory=dict)
    subnets: int = 1
    share: float = 1.0
    rate: float = 1.0
    sort: bool = False


def groups_of(space: Space) -> dict[str, str]:
    """Label to its group; resolution, which is open from the first step on, is in none."""
    return {label: _group(kind) for label, kind in kind_of(space).items() if kind != RESOLUTION}


def _group(kind: str) -> str:
    if kind in (KERNEL, DEPTHS, WIDTH):
        return kind
    if kind == "k" or kind.endswith("_k"):
        return KERNEL
    return DEPTHS if kind in (DEPTH, "n") else WIDTH


def default_phases(space: Space) -> list[Phase]:
    """The largest network, then all kernels, then depths and widths, from one value to the next smaller one."""
    groups, phases = groups_of(space), [Phase("largest", share=_LARGEST)]
    most = {
        group: max(len(space.decisions[label].values) for label in groups if groups[label] == group)
        for group in (KERNEL, DEPTHS, WIDTH)
        if group in groups.values()
    }
    if most.get(KERNEL, 1) > 1:
        phases.append(Phase(KERNEL, {KERNEL: None}, _SUBNETS[KERNEL], _LAST, _RATE_KERNEL))
    for group in (DEPTHS, WIDTH):
        for count in range(2, most.get(group, 1) + 1):
            is_last = count == most[group]
            given = (_LAST, _RATE_LAST) if is_last else (_FIRST, _RATE_FIRST)
            opens = {group: None if is_last else count}
            phases.append(Phase(f"{group} {count}", opens, _SUBNETS[group], *given, sort=group == WIDTH))
    return phases


def read_phases(path: str | Path, space: Space) -> list[Phase]:
    """Phases of a YAML: a list of mappings with the attributes of `Phase`, ``open`` in place of `opens`.

    Raises
    ------
    InputError
        Says which phase, what is wrong with it, and what would be right; also where values of the space stay closed.
    """
    rows = load_yaml(Path(path))
    if not isinstance(rows, list) or not rows:
        raise InputError(f"--phases {path}: right would be a list of phases, such as - {{open: {{kernel: all}}}}")
    phases = [_read(row, f"--phases {path}, phase {i}", space) for i, row in enumerate(rows, start=1)]
    counts = counts_of(phases, space)[-1]
    for label, count in counts.items():
        if count < (whole := len(space.decisions[label].values)):
            raise InputError(
                f"--phases {path}: of the {whole} values of '{label}' {count} are trained at the end; right would be "
                f"a phase with {groups_of(space)[label]}: all"
            )
    return phases


def _read(row: Any, where: str, space: Space) -> Phase:
    if not isinstance(row, dict) or (unknown := sorted(set(map(str, row)) - set(_KEYS))):
        what = f"'{unknown[0]}' means nothing" if isinstance(row, dict) else "it is no mapping"
        raise InputError(f"{where}: {what}; right would be keys of {', '.join(_KEYS)}")
    opens = row.get("open", {})
    known = [KERNEL, DEPTHS, WIDTH, *dict.fromkeys(k for k in kind_of(space).values() if k != RESOLUTION)]
    if not isinstance(opens, dict):
        raise InputError(f"{where}: open: {opens}: right would be a mapping such as {{width: 2}}")
    for kind, count in opens.items():
        if kind not in known:
            raise InputError(f"{where}: open: this space has no '{kind}'; right would be one of {', '.join(known)}")
        if count != "all" and (type(count) is not int or count < 1):
            raise InputError(f"{where}: open: {kind}: {count}: right would be all, or a number of values from 1 on")
    subnets, share, rate = row.get("subnets", 1), row.get("share", 1.0), row.get("rate", 1.0)
    if type(subnets) is not int or subnets < 1:
        raise InputError(f"{where}: subnets: {subnets}: right would be 1 or more")
    for name, value in (("share", share), ("rate", rate)):
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise InputError(f"{where}: {name}: {value}: right would be a number above 0")
    if type(sort := row.get("sort", WIDTH in map(_group, opens))) is not bool:
        raise InputError(f"{where}: sort: {sort}: right would be true or false")
    counts = {kind: None if count == "all" else count for kind, count in opens.items()}
    name = str(row.get("name", " ".join(f"{k} {c}" for k, c in opens.items()) or "largest"))
    return Phase(name, counts, subnets, float(share), float(rate), sort)


def counts_of(phases: Sequence[Phase], space: Space) -> list[dict[str, int]]:
    """Of every phase: label to how many of its values are trained, the largest ones. What is open stays open."""
    groups, kinds = groups_of(space), kind_of(space)
    counts, found = dict.fromkeys(groups, 1), []
    for phase in phases:
        for kind, count in phase.opens.items():
            for label, group in groups.items():
                if kind in (group, kinds[label]):
                    whole = len(space.decisions[label].values)
                    counts[label] = max(counts[label], whole if count is None else min(count, whole))
        found.append(dict(counts))
    return found
