"""Weights to start a training from: a detector of this project, or an upstream YOLOv5 checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from models.classes import class_layers, difference, names_of, pairs, rows_by_class
from models.detector import Model
from models.errors import InputError
from models.upstream import load_weights

_OWN = ("anchors",)  # buffers that are the new detector's own: its anchors were fitted to its data


class Start(NamedTuple):
    """A detector as found in a file; `arch` if a search found it, `is_slice` if it is one of a trained supernet.

    `names` are those of its classes, where it knows them.
    """

    cfg: dict[str, Any]
    state: dict[str, Tensor]
    file: str
    arch: dict[str, Any] | None = None
    is_slice: bool = False
    names: tuple[str, ...] | None = None


class Transfer(NamedTuple):
    """What `transfer` did."""

    loaded: int
    left: list[str]  # names of tensors of the detector that keep their initial values
    classes: str = ""  # how the classes differ, where they do

    def __str__(self) -> str:
        total = self.loaded + len(self.left)
        named = ", ".join(self.left[:3]) + (", …" if len(self.left) > 3 else "")
        said = f"{self.loaded} of {total} tensors" + (f"; initialised anew: {named}" if self.left else "")
        return said + (f"; classes by name: {self.classes}" if self.classes else "")


def read_weights(path: str | Path) -> Start:
    """Read `detector.pt` of this project or an upstream checkpoint.

    Raises
    ------
    InputError
        The file is missing or is neither.
    """
    try:
        model, content = load_weights(path)
    except InputError as e:
        raise InputError(f"--weights {e}") from None
    raw, found, names = model.config.raw, content.get("is_slice", False), names_of(model)
    return Start(raw, model.state_dict(), str(path), content.get("arch"), bool(found), names)


def transfer(start: Start, model: Model) -> Transfer:
    """Copy into `model`, in place, every tensor that fits by name and shape; outputs of classes by the classes' names.

    Raises
    ------
    InputError
        None does: these are weights of another network.
    """
    own = model.state_dict()
    fit = {
        name: tensor
        for name, tensor in start.state.items()
        if name in own and own[name].shape == tensor.shape and name.rsplit(".", 1)[-1] not in _OWN
    }
    if not any(tensor.ndim > 1 for tensor in fit.values()):  # counters of batch norms fit anything
        raise InputError(
            f"--weights {start.file}: no tensor of it fits {model.config.file}; they are of another network"
        )
    said = _by_name(start, model, fit)
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in fit.items()}, strict=False)
    left = [name for name in own if name not in fit and name.rsplit(".", 1)[-1] not in _OWN]
    return Transfer(len(fit), left, said)


def _by_name(start: Start, model: Model, fit: dict[str, Tensor]) -> str:
    """Bring outputs of classes, in `fit`, to where the model has the class of that name; how the classes differ."""
    theirs, own = start.names, names_of(model)
    if theirs is None or own is None or theirs == own:
        return ""
    classes, layers, state = pairs(theirs, own), class_layers(model), model.state_dict()
    is_other = len(classes) < len(own) or len(theirs) > len(own) or any(a != b for a, b in classes)
    if is_other and not layers:  # a plug-in's head that does not say which of its outputs are whose
        last = f"model.{len(model.model) - 1}."
        for name in [name for name in fit if name.startswith(last)]:
            del fit[name]
    for name, tensor in fit.items():
        if (layer := name.rpartition(".")[0]) in layers:
            rows, known = rows_by_class(tensor, len(own), layers[layer], classes)
            fit[name] = rows.to(state[name].dtype).where(known, state[name])
    return f"the data {difference(theirs, own)}" if len(classes) < max(len(own), len(theirs)) else ""
