"""Where studies are kept: an SQLite file, a PostgreSQL server, or a journal file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from models.errors import InputError

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it reports every study and trial on its own

_WAIT_SECONDS = 120


def open_storage(url: str | None) -> BaseStorage:
    """The storage of a URL.

    Parameters
    ----------
    url
        ``sqlite:///study.db``, ``postgresql://user@host/database``, ``journal:study.log``, which also serves several
        machines on a network file system, or None for this process' memory.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    if url is None:
        return InMemoryStorage()
    scheme, _, rest = url.partition(":")
    try:
        if scheme == "journal" and rest:
            Path(rest).parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(rest))
        if scheme == "sqlite" and rest.startswith("///"):
            Path(rest.removeprefix("///")).parent.mkdir(parents=True, exist_ok=True)
            # Workers wait for one another.
            options: dict[str, Any] = {"connect_args": {"timeout": _WAIT_SECONDS}}
            return RDBStorage(url, engine_kwargs=options)
        if scheme.partition("+")[0] in ("postgresql", "mysql"):
            return RDBStorage(_with_driver(url), engine_kwargs={"pool_pre_ping": True})
    except (ImportError, OSError, SQLAlchemyError) as e:
        raise InputError(f"--storage {_shown(url)}: {(str(e).splitlines() or [type(e).__name__])[0]}") from e
    raise InputError(
        f"--storage {_shown(url)}: right would be sqlite:///study.db, journal:study.log or postgresql://user@host/database"
    )


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
    except SQLAlchemyError:
        return url
