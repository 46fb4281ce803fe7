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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEY_BYTES = 32
_given = False


def trust(on: bool = True) -> None:
    """What ``--trust`` says: in this process, the folders of runs may run code."""
    global _given
    _given = on


def is_trusted() -> bool:
    """Whether `trust` was said."""
    return _given


def noted(paths: list[str]) -> dict[str, str]:
    """Absolute path of each file to the hash of what is in it; those that are none are left out."""
    files = [Path(p).resolve() for p in paths]
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def seal(folder: Path, note: Mapping[str, str]) -> str | None:
    """Of a run's note, as this user's; None where there is no home to keep a key in."""
    key = _key()
    content = json.dumps([str(folder.resolve()), dict(sorted(note.items()))]).encode()
    return None if key is None else hmac.new(key, content, hashlib.sha256).hexdigest()


def is_own(folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether this user wrote the note of a run's config.yaml, for a folder at this place."""
    note, found = content.get("code"), content.get("seal")
    if not isinstance(note, dict) or not all(isinstance(t, str) for t in (found, *note, *note.values())):
        return False
    right = seal(folder, note)
    return right is not None and hmac.compare_digest(right.encode(), str(found).encode())


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
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass
            finally:
                temporary.unlink(missing_ok=True)
        key = path.read_bytes()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    return key if len(key) == _KEY_BYTES else None
