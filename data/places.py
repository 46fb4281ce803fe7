"""Where the paths that people wrote are looked for: `~`, backslashes, folders of other machines.

A path in a file of annotations is often that of the machine where it was written (`C:\\Users\\me\\set\\images\\a.jpg`,
`/content/set/images/a.jpg`): what is left of it when folders are taken off its front is tried, the longest first.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from models.documents import exists, is_folder

PROJECT = Path(__file__).resolve().parents[1]
_log = logging.getLogger(__name__)


def local(text: str) -> str:
    """The path with slashes; one without a backslash is what it was."""
    return PureWindowsPath(text).as_posix() if "\\" in text else text


def is_foreign(text: str) -> bool:
    """Whether the path begins at the root of a file system, or at a drive."""
    return text.startswith(("/", "~", "\\")) or bool(PureWindowsPath(text).drive)


def direct(text: str, bases: Iterable[Path]) -> list[Path]:
    """The path below each of `bases`, each place once; as it is, if it is absolute. `~` is the home folder."""
    forms = dict.fromkeys([text, local(text)])
    return [*dict.fromkeys(base / home(form) for form in forms for base in bases)]


def home(text: str | Path) -> Path:
    """The path with the home folder for `~`."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user
        return Path(text)


def tails(text: str, bases: Sequence[Path], shortest: int = 1) -> list[Path]:
    """What is left of the path when folders are taken off its front, below each of `bases`; `shortest` parts remain."""
    parts = _parts(text)
    first = 0 if len(parts) < len(PurePosixPath(local(text)).parts) else 1  # without "/", "C:" or ".." it is new
    return [base.joinpath(*parts[i:]) for i in range(first, len(parts) - shortest + 1) for base in bases]


def find(
    text: str,
    bases: Sequence[Path],
    near: Sequence[Path] = (),
    is_right: Callable[[Path], bool] = Path.exists,
    shortest: int = 1,
    where: str = "",
) -> tuple[Path | None, list[Path]]:
    """The first place that `is_right`, and all that were tried.

    bases: where the path is looked for as it stands.
    near: where its tails are; one that is taken is warned of.
    """
    tried = direct(text, bases)
    for place in tried:
        if _true(is_right, place):
            return place, tried
    for place in tails(text, near, shortest):
        if place in tried:
            continue
        tried.append(place)
        if _true(is_right, place):
            if not text.startswith("../"):  # Roboflow's exports count from a folder that is not there
                _log.warning("%s: %s is not here; taken is %s", where, text, place)
            return place, tried
    return None, tried


class Finder:
    """Finds many files whose paths begin alike, as those of a list: the prefix that was taken off is tried first."""

    def __init__(self, bases: Sequence[Path], near: Sequence[Path], where: str):
        self._bases, self._near, self._where = bases, near, where
        self._before: tuple[Path, int] | None = None  # where the last tail lay, and how many parts were taken off

    def __call__(self, text: str) -> Path | None:
        for form in dict.fromkeys([text, local(text)]):
            path = home(form) if form.startswith("~") else Path(form)
            for base in self._bases:
                if _true(Path.is_file, place := base / path):
                    return place
        parts = _parts(text)
        if self._before is not None:
            base, taken = self._before
            place = base.joinpath(*parts[taken:])
            if len(parts) > taken and _true(Path.is_file, place):
                return place
        for taken in range(len(parts)):
            for base in self._near:
                place = base.joinpath(*parts[taken:])
                if _true(Path.is_file, place):
                    if self._before is None:
                        _log.warning("%s: %s is not here; taken is %s, and others alike", self._where, text, place)
                    self._before = base, taken
                    return place
        return None


def listed(places: Iterable[Path]) -> str:
    """The places, for a message."""
    return ", ".join(str(place) for place in places)


def child(folder: Path, name: str) -> Path | None:
    """The file or folder of this name in `folder`, whatever its case; as it is written if that is there."""
    exact = folder / name
    if exists(exact):
        return exact
    if not is_folder(folder):
        return None
    return next((p for p in sorted(folder.iterdir()) if p.name.casefold() == name.casefold()), None)


def _parts(text: str) -> list[str]:
    """Of the path, without root, drive, home and steps upwards."""
    path = PureWindowsPath(text) if "\\" in text or PureWindowsPath(text).drive else PurePosixPath(text)
    return [p for p in path.parts if p not in (path.anchor, "..", "~")]


def _true(is_right: Callable[[Path], bool], place: Path) -> bool:
    try:
        return is_right(place)
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False
