"""Text files as people's editors leave them: with a byte order mark, or in another encoding than UTF-8."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

from .documents import by_mark, read_bytes
from .errors import InputError

_log = logging.getLogger(__name__)
# Of text without a mark that is not UTF-8. The first is that of Chinese systems and refuses most of what is not; the
# second that of Western Windows.
_GUESSES = ("gb18030", "cp1252")
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "hz": "gb18030", "iso8859-1": "cp1252", "ascii": "utf-8"}


def read_text(path: str | Path, guesses: bool = True) -> str:
    """A text file's content: by its byte order mark, else as UTF-8, else as what it may be, which is warned of.

    Parameters
    ----------
    guesses
        Whether text that is not UTF-8 is taken for another encoding's.

    Raises
    ------
    InputError
        It is in no encoding that is tried.
    OSError
        It cannot be read.
    """
    raw, marked = by_mark(read_bytes(path))
    text, encoding = _decoded(raw, (marked,) if marked else ("utf-8", *(_GUESSES if guesses else ())), path)
    if encoding not in ("utf-8", marked):
        _log.warning("%s: is not UTF-8; read as %s", path, encoding)
    return text


def declared_text(raw: bytes, declared: str | None, path: str | Path) -> str:
    """Text that says its encoding, as XML does; one that Python does not know, or a wrong one, gives way to guesses."""
    raw, marked = by_mark(raw)
    if marked:
        return _decoded(raw, (marked,), path)[0]
    named = []
    try:
        known = codecs.lookup(declared or "utf-8").name
        # Without its mark UTF-16 would have been no text to find a declaration in.
        named = [] if known.startswith(("utf-16", "utf-32")) else [_SUPERSETS.get(known, known)]
        "".encode(known)  # some codecs are not of text
    except (LookupError, ValueError):
        pass
    return _decoded(raw, (*named, "utf-8", *_GUESSES), path)[0]


def _decoded(raw: bytes, encodings: tuple[str, ...], path: str | Path) -> tuple[str, str]:
    """Newlines become Python's."""
    for encoding in encodings:
        try:
            return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n"), encoding
        except (UnicodeDecodeError, LookupError):
            continue
    try:
        raw.decode(encodings[0])
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise InputError(
            f"{path}:{line}: cannot be read as text: byte 0x{raw[e.start]:02x} is not {e.encoding}; right would be "
            "UTF-8"
        ) from None
    raise AssertionError("one of the encodings has failed")
