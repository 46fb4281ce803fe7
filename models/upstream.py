"""Checkpoints of YOLOv5 and its anchor-free successors: pickles of classes not of this project, of which none is run.

PyTorch's own restricted unpickler (`torch.load(weights_only=True)`) does the reading. Classes of upstream, of
`torch.nn` and a few that only describe a run are replaced by `_Inert`, which keeps the state it is given and does
nothing; anything else that the pickle names is refused. Upstream's code is never imported.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import limits
from .detector import Model
from .documents import check_plain
from .errors import InputError
from .files import check_finite, load_detector
from .grammar import read_config
from .plain_files import check_tensors, first_line, foreign_globals
from .scales import MULTIPLES, at_scale
from .schemas import NamesOf

# Prefixes of what becomes `_Inert`: the network's classes, and what training notes down beside them.
_INERT = (
    *("ultralytics.nn.", "ultralytics.utils.", "models.", "utils.", "torch.nn.modules.", "torch.nn.parallel."),
    *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.", "numpy._core.multiarray."),
    *("argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.", "datetime."),
)
# What the successors note down in a network's YAML, beside what builds it.
_NOTES = ("yaml_file", "channels", "scale", "scales", "task", "inplace")
# Heads of theirs that are the anchor-free one here.
_ANCHOR_FREE = ("Detect", "v10Detect")
# Kept in the head by YOLOv5 up to v5: the anchors in pixels, which follow from `anchors`.
_REDUNDANT = (".anchor_grid",)
_DEFAULT_ACTIVATION = "SiLU"


class Upstream(NamedTuple):
    """What a checkpoint says of a detector."""

    cfg: dict[str, Any]  # model YAML
    state_dict: dict[str, Tensor]  # float32, with the keys of `models.Model`
    names: dict[int, str]


class _Inert:
    """Stands for an object of a class that is not here: made with any arguments, keeps its state, runs nothing."""

    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def get(self, name: str) -> Any:
        """An attribute of the object that this stands for; None if it has none of that name."""
        return self.state.get(name) if isinstance(self.state, dict) else None

    @property
    def children(self) -> dict[str, _Inert]:
        modules = self.get("_modules")
        return {k: v for k, v in modules.items() if isinstance(v, _Inert)} if isinstance(modules, dict) else {}


def load_upstream(path: str | Path, cfg: str | Path | Mapping[str, Any] | None = None) -> Upstream:
    """Read a checkpoint of YOLOv5 or of an anchor-free successor, and check that it fits what its YAML describes here.

    Its exponential moving average is taken where it has one.

    Parameters
    ----------
    cfg
        Model YAML for a file that holds a state dict alone; a whole checkpoint brings its own.

    Raises
    ------
    InputError
        Not such a file, a class in it that is not allowed, or keys that do not fit, each by name.
    """
    try:
        return _found(_read(path), path, cfg)
    except InputError:
        raise
    except Exception as e:  # attributes, rows and keys of other kinds than upstream's
        raise InputError(f"{path}: no YOLOv5 checkpoint: {type(e).__name__}: {first_line(e)}") from e


def _found(content: Any, path: str | Path, cfg: str | Path | Mapping[str, Any] | None) -> Upstream:
    network = content
    if isinstance(content, dict):
        network = next((content[k] for k in ("ema", "model", "state_dict") if content.get(k) is not None), content)
    if isinstance(network, _Inert):
        network = network.children.get("module", network)  # what wraps it for several GPUs
        cfg, names, state = cfg or _yaml_of(network, path), network.get("names"), dict(_tensors(network))
    elif isinstance(network, dict) and network and all(isinstance(v, Tensor) for v in network.values()):
        if cfg is None:
            raise InputError(f"{path}: a state dict alone, which has no YAML; load_upstream takes one as cfg")
        names, state = None, network
    else:
        raise InputError(f"{path}: no YOLOv5 checkpoint: it should hold a network under 'ema' or 'model'")
    if isinstance(cfg, dict) and "anchors" not in cfg:
        cfg = _anchor_free(cfg, state, path)
    check_tensors(state, path)
    model = Model(read_config(cfg, file=str(path)) if isinstance(cfg, dict) else cfg)
    state = {_our_key(k): _float(v) for k, v in state.items() if not k.endswith(_REDUNDANT)}
    _check_fit(model, state, path)
    check_finite(state, path)
    if isinstance(names, (list, dict)):
        if isinstance(names, dict):
            check_plain(names, path)
            names = {int(k): v for k, v in names.items()}
        names = NamesOf.of({"names": names}, path).names
        if len(names) != model.head.nc:
            raise InputError(f"{path}: names {len(names)} classes, but its head has {model.head.nc}")
    else:
        names = model.names
    return Upstream(model.config.raw, state, names)


def load_weights(path: str | Path) -> tuple[Model, dict[str, Any]]:
    """The detector of a file of this project or of upstream YOLOv5.

    Returns
    -------
    Model in eval mode, the file's content (for upstream's, its YAML and names)
    """
    if not foreign_globals(path):
        return load_detector(path)
    cfg, state, names = load_upstream(path)
    model = Model(read_config(cfg, file=str(path)))
    model.load_state_dict(state)
    model.names = names
    return model.eval(), {"yaml": cfg, "names": names}


def _read(path: str | Path) -> Any:
    foreign = foreign_globals(path)
    if refused := [name for name in foreign if not name.startswith(_INERT)]:
        raise InputError(f"{path}: names {', '.join(refused)}, which no YOLOv5 checkpoint needs; nothing of it was run")
    inert: list[Any] = [(type(name, (_Inert,), {}), name) for name in foreign]
    try:
        with torch.serialization.safe_globals(inert):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise InputError(f"{path}: not a file of torch.save that can be read: {first_line(e)}") from None
    return content


def _modules(network: _Inert) -> Iterator[tuple[str, _Inert]]:
    """Every module and where it is, those before it first; `InputError` if one is within itself, or there is no end."""
    pending = [("", network)]
    for number in itertools.count(1):
        if not pending:
            return
        if number > limits.MODULES or len(pending) > limits.MODULES:
            raise InputError(f"more than {limits.MODULES:,} modules, or one that is within itself")
        prefix, module = pending.pop()
        yield prefix, module
        pending += [(f"{prefix}{name}.", child) for name, child in reversed(module.children.items())]


def _tensors(network: _Inert) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers as `nn.Module.state_dict` names them."""
    for prefix, module in _modules(network):
        unsaved = module.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, tensor in (module.get(kind) or {}).items():
                if isinstance(tensor, Tensor) and name not in unsaved:
                    yield prefix + name, tensor.detach()


def _our_key(key: str) -> str:
    """Our blocks have upstream's attribute names; only the state dict of what wraps the network has more."""
    return key.removeprefix("module.")


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _plain(value: Any, path: str | Path) -> Any:
    """A YAML's value; a copy, of plain types. It has come through `check_plain`."""
    if isinstance(value, dict):
        return {_plain(k, path): _plain(v, path) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, path) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"{path}: the YAML in it holds a {type(value).__name__}, which no YAML can")


def _yaml_of(network: _Inert, path: str | Path) -> dict[str, Any]:
    """The network's own YAML, with its `activation`: before v4 it was upstream's code that said it."""
    check_plain(network.get("yaml"), path)
    raw = _plain(network.get("yaml"), path)
    if not isinstance(raw, dict):
        raise InputError(f"{path}: the network in it has no YAML; load_upstream takes one as cfg")
    found = {_call(act) for act in _activations(network)} - {"nn.Identity()"}
    if len(found) > 1:
        raise InputError(f"{path}: mixes the activations {', '.join(sorted(found))} (YOLOv5 before v4); one is needed")
    if found and found != {f"nn.{_DEFAULT_ACTIVATION}()"}:
        raw.setdefault("activation", found.pop())
    return raw


def _anchor_free(raw: dict[str, Any], state: Mapping[str, Tensor], path: str | Path) -> dict[str, Any]:
    """A successor's YAML as ours: its scale as multiples, and its head's form, which the tensors tell."""
    rows = [*raw.get("backbone", []), *raw.get("head", [])]
    if not rows or rows[-1][2] not in _ANCHOR_FREE:
        return raw
    raw = {"ch": raw.get("channels", raw.get("ch", 3)), **raw}
    if isinstance(scales := raw.get("scales"), dict):
        raw = {k: copy.deepcopy(v) for k, v in raw.items() if k not in MULTIPLES}
        at_scale(raw, raw.get("scale") or next(iter(scales), None), None, str(path))
    raw = {k: v for k, v in raw.items() if k not in _NOTES}
    last = raw["head"][-1]
    raw["head"] = [*raw["head"][:-1], [*last[:2], "Detect", [last[3][0]]]]

    prefix = f"model.{len(rows) - 1}."
    own = {k.removeprefix("module.").removeprefix(prefix): v for k, v in state.items() if prefix in k}
    if (bias := own.get("cv2.0.2.bias")) is not None:
        form: dict[str, Any] = {"reg_max": len(bias) // 4, "end2end": any(k.startswith("one2one_") for k in own)}
        form["depthwise"] = "cv3.0.0.0.conv.weight" in own
        usual = {"reg_max": 16, "end2end": False, "depthwise": False}
        raw = {k: v for k, v in raw.items() if k not in form} | {k: v for k, v in form.items() if v != usual[k]}
    return raw


def _activations(network: _Inert) -> Iterator[_Inert]:
    for _, module in _modules(network):
        if "act" in module.children:
            yield module.children["act"]


def _call(act: _Inert) -> str:
    name = type(act).__name__.rpartition(".")[2]
    slope = act.get("negative_slope")
    return f"nn.{name}({'' if slope is None else slope})"


def _check_fit(model: Model, state: Mapping[str, Tensor], path: str | Path) -> None:
    own = model.state_dict()
    problems = [f"{k} is missing" for k in own if k not in state]
    problems += [f"{k} is unknown" for k in state if k not in own]
    problems += [
        f"{k} is {list(state[k].shape)}, the YAML makes it {list(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        hint = "; batch normalisation was fused into it" if any(".bn." in p for p in problems[:3]) else ""
        raise InputError(f"{path}: does not fit its YAML: {', '.join(problems[:3])}{more}{hint}")
