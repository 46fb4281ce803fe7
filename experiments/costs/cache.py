"""Costs that are kept on disk, by the provider, its settings and the arch."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.documents import exists, is_file
from models.errors import InputError
from spaces.space import Arch

from .base import CostProvider

# A provider is asked for so many archs before they are kept.
_PIECE = 256
_WAIT_SECONDS = 60
_SCHEMA = """
CREATE TABLE IF NOT EXISTS providers (id INTEGER PRIMARY KEY, described TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS costs (
    provider INTEGER NOT NULL REFERENCES providers (id), arch TEXT NOT NULL, cost REAL NOT NULL,
    PRIMARY KEY (provider, arch)
) WITHOUT ROWID;
"""


class Cached:
    """A provider that is asked only for what nobody has asked it before.

    Several processes may use one file. Where two of them measure the same arch, both go on with the figure that was
    kept first. It is SQLite's, whose values are plain numbers: a file from elsewhere can do no more than be wrong.
    """

    def __init__(self, provider: CostProvider, path: str | Path) -> None:
        self.provider, self.path = provider, Path(path)
        self.name, self.unit, self.settings = provider.name, provider.unit, provider.settings
        kind = f"{type(provider).__module__}.{type(provider).__qualname__}"
        self._described = canonical({"provider": kind, "name": self.name, "settings": self.settings})
        if exists(self.path) and not is_file(self.path):
            raise InputError(f"{path}: cannot be used as a cache of costs: no file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._database() as database:
            database.executescript(_SCHEMA)
            database.execute("INSERT INTO providers (described) VALUES (?) ON CONFLICT DO NOTHING", (self._described,))
            found = database.execute("SELECT id FROM providers WHERE described = ?", (self._described,)).fetchone()
            self._id: int = found[0]

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """The cost of each arch; what is asked for is kept piece by piece."""
        keys = [canonical(arch) for arch in archs]
        missing = dict(zip(keys, archs, strict=True))
        known = self._read(missing)
        for key in known:
            del missing[key]
        pending = list(missing.items())
        for start in range(0, len(pending), _PIECE):
            piece = dict(pending[start : start + _PIECE])
            costs = self.provider(list(piece.values()))
            rows = [(self._id, key, float(cost)) for key, cost in zip(piece, costs, strict=True)]
            with self._database() as database:
                database.executemany("INSERT INTO costs VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)
            known.update(self._read(piece))
        return [known[key] for key in keys]

    def _read(self, keys: Mapping[str, Arch]) -> dict[str, float]:
        query = "SELECT cost FROM costs WHERE provider = ? AND arch = ?"
        with self._database() as database:
            found = {key: database.execute(query, (self._id, key)).fetchone() for key in keys}
        return {key: row[0] for key, row in found.items() if row is not None}

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        # Opened anew each time: a connection does not survive a fork, nor another thread.
        try:
            database = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
            try:
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.Error as e:
            raise InputError(f"{self.path}: cannot be used as a cache of costs: {e}") from None


def canonical(value: Any) -> str:
    """Plain data as text, equal for equal data whatever the order of its keys."""
    return json.dumps(_listed(value), separators=(",", ":"), ensure_ascii=False)


def _listed(value: Any) -> Any:
    """Mappings as sorted pairs: JSON's keys are all text, those of a YAML are not."""
    if isinstance(value, Mapping):
        return {"": sorted(([_listed(k), _listed(v)] for k, v in value.items()), key=lambda pair: json.dumps(pair[0]))}
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value
