"""Where studies are kept: an SQLite file, a PostgreSQL server, a journal file, or what Optuna's gRPC proxy has."""

from __future__ import annotations

import importlib.util
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from models.documents import exists, is_file
from models.errors import InputError

_WAIT_SECONDS = 120
_PROXY_SECONDS = 10
_ATTEMPTS = 5


def study_of(folder: Path) -> str:
    """The URL of the studies that a run keeps in its folder."""
    path = folder / "study.db"
    if "?" in str(path):
        raise InputError(f"{path}: a '?' begins the options of a database; right would be another --name or --project")
    return f"sqlite:///{path}"


def open_storage(url: str | None) -> BaseStorage:
    """The storage of a URL.

    Parameters
    ----------
    url
        ``sqlite:///study.db``, ``postgresql://user@host/database``, ``journal:study.log``, which also serves several
        machines on a network file system, ``grpc://host:13000``, where Optuna's `run_grpc_proxy_server` runs, or None
        for this process' memory.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    if url is None:
        return InMemoryStorage()
    scheme, _, rest = url.partition(":")
    try:
        _check_file(rest.removeprefix("///") if scheme == "sqlite" else rest if scheme == "journal" else "")
        if scheme == "journal" and rest:
            Path(rest).parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(rest))
        if scheme == "sqlite" and rest.startswith("///"):
            Path(rest.removeprefix("///")).parent.mkdir(parents=True, exist_ok=True)
            # Workers wait for one another.
            return _database(url, {"connect_args": {"timeout": _WAIT_SECONDS}})
        if scheme.partition("+")[0] in ("postgresql", "mysql"):
            return _database(_with_driver(url), {"pool_pre_ping": True})
        host, _, port = rest.removeprefix("//").rpartition(":")
        if scheme == "grpc" and host and port.isdecimal():
            return _proxy(host, int(port))
    except InputError:
        raise
    # Drivers, SQLAlchemy and Optuna have their own ways with what is no URL, and with files of others or of another
    # version.
    except Exception as e:
        raise InputError(f"--storage {_shown(url)}: {(str(e).splitlines() or [type(e).__name__])[0]}") from e
    raise InputError(
        f"--storage {_shown(url)}: right would be sqlite:///study.db, journal:study.log, "
        "postgresql://user@host/database or grpc://host:port"
    )


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Within, a storage that fails, such as one on a full disk, is an `InputError` that says why."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as e:
        why = e
        while why.__cause__ is not None:
            why = why.__cause__  # type: ignore[assignment]
        raise InputError(f"--storage {_shown(url)}: {(str(why).splitlines() or [type(why).__name__])[0]}") from None


def _check_file(path: str) -> None:
    """`InputError` if this is there and no file: to open a pipe waits for ever."""
    path = path.partition("?")[0]
    if path and exists(path) and not is_file(path):
        raise InputError(f"--storage: {path} is no file; right would be sqlite:///study.db or journal:study.log")


def _proxy(host: str, port: int) -> BaseStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=host, port=port)
    try:
        proxy.wait_server_ready(_PROXY_SECONDS)
    except ConnectionError:
        proxy.close()
        raise ConnectionError("no proxy of Optuna answers; right would be a running run_grpc_proxy_server") from None
    return proxy


def _database(url: str, options: dict[str, Any]) -> RDBStorage:
    """A database, whose tables other workers may be making at the same time: they fail where another one was faster."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except SQLAlchemyError as e:
            if not isinstance(e, IntegrityError) and "exists" not in str(e):
                raise
            time.sleep(random.uniform(0.1, 0.5))
    return RDBStorage(url, engine_kwargs=options)


def _with_driver(url: str) -> str:
    """`url`, with psycopg 3 where it is installed and no driver is named: SQLAlchemy's own choice is psycopg 2."""
    if url.startswith("postgresql:") and importlib.util.find_spec("psycopg"):
        return f"postgresql+psycopg{url.removeprefix('postgresql')}"
    return url


def _shown(url: str) -> str:
    """`url` without its password."""
    from sqlalchemy.engine import make_url

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        return url
