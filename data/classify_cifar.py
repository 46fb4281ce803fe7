"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) as their archives hold them: pickles of Python 2, of arrays and lists.

Nothing that a pickle names is called but what makes an array of numbers.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.documents import is_file, read_bytes
from models.errors import InputError

from .classify_source import Source
from .download import download

_TEN, _HUNDRED = "cifar-10-batches-py", "cifar-100-python"
_SIDE = 32
_SHIFT = 1 / 8  # the customary 4 of 32 pixels
# Pickles of arrays name these, by NumPy's old name of the module or by its new one.
_ARRAYS = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


def is_cifar(folder: Path) -> bool:
    """Whether an archive was unpacked as this folder."""
    return is_file(folder / "batches.meta") or (is_file(folder / "meta") and is_file(folder / "train"))


def cifar10(root: Path, imgsz: int) -> Source:
    """60,000 photographs of 32x32 pixels in 10 classes; read from ``cifar-10-batches-py`` in `root`, or downloaded."""
    if not is_file(root / _TEN / "batches.meta"):
        from torchvision.datasets import CIFAR10

        download("cifar10", root, lambda: CIFAR10(str(root), download=True), f"as {_TEN}/")
    return cifar(root / _TEN)


def cifar100(root: Path, imgsz: int) -> Source:
    """As many in 100 fine classes; ``cifar-100-python``."""
    if not is_file(root / _HUNDRED / "meta"):
        from torchvision.datasets import CIFAR100

        download("cifar100", root, lambda: CIFAR100(str(root), download=True), f"as {_HUNDRED}/")
    return cifar(root / _HUNDRED)


def cifar(folder: Path) -> Source:
    """An archive that was unpacked: its classes in the order of its own list, its test images as the validation split.

    Raises
    ------
    InputError
        Names the file that is missing, damaged or of another kind.
    """
    if is_file(folder / "batches.meta"):
        trained, tested = sorted(folder.glob("data_batch_[0-9]*")), folder / "test_batch"
        names, labelled = _field(folder / "batches.meta", "label_names", list), "labels"
    else:
        trained, tested = [folder / "train"], folder / "test"
        names, labelled = _field(folder / "meta", "fine_label_names", list), "fine_labels"
    if not trained or not is_file(tested):
        raise InputError(f"{folder}: not whole; right would be the unpacked archive, with {tested.name} in it")
    parts = [_batch(file, labelled, len(names)) for file in (*trained, tested)]
    images, labels = (np.concatenate(several) for several in zip(*parts, strict=True))
    is_val = np.arange(len(labels)) >= len(labels) - len(parts[-1][1])
    return Source(torch.from_numpy(images), labels, tuple(map(str, names)), is_val, _SHIFT, flip=True)


def _batch(file: Path, labelled: str, nc: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 3, 32, 32) and labels int64 (N,)."""
    data, labels = _field(file, "data", np.ndarray), _field(file, labelled, list)
    shape = len(labels), 3 * _SIDE * _SIDE
    if data.dtype != np.uint8 or data.shape != shape:
        raise InputError(f"{file}: data is {data.dtype} of {data.shape}; right would be uint8 of {shape}")
    if any(type(k) is not int or not 0 <= k < nc for k in labels):
        raise InputError(f"{file}: {labelled} are not all numbers from 0 to {nc - 1}")
    return np.array(data).reshape(-1, 3, _SIDE, _SIDE), np.array(labels, dtype=np.int64)


def _field(file: Path, name: str, kind: type) -> Any:
    content = _read(file)
    if not isinstance(content, dict) or not isinstance(content.get(name), kind):
        raise InputError(f"{file}: has no {name}; right would be the file of CIFAR's archive for Python")
    return content[name]


def _read(file: Path) -> Any:
    try:
        return _Arrays(read_bytes(file), file).load()
    except InputError:
        raise
    except Exception as e:
        first = (str(e).splitlines() or [""])[0]
        raise InputError(f"{file}: cannot be read: {type(e).__name__}: {first}") from None


class _Arrays(pickle._Unpickler):  # type: ignore[name-defined, misc]  # the one in C makes room as a file says
    def __init__(self, content: bytes, file: Path) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAYS:
            return _ARRAYS[module, name]
        if module in _MODULES and name == "_reconstruct":
            return _empty
        raise InputError(
            f"{self._file}: names {module}.{name}, which is no part of CIFAR's archive; nothing of it was run"
        )


def _empty(kind: Any, shape: Any, dtype: Any) -> np.ndarray:
    """The array that is filled next, and gets its shape then: no room is made for one that a file speaks of."""
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)
