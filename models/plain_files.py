"""Files of torch.save that hold tensors and plain containers: written so, and read so that nothing in them is run."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .archives import checked_content
from .errors import InputError
from .files import atomic
from .trust import is_trusted

# An array of numbers, as checkpoints of before 0.5 have them in the state of NumPy's generator: none of these calls
# anything that the file names.
_ARRAYS = ("numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
_HOW = "right would be --trust, if whoever made it may run code here"


def write_plain(content: Any, path: str | Path) -> None:
    """Write to `path` what `load_plain` reads, in place; see `save_plain`."""
    with Path(path).open("wb") as file:  # not by its path: then only torch would know why a disk did not take it
        torch.save(content, file)
    if foreign := [name for name in foreign_globals(path) if name not in _ARRAYS]:
        raise InputError(
            f"{path}: would hold {', '.join(foreign)}; right would be tensors, numbers, text, lists and dictionaries"
        )


def save_plain(content: Any, path: str | Path) -> None:
    """Write a file that `load_plain` reads, atomically.

    Raises
    ------
    InputError
        Something in it is neither a tensor nor plain data; a plug-in's state may be.
    """
    with atomic(path) as temporary:
        write_plain(content, temporary)


def load_plain(path: str | Path, may_trust: bool = False) -> Any:
    """What is in a file of tensors and plain containers, on the CPU.

    Parameters
    ----------
    may_trust
        With ``--trust`` the file may hold all that a pickle can.

    Raises
    ------
    InputError
        The file is missing, damaged or none of `torch.save`; or it names what would have to be run.
    """
    foreign = check_plain(path, may_trust)
    if may_trust and is_trusted():
        return _loaded(path, weights_only=False)
    arrays: list[Any] = []
    if foreign:
        rebuilt = np.empty(0).__reduce__()[0]
        arrays = [np.ndarray, np.dtype, type(np.dtype(np.uint32)), *((rebuilt, name) for name in _ARRAYS[2:])]
    with torch.serialization.safe_globals(arrays):
        return _loaded(path, weights_only=True)


def check_plain(path: str | Path, may_trust: bool = False) -> list[str]:
    """`InputError` where `load_plain` would refuse what the file names; the tensors in it are not looked at."""
    foreign = foreign_globals(path)
    refused = [name for name in foreign if name not in _ARRAYS]
    if refused and not (may_trust and is_trusted()):
        how = f"; {_HOW}" if may_trust else ""
        raise InputError(f"{path}: names {', '.join(refused)}, which would run; nothing of it was run{how}")
    return foreign


def foreign_globals(path: str | Path) -> list[str]:
    """What the pickle in a file of torch.save names beyond tensors and plain containers; none of it is run."""
    checked_content(path)
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    # Nearly anything: a damaged pickle fails wherever its bytes happen to lead.
    except Exception as e:
        raise InputError(f"{path}: not a file of torch.save: {first_line(e)}") from None


def unpickle(content: bytes, what: str | Path) -> Any:
    """What is in a pickle of plain containers alone. With ``--trust`` all that a pickle can hold.

    Raises
    ------
    InputError
        It is damaged, or names what would have to be run.
    """
    try:
        return pickle.loads(content) if is_trusted() else _Strict(content, what).load()
    except InputError:
        raise
    except Exception as e:
        raise InputError(f"{what}: cannot be read: {first_line(e)}") from None


class _Strict(pickle._Unpickler):  # type: ignore[name-defined, misc]  # the one in C makes room as a file says
    def __init__(self, content: bytes, what: str | Path) -> None:
        super().__init__(io.BytesIO(content))
        self.what = what

    def find_class(self, module: str, name: str) -> Any:
        raise InputError(f"{self.what}: names {module}.{name}, which would run; nothing of it was run; {_HOW}")


def _loaded(path: str | Path, weights_only: bool) -> Any:
    try:
        content = torch.load(path, map_location="cpu", weights_only=weights_only)
    except Exception as e:
        raise InputError(f"{path}: not a file of torch.save that can be read: {first_line(e)}") from None
    check_tensors(content, path)
    return content


def check_tensors(content: Any, path: str | Path) -> None:
    """`InputError` if a tensor in plain containers is larger than the numbers that it has in the file."""
    pending, seen = [content], set()
    while pending:
        one = pending.pop()
        if isinstance(one, (dict, list, tuple)):
            if id(one) not in seen:
                seen.add(id(one))
                pending += one.values() if isinstance(one, dict) else one
        elif isinstance(one, Tensor) and not _is_whole(one):
            raise InputError(f"{path}: holds a tensor of {list(one.shape)} that is none of plain numbers")


def _is_whole(tensor: Tensor) -> bool:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
