"""What a file of torch.save holds beside tensors, read without torch and without running anything that it names.

Before PyTorch reads a file it has come through here: no entry of the archive is larger than what lies there, no
container is the key of another (whose hash may take years), and what is named again and again does not stand for more
than a program could walk over.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

from . import limits
from .documents import check_plain, is_file
from .errors import InputError

_ZIP = b"PK\x03\x04"
_KEYS = (str, int, float, bytes, type(None))
_SETS = (("builtins", "set"), ("builtins", "frozenset"), ("__builtin__", "set"), ("__builtin__", "frozenset"))


class Nothing:
    """Stands for whatever is neither a plain value nor a container."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def plain_content(path: str | Path) -> dict[str, Any]:
    """What a file of `torch.save` holds beside tensors; empty if it is no such file."""
    try:
        content = checked_content(path)
    except (InputError, OSError):  # who reads it says what is wrong
        return {}
    return content if isinstance(content, dict) else {}


def checked_content(path: str | Path) -> Any:
    """What a file of `torch.save` holds, with `Nothing` for tensors.

    Raises
    ------
    InputError
        The file is missing, damaged, none of `torch.save`, or more than such a file can be.
    """
    if not is_file(path):
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            if file.read(4) == _ZIP:  # which has its list of contents at its end
                raise InputError(f"{path}: cut off, after {size:,} bytes; right would be to copy it anew")
        raise InputError(
            f"{path}: not a file of torch.save, or one of PyTorch before 1.6; right would be one saved again with a "
            "newer PyTorch"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries, size = archive.infolist(), Path(path).stat().st_size
            if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > size:
                raise InputError(f"{path}: not a file of torch.save: its entries are compressed, or lie in one another")
            entry = next((e for e in entries if e.filename.endswith("/data.pkl")), None)
            if entry is None:
                raise InputError(f"{path}: not a file of torch.save: it has no data.pkl")
            if entry.file_size > limits.PICKLE_BYTES:
                most = f"{limits.PICKLE_BYTES:,} at most"
                raise InputError(f"{path}: its data.pkl has {entry.file_size:,} bytes; such a file's has {most}")
            content = _Plain(archive.read(entry), size).load()
    except InputError as e:
        message = str(e)
        raise InputError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    except Exception as e:  # nearly anything: a damaged pickle fails wherever its bytes happen to lead
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{path}: not a file of torch.save: {first}") from None
    check_plain(content, path, limits.PICKLE_NODES)
    return content


class _Plain(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Reads what is plain in a pickle.

    In Python: the one in C makes room for as many notes as a byte of the file says. Its table of codes is its own, so
    that what is done here instead is done.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    stack: list[Any]

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(io.BytesIO(content))
        self._size = size

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _ordered
        return _set if (module, name) in _SETS else Nothing

    def persistent_load(self, pid: Any) -> Nothing:
        """A tensor's storage: type, key, device, number of elements."""
        number = pid[4] if isinstance(pid, tuple) and len(pid) > 4 else 0
        if not isinstance(number, int) or not 0 <= number <= self._size:
            raise InputError(f"not a file of torch.save: a tensor of {self._size:,} elements does not fit in it")
        return Nothing()

    def _checked(self, load: Any, key_at: slice) -> None:
        for key in self.stack[key_at]:  # type: ignore[attr-defined]
            _check_key(key)
        load(self)

    def load_setitem(self) -> None:
        self._checked(pickle._Unpickler.load_setitem, slice(-2, -1))  # type: ignore[attr-defined]

    def load_setitems(self) -> None:
        self._checked(pickle._Unpickler.load_setitems, slice(0, None, 2))  # type: ignore[attr-defined]

    def load_dict(self) -> None:
        self._checked(pickle._Unpickler.load_dict, slice(0, None, 2))  # type: ignore[attr-defined]

    def load_additems(self) -> None:
        self._checked(pickle._Unpickler.load_additems, slice(0, None))  # type: ignore[attr-defined]

    def load_frozenset(self) -> None:
        self._checked(pickle._Unpickler.load_frozenset, slice(0, None))  # type: ignore[attr-defined]

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset


def _check_key(key: Any) -> None:
    plain = isinstance(key, (*_KEYS, Nothing))
    if not plain and not (isinstance(key, tuple) and len(key) < 100 and all(isinstance(k, _KEYS) for k in key)):
        raise InputError(f"not a file of torch.save: a {type(key).__name__} is the key of a container")


def _ordered(*args: Any) -> OrderedDict[Any, Any]:
    if args:
        raise InputError("not a file of torch.save: an OrderedDict that is made of something")
    return OrderedDict()


def _set(items: Any = ()) -> set[Any]:
    for item in items:
        _check_key(item)
    return set(items)
