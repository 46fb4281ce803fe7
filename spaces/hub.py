"""NNI's model spaces by name, those of its hub and a user's own: ``nni:DARTS(width=8)``, ``nni:mine.py:MySpace``.

Such a space is a Python class. What an arch of it means is the class within `fixed_arch`, so a result is three things:
the reference to the class, the arch and the weights. There is no YAML of it. Reading a reference loads no torch.
"""

from __future__ import annotations

import ast
import functools
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import isclass, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError
from models.plugins import before, load_plugin, loaded_plugins, plugin_of

from .choices import Decision

if TYPE_CHECKING:
    from torch import nn

PREFIX = "nni:"
# As DARTS searches (Liu et al. 2019, section 3.1): NNI's default is a choice of widths and of depths, but stages of one
# cell have no common supernet with larger ones.
_CELLS = {"width": 16, "num_cells": 8, "dataset": "cifar"}
# Name to the class of NNI's hub, and arguments that take the place of its defaults.
HUB: dict[str, tuple[str, dict[str, Any]]] = {
    "MobileNetV3": ("MobileNetV3Space", {}),
    "ShuffleNet": ("ShuffleNetSpace", {}),
    "ProxylessNAS": ("ProxylessNAS", {}),
    "AutoFormer": ("AutoFormer", {}),
    "NasBench101": ("NasBench101", {}),
    "NasBench201": ("NasBench201", {}),
    **{name: (name, _CELLS) for name in ("DARTS", "ENAS", "NASNet", "AmoebaNet", "PNAS")},
}
_IMPORTS_NNI = re.compile(rb"^\s*(?:from|import)\s+nni\b", re.MULTILINE)
_CLASSES = ("num_labels", "num_classes", "nc")  # what constructors call the number of classes
_SIDE = ("img_size", "imgsz", "image_size")


@dataclass(frozen=True)
class Reference:
    """What ``--space nni:…`` names.

    Attributes
    ----------
    text
        As it was written.
    file
        Python file of the class; None for NNI's hub, or a class of a plug-in.
    arguments
        Of the constructor.
    """

    text: str
    name: str
    file: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def repair_first(path: Path) -> None:
    """Before a plug-in imports NNI itself: NNI's own order of imports matters, and what it warns of."""
    if _IMPORTS_NNI.search(path.read_bytes()):
        from . import nni_compat  # noqa: F401


before.append(repair_first)


def is_reference(text: Any) -> bool:
    """Whether this names a space of NNI."""
    return isinstance(text, str) and text.startswith(PREFIX)


def read_reference(text: str) -> Reference:
    """Read ``nni:[FILE.py:]NAME[(argument=value, …)]``; values are Python's literals.

    Raises
    ------
    InputError
        Says how it is written, or which names there are.
    """
    right = "right would be such as nni:MobileNetV3, 'nni:DARTS(width=8, num_cells=3)' or nni:mine.py:MySpace"
    body, opened, inside = text.removeprefix(PREFIX).partition("(")
    file, _, name = body.rpartition(":")
    if not name.isidentifier() or (opened and not inside.endswith(")")):
        raise InputError(f"--space {text}: {right}")
    try:
        call: Any = ast.parse(f"f({inside[:-1]})" if opened else "f()", mode="eval").body
        if call.args or any(k.arg is None for k in call.keywords):
            raise ValueError("arguments are written name=value")
        arguments = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AttributeError) as e:
        raise InputError(f"--space {text}: {str(e).splitlines()[0]}; {right}") from None
    return Reference(text, name, file or None, arguments)


def load_file(text: str) -> str | None:
    """Import the file that a reference names, as a plug-in; its path, or None where it names none."""
    reference = read_reference(text)
    if reference.file is not None:
        load_plugin(reference.file)
    _look(reference)
    return reference.file


def _look(reference: Reference) -> Any:
    """Module of a plug-in that has the class; None if it is to be NNI's."""
    if reference.file is not None:
        at = Path(reference.file)
        files = [p for p in loaded_plugins() if p == at.resolve()] or [p for p in loaded_plugins() if p.name == at.name]
        module = plugin_of(files[0]) if files else None
        if not hasattr(module, reference.name):
            raise InputError(f"--space {reference.text}: {reference.file} has no class {reference.name}")
        return module
    found = [m for m in map(plugin_of, loaded_plugins()) if hasattr(m, reference.name)]
    known = {*HUB, *(name for name, _ in HUB.values()), "NDS"}
    if not found and reference.name not in known:
        raise InputError(
            f"--space {reference.text}: no space of NNI's hub, nor of a --plugin, is called so; there are "
            f"{', '.join(HUB)}"
        )
    return found[0] if found else None


class NetworkSpace:
    """A model space of NNI for images of a side and a number of classes: its decisions, and the network of an arch.

    Attributes
    ----------
    decisions
        Label to decision. Several inputs are one value, a tuple.

    Raises
    ------
    InputError
        There is no such class, it does not take the arguments, its networks do not take the images or put out too few
        classes, or one of its decisions is no choice between values.
    """

    def __init__(self, reference: str, nc: int, imgsz: int) -> None:
        self.text, self.nc, self.imgsz = reference, nc, imgsz
        self._reference = read_reference(reference)
        self._make = self._maker()
        self._whole = self.build()
        self.decisions = {label: Decision(label, values) for label, values in self._values().items()}
        if not self.decisions:
            raise InputError(f"--space {reference}: there is nothing to search, the class has no choices")
        self._check_output()

    def _maker(self) -> Any:
        from .nni_compat import ModelSpace, hub

        name, arguments = self._reference.name, dict(self._reference.arguments)
        module, defaults = _look(self._reference), dict[str, Any]()
        if module is None:
            name, defaults = HUB.get(name, next(((c, d) for c, d in HUB.values() if c == name), (name, {})))
        kind = getattr(module or hub, name)
        if not isclass(kind) or not issubclass(kind, ModelSpace):
            raise InputError(f"--space {self.text}: {name} is no ModelSpace of NNI")
        # What NNI wraps in a constructor of its own, which takes anything.
        parameters = signature(getattr(kind, "_init_wrapped", kind.__init__)).parameters
        takes = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][1:]
        any_name = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        defaults |= {n: self.nc for n in _CLASSES if n in takes} | {n: self.imgsz for n in _SIDE if n in takes}
        if unknown := [n for n in arguments if n not in takes and not any_name]:
            raise InputError(f"--space {self.text}: {name} takes no '{unknown[0]}'; there are {', '.join(takes)}")
        return functools.partial(kind, **defaults | arguments)

    def build(self) -> Any:
        """The space, all choices open."""
        try:
            return self._make()
        except InputError:
            raise
        except Exception as e:
            first = (str(e).splitlines() or [""])[0]
            raise InputError(f"--space {self.text}: cannot be built: {type(e).__name__}: {first}") from e

    def _values(self) -> dict[str, tuple[Any, ...]]:
        from .nni_compat import Categorical, CategoricalMultiple, MutableAnnotation, subsets

        found: dict[str, tuple[Any, ...]] = {}
        for label, mutable in self._whole.simplify().items():
            if isinstance(mutable, Categorical):
                found[str(label)] = tuple(mutable.values)
            elif isinstance(mutable, CategoricalMultiple):
                found[str(label)] = tuple(subsets(mutable))
            elif not isinstance(mutable, MutableAnnotation):
                kind = type(mutable).__name__
                raise InputError(f"--space {self.text}: '{label}' is a {kind}: right would be a choice of values")
        return found

    def _check_output(self) -> None:
        import torch

        network = self.network(self.first()).eval()
        try:
            with torch.no_grad():
                logits = network(torch.zeros(2, 3, self.imgsz, self.imgsz))
        except Exception as e:
            first = (str(e).splitlines() or [""])[0]
            raise InputError(
                f"--space {self.text}: its networks take no images of {self.imgsz} pixels (--imgsz): "
                f"{type(e).__name__}: {first}"
            ) from e
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[1] < self.nc:
            shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise InputError(
                f"--space {self.text}: its networks put out {shape} for 2 images of {self.nc} classes; right would be "
                f"(2, {self.nc})"
            )

    def network(self, arch: Mapping[str, Any]) -> nn.Module:
        """The plain network of an arch, with fresh weights."""
        from .nni_compat import model_context

        with model_context(self.lists(arch)):
            network: nn.Module = self.build()
        return network

    def plain(self, arch: Mapping[str, Any], frozen: nn.Module) -> nn.Module:
        """The plain network of an arch, with the weights of what a supernet was frozen to.

        Both have the same tensors in the same order, but not always by the same names: a constructor may leave out an
        identity, which freezing leaves in.
        """
        network = self.network(arch)
        own, given = network.state_dict(), frozen.state_dict()
        if [v.shape for v in own.values()] != [v.shape for v in given.values()]:
            raise InputError(
                f"--space {self.text}: what it builds within an arch is not what its supernet is frozen to"
            )
        network.load_state_dict(dict(zip(own, given.values(), strict=True)))
        return network

    def complete(self, arch: Mapping[str, Any]) -> dict[str, Any]:
        """The arch in the order of the space, several inputs as a tuple; `InputError` if it is of another space."""
        found = {}
        for label, decision in self.decisions.items():
            value = arch.get(label)
            value = tuple(value) if isinstance(value, list) else value
            if label not in arch or value not in decision.values:
                raise InputError(f"the arch is none of {self.text}: '{label}' is {value!r}")
            found[label] = value
        return found

    @staticmethod
    def lists(arch: Mapping[str, Any]) -> dict[str, Any]:
        """An arch as NNI and JSON have it."""
        return {label: list(value) if isinstance(value, tuple) else value for label, value in arch.items()}

    def written(self) -> dict[str, tuple[Any, ...]]:
        """Label to values as plain text and numbers, several inputs as JSON: what trials are told, see `read`."""
        return {label: tuple(map(_written, d.values)) for label, d in self.decisions.items()}

    def read(self, arch: Mapping[str, Any]) -> dict[str, Any]:
        """An arch of `written` values."""
        values = self.written()
        try:
            return {label: d.values[values[label].index(arch[label])] for label, d in self.decisions.items()}
        except (KeyError, ValueError) as e:
            raise InputError(f"the arch is none of {self.text}: {e}") from None

    def is_valid(self, arch: Mapping[str, Any]) -> bool:
        """Whether it keeps the constraints of the space, such as NAS-Bench-101's number of edges."""
        return self._whole.check_contains(self.lists(arch)) is None

    def first(self) -> dict[str, Any]:
        """A valid arch: that of the first values, or the first drawn."""
        arch = {label: d.values[0] for label, d in self.decisions.items()}
        return arch if self.is_valid(arch) else self.sample(random.Random(0))

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """A random valid arch."""
        for _ in range(10_000):
            arch = {label: rng.choice(d.values) for label, d in self.decisions.items()}
            if self.is_valid(arch):
                return arch
        raise InputError(f"--space {self.text}: no arch was found that keeps its constraints")


def _written(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, tuple) else value
