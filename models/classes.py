"""Classes go by their names: what a list of them may hold, and which class of one list is which of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .respelled import Respelled

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOST_NAMED = 5  # classes, in a message


def unnamed(number: int) -> tuple[str, ...]:
    """What classes without names are called."""
    return tuple(f"class{i}" for i in range(number))


def read_names(names: Any, where: str) -> tuple[str, ...]:
    """Class names of a YAML or a file, a list or ``{0: name, …}``, as text.

    Raises
    ------
    InputError
        A name is neither text nor a plain integer (YAML reads ``yes`` and ``null`` as what they mean), it is there
        twice, or it is not clear which class it is of. Begins with `where`.
    """
    if isinstance(names, Mapping):
        numbered = {int(k) if isinstance(k, str) and k.isdecimal() else k: name for k, name in names.items()}
        if [*map(type, numbered)] != [int] * len(names) or set(numbered) != set(range(len(names))):
            raise InputError(f"{where}: names should be numbered 0 to {len(names) - 1}, not {[*names]}")
        names = [numbered[k] for k in range(len(names))]
    if not isinstance(names, (list, tuple)) or not names:
        raise InputError(f"{where}: names should be a list of the classes, or {{0: name, 1: name, …}}")
    for number, name in enumerate(names):
        if isinstance(name, Respelled):
            raise InputError(
                f"{where}: names: YAML reads {name.written} (class {number}) as {int(name)}; right would be quotes, "
                f"'{name.written}'"
            )
        if type(name) not in (str, int) or not str(name).strip():
            raise InputError(
                f"{where}: names: class {number} is {name!r}, no text and no plain integer; right would be quotes, "
                "such as 'yes' or '1.5'"
            )
    said = [str(name) for name in names]
    if twice := [name for name, count in Counter(said).items() if count > 1]:
        places = ", ".join(str(i) for i, name in enumerate(said) if name == twice[0])
        raise InputError(
            f"{where}: names: {twice[0]!r} is the name of classes {places}; right would be one of each name"
        )
    return tuple(said)


def pairs(theirs: Sequence[str], own: Sequence[str]) -> list[tuple[int, int]]:
    """(number in `theirs`, number in `own`) of each class that both have, in the order of `own`.

    Where one of them has no names, and both are as many, classes go by number.
    """
    if len(theirs) == len(own) and (_has_no_names(theirs) or _has_no_names(own)):
        return [(i, i) for i in range(len(own))]
    number = {name: i for i, name in enumerate(theirs)}
    return [(number[name], i) for i, name in enumerate(own) if name in number]


def order_of(theirs: Sequence[str], own: Sequence[str]) -> list[int] | None:
    """The number in `theirs` of each class of `own`; None unless both are the same classes."""
    found = pairs(theirs, own)
    return [i for i, _ in found] if len(found) == len(theirs) == len(own) else None


def difference(theirs: Sequence[str], own: Sequence[str]) -> str:
    """How `own` differs, to stand behind who it is in a message: "the data " + "has cow and lacks dog"."""
    only = [name for name in own if name not in set(theirs)], [name for name in theirs if name not in set(own)]
    said = " and ".join(f"{verb} {some(names)}" for verb, names in zip(("has", "lacks"), only, strict=True) if names)
    if len(own) == len(theirs):
        return said
    numbers = f"({len(own)} class{'es' * (len(own) != 1)} for {len(theirs)})"
    return f"{said} {numbers}" if said else f"has some twice {numbers}"


def some(names: Iterable[str]) -> str:
    """The first of these names."""
    names = [*map(str, names)]
    return ", ".join(names[:_MOST_NAMED]) + ("…" if len(names) > _MOST_NAMED else "")


def names_of(network: Any) -> tuple[str, ...] | None:
    """Class names of a network by number, if it has any."""
    names = getattr(network, "names", None)
    if not names:
        return None
    return tuple(str(name) for name in ([names[k] for k in sorted(names)] if isinstance(names, Mapping) else names))


def class_layers(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Layers whose outputs are by class, to what `models.head.Head.by_class` says of them."""
    from .head import Head

    heads = {name: module for name, module in network.named_modules() if isinstance(module, Head)}
    found = {f"{name}.{layer}": how for name, head in heads.items() for layer, how in head.by_class().items()}
    return {**found, "linear": (1, 0)} if hasattr(network, "linear") else found


def rows_by_class(
    value: Tensor, nc: int, layer: Sequence[int], classes: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Outputs of a layer of `class_layers` for `nc` other classes, and which elements of them are known.

    layer: see `class_layers`; classes: see `pairs`.
    """
    groups, offset, behind = (*layer, 0)[:3]
    rows = value.view(groups, -1, *value.shape[1:])
    found = value.new_zeros(groups, offset + nc + behind, *value.shape[1:])
    known = value.new_zeros(found.shape).bool()
    found[:, :offset], known[:, :offset] = rows[:, :offset], True
    if behind:
        found[:, -behind:], known[:, -behind:] = rows[:, -behind:], True
    for theirs, own in classes:
        found[:, offset + own], known[:, offset + own] = rows[:, offset + theirs], True
    return found.flatten(0, 1), known.flatten(0, 1)


def in_order(state: Mapping[str, Tensor], network: nn.Module, order: Sequence[int]) -> dict[str, Tensor]:
    """A state dict of `network` with its classes in another order: class i is what `order[i]` was.

    Raises
    ------
    InputError
        The order is another, and a plug-in's head does not say where its classes are.
    """
    if list(order) == [*range(len(order))]:
        return dict(state)
    layers, classes = class_layers(network), [(theirs, own) for own, theirs in enumerate(order)]
    if not layers:
        raise InputError(
            "the head does not say which of its outputs are whose class (`by_class`), and the order differs"
        )
    found = dict(state)
    for key, value in state.items():
        if (layer := key.rpartition(".")[0]) in layers:
            found[key] = rows_by_class(value, len(order), layers[layer], classes)[0]
    return found


def _has_no_names(names: Sequence[str]) -> bool:
    return tuple(names) == unnamed(len(names))
