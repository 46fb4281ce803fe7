"""A folder that one process works in at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.errors import InputError

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, no other process of this or, on a network file system, of any machine gets in.

    The system gives the lock back when this process ends, however it ends, and forks do not have it.

    Raises
    ------
    InputError
        Another process is in; says which.
    """
    path = folder / NAME
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
            os.close(handle)
            if e.errno in (errno.EACCES, errno.EAGAIN):
                who = f"process {holder}" if holder else "another process"
                raise InputError(
                    f"{folder}: {who} works in it; right would be to wait for its end, or another --name"
                ) from None
            yield  # a file system without locks
            return
        # Who had it before may have removed it in the meantime.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)
    try:
        with suppress(OSError):  # a full disk: the name is for the message alone
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
