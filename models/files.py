"""Files that are whole or not there at all, and the plain form in which a network is handed over."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .archives import plain_content
from .errors import InputError

# Of detector.pt and classifier.pt, supernet.pt, config.yaml and study.db: what is read differently has a higher number.
# Files without one are of format 1.
FORMAT = 1


def check_format(content: Mapping[str, Any], what: str | Path) -> None:
    """`InputError` if a file was written by a later version of this project, which may mean other things by it."""
    found = content.get("format", 1) if isinstance(content, Mapping) else type(content).__name__
    if type(found) is not int or found != FORMAT:
        raise InputError(f"{what}: of format {found}, but this version reads {FORMAT}; right would be a later version")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Raises
    ------
    OSError
        The disk did not take the file; names `path`, whoever wrote it and however that said so.
    """
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except Exception as e:
        if (why := disk_error(e, path)) is None:
            raise
        raise why from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


_FULL_BYTES = 1 << 16  # what is left where a block more was wanted
_BY_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def refused_by_disk(error: BaseException) -> OSError | None:
    """What a disk that is full, or that takes nothing, said; also where a library made an error of its own of it."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        if isinstance(found, OSError) and found.errno in _BY_DISK:
            return found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None


def disk_error(error: Exception, path: Path) -> OSError | None:
    """What the disk did not take, if that is why writing `path` failed; libraries may say no more than that it did."""
    if (why := refused_by_disk(error)) is not None:
        return OSError(why.errno, why.strerror, str(path))
    silent = not isinstance(error, (InputError, OSError)) and path.parent.is_dir()
    if silent and shutil.disk_usage(path.parent).free < _FULL_BYTES:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return None


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
    from .plain_files import save_plain

    state = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    check_finite(state, f"{path}: not written")
    content = {"format": FORMAT, "yaml": model.config.raw, "state_dict": state, "names": dict(model.names), **extra}
    save_plain(content, path)


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


def save_landmarks(
    network: Any, path: str | Path, names: Sequence[str], normalise: Sequence[int], **extra: Any
) -> None:
    """Write what gives coordinates as `save_classifier` writes a classifier; see `models.Classifier.landmarks`."""
    network.landmarks = {"normalise": [*normalise]}
    save_classifier(network, path, names, landmarks=network.landmarks, **extra)


def is_classifier(path: str | Path) -> bool:
    """Whether the file is one of `save_classifier` or `save_landmarks`."""
    return bool(plain_content(path).get("classifies"))


def kind_of(path: str | Path) -> str:
    """What a file of weights holds: ``classifier``, ``landmarks``, or ``detector`` where it is neither."""
    content = plain_content(path)
    return "detector" if not content.get("classifies") else "landmarks" if content.get("landmarks") else "classifier"


def check_finite(state: Mapping[str, Any], what: str | Path) -> None:
    """`InputError` if a tensor of a state dict holds NaN or infinity: such a network finds nothing, without a word."""
    tensors = {k: v for k, v in state.items() if hasattr(v, "isfinite")}  # what else there is, its reader refuses
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not bool(v.isfinite().all())]
    if bad:
        named = ", ".join(bad[:3]) + (", …" if len(bad) > 3 else "")
        raise InputError(f"{what}: {len(bad)} of {len(state)} tensors hold numbers that are not finite: {named}")


def _load(path: str | Path, build: Any, kind: str) -> tuple[Any, dict[str, Any]]:
    from .grammar import read_config
    from .plain_files import load_plain
    from .schemas import Checkpoint

    try:
        content = load_plain(path)
    except InputError as e:
        if not Path(path).is_file():
            raise
        reason = str(e).removeprefix(f"{path}: ")
        raise InputError(f"{path}: not a {kind} file of this project: {reason}") from None
    try:
        checked = Checkpoint.of(content, f"{path}: not a {kind} file of this project")
        check_format(content, path)
        found = "classifier" if checked.classifies else "detector"
        if found != kind:
            raise InputError(f"{path}: a {found}'s; right would be a {kind}.pt")
        config = read_config(checked.yaml, file=str(path))
        network = build(config)
        network.load_state_dict(checked.state_dict)
        check_finite(network.state_dict(), path)
    except InputError:
        raise
    except Exception as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{path}: not a {kind} file of this project: {reason}") from None
    if len(checked.names) != (classes := config.nc if kind == "classifier" else network.head.nc):
        raise InputError(f"{path}: names {len(checked.names)} classes, but its network has {classes}")
    network.names = checked.names
    if checked.landmarks is not None:
        network.landmarks = {"normalise": [*checked.landmarks.normalise]}
    return network.eval(), content
