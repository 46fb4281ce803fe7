"""Files that are whole or not there at all, and the plain form in which a network is handed over."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

# Of detector.pt and classifier.pt, supernet.pt, config.yaml and study.db: what is read differently has a higher number.
# Files without one are of format 1.
FORMAT = 1


def check_format(content: Mapping[str, Any], what: str | Path) -> None:
    """`InputError` if a file was written by a later version of this project, which may mean other things by it."""
    if (found := content.get("format", 1)) != FORMAT:
        raise InputError(f"{what}: of format {found}, but this version reads {FORMAT}; right would be a later version")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a file of text, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class _RowDumper(yaml.SafeDumper):
    """Writes rows on one line each, as model YAMLs are read by people."""


def _sequence(dumper: yaml.SafeDumper, data: Any) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


class _Block(list):
    """A list that is written one item a line."""


_RowDumper.add_representer(list, _sequence)
_RowDumper.add_representer(tuple, _sequence)
_RowDumper.add_representer(
    _Block, lambda d, data: d.represent_sequence("tag:yaml.org,2002:seq", list(data), flow_style=False)
)


def dump_model_yaml(cfg: Mapping[str, Any]) -> str:
    """A model YAML as text: a row a line, in the order of `cfg`."""
    blocks = ("backbone", "head", "anchors")
    written = {k: _Block(v) if k in blocks and isinstance(v, list) else v for k, v in cfg.items()}
    return yaml.dump(written, Dumper=_RowDumper, sort_keys=False, width=1000, allow_unicode=True)


def save_model_yaml(cfg: Mapping[str, Any], path: str | Path) -> None:
    """Write a model YAML, atomically."""
    write_text(path, dump_model_yaml(cfg))


def save_detector(model: Any, path: str | Path, **extra: Any) -> None:
    """Write a detector as plain data: ``{"yaml", "state_dict", "names", …}``, readable with weights_only=True.

    Raises
    ------
    InputError
        Its weights are not finite: a training that ran away.
    """
    import torch

    state = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    check_finite(state, f"{path}: not written")
    with atomic(path) as temporary:
        content = {"format": FORMAT, "yaml": model.config.raw, "state_dict": state, "names": dict(model.names), **extra}
        torch.save(content, temporary)


def load_detector(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Build the detector of a file that `save_detector` wrote.

    Returns
    -------
    Model in eval mode, the file's whole content
    """
    from .detector import Model

    return _load(path, Model, "detector")


def save_classifier(classifier: Any, path: str | Path, names: Sequence[str], **extra: Any) -> None:
    """Write a classifier as `save_detector` writes a detector; its names are a list, in label order."""
    classifier.names = dict(enumerate(names))
    save_detector(classifier, path, classifies=True, **extra)


def load_classifier(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Build the classifier of a file that `save_classifier` wrote; as `load_detector`."""
    from .classifier import Classifier

    return _load(path, Classifier, "classifier")


class _Plain(pickle.Unpickler):
    """Reads what is plain in a pickle. All else becomes a `_Nothing`: nothing that the file names is run."""

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _Nothing

    def persistent_load(self, pid: Any) -> None:
        return None


class _Nothing:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def plain_content(path: str | Path) -> dict[str, Any]:
    """What a file of `torch.save` holds beside tensors, read without torch; empty if it is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            content = _Plain(io.BytesIO(archive.read(name))).load()
    except Exception:  # no file, or another's: who reads it says what is wrong
        return {}
    return content if isinstance(content, dict) else {}


def is_classifier(path: str | Path) -> bool:
    """Whether the file is one of `save_classifier`."""
    return bool(plain_content(path).get("classifies"))


def check_finite(state: Mapping[str, Any], what: str | Path) -> None:
    """`InputError` if a tensor of a state dict holds NaN or infinity: such a network finds nothing, without a word."""
    bad = [k for k, v in state.items() if v.is_floating_point() and not bool(v.isfinite().all())]
    if bad:
        named = ", ".join(bad[:3]) + (", …" if len(bad) > 3 else "")
        raise InputError(f"{what}: {len(bad)} of {len(state)} tensors hold numbers that are not finite: {named}")


def _load(path: str | Path, build: Any, kind: str) -> tuple[Any, dict[str, Any]]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        check_format(content, path)
        found = "classifier" if content.get("classifies") else "detector"
        if found != kind:
            raise InputError(f"{path}: a {found}'s; right would be a {kind}.pt")
        network = build(content["yaml"])
        network.load_state_dict(content["state_dict"])
        check_finite(network.state_dict(), path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except Exception as e:
        raise InputError(f"{path}: not a {kind} file of this project: {str(e).splitlines()[0]}") from None
    network.names = content["names"]
    return network.eval(), content
