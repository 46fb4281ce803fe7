"""Whose files may run code: the user's own. What lies in a run's folder may be somebody else's.

A run notes down the files of its options that run code, each with its hash, and seals the note: a keyed hash of it and
of the place where the folder lies. The key never leaves the user's home, so that nobody else can write a seal.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Note = dict[str, list[str]]
"""Path, as an option has it, to the absolute path and the hash of the file."""

_KEY_BYTES = 32
_given = False


def trust(on: bool = True) -> None:
    """What ``--trust`` says: in this process, the folders of runs may run code."""
    global _given
    _given = on


def is_trusted() -> bool:
    """Whether `trust` was said."""
    return _given


def noted(paths: Iterable[str]) -> Note:
    """What a run notes down of files that run code; those that are none are left out."""
    files = {path: Path(path).resolve() for path in paths}
    return {path: [str(f), _hash(f)] for path, f in files.items() if f.is_file()}


def is_as_noted(file: str, hash: str) -> bool:
    """Whether a file lies where it lay, and is what it was."""
    return Path(file).is_file() and hmac.compare_digest(_hash(Path(file)), hash)


def seal(folder: Path, note: Note) -> str | None:
    """Of a run's note, as this user's; None where there is no home to keep a key in."""
    key = _key()
    content = json.dumps([str(folder.resolve()), sorted(note.items())]).encode()
    return None if key is None else hmac.new(key, content, hashlib.sha256).hexdigest()


def own_note(folder: Path, content: Mapping[str, Any]) -> Note | None:
    """The note in a run's config.yaml; None if another than this user wrote it, or of a folder at another place."""
    note, found = content.get("code"), content.get("seal")
    if not isinstance(note, dict) or not isinstance(found, str):
        return None
    entries = [[path, *entry] for path, entry in note.items() if isinstance(entry, list)]
    if len(entries) < len(note) or not all(len(e) == 3 and all(isinstance(t, str) for t in e) for e in entries):
        return None
    right = seal(folder, note)
    return note if right is not None and hmac.compare_digest(right.encode(), found.encode()) else None


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _key() -> bytes | None:
    """This user's; made when it is first wanted."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        path = Path(state).expanduser() / "nas-yolov5" / "key"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Whole before it has its name: another process may be at the same point.
            temporary = path.with_name(f"{os.getpid()}.{secrets.token_hex(4)}")
            try:
                with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
                with suppress(FileExistsError):
                    os.link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        key = path.read_bytes()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    return key if len(key) == _KEY_BYTES else None
