"""Some of a set's classes, numbered anew; or all of them as one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.errors import InputError

from .detect_index import Outlines
from .outline import Outline

if TYPE_CHECKING:
    from .detect import ImageSource

ONE_CLASS = ("item",)  # as upstream's --single-cls calls it


def class_numbers(wanted: Sequence[str], names: Mapping[int, str]) -> list[int]:
    """Numbers of the classes that are asked for by name or by number, one a word or several between commas."""
    by_name = {name: number for number, name in names.items()}
    words: list[str] = []
    for text in wanted:
        words += [text] if text in by_name else [part.strip() for part in text.split(",")]
    numbers = []
    for word in words:
        # A name comes first: digits-detect has a class "3".
        number = by_name.get(word, int(word) if word.isdecimal() and len(word) < 10 else -1)
        if number not in names:
            raise InputError(f"--classes {word}: right would be 0 to {len(names) - 1}, or some of {', '.join(by_name)}")
        numbers.append(number)
    return [*dict.fromkeys(numbers)]


def chosen(
    names: tuple[str, ...],
    sources: Mapping[str, "ImageSource"],
    classes: Sequence[str] | None,
    single: bool,
) -> tuple[tuple[str, ...], dict[str, "ImageSource"]]:
    """Names and sources with these classes alone, in the order asked for; `single`: as one class."""
    if classes is None and not single:
        return names, dict(sources)
    numbers = [*range(len(names))] if classes is None else class_numbers(classes, dict(enumerate(names)))
    becomes = np.full(len(names), -1)
    becomes[numbers] = 0 if single else np.arange(len(numbers))
    kept = ONE_CLASS if single else tuple(names[k] for k in numbers)
    return kept, {split: _Chosen(source, becomes) for split, source in sources.items()}


class _Chosen:
    """The images of another source; of each class it has the number that it becomes, -1 for none. See `ImageSource`."""

    def __init__(self, source: "ImageSource", becomes: np.ndarray):
        self._source, self._becomes = source, becomes
        self._take()

    def _take(self) -> None:
        self.labels = [self._of(rows) for rows in self._source.labels]
        self.ignored = [self._of(rows) for rows in self._source.ignored]
        before_chosen = zip(self._source.outlines, self._source.labels, self._source.ignored, strict=True)
        self.outlines = [
            Outlines(self._outlines(found.objects, rows), self._outlines(found.ignored, regions))
            for found, rows, regions in before_chosen
        ]
        boxes, before = sum(map(len, self.labels)), self._source.report
        background = sum(not len(rows) for rows in self.labels)
        # A copy: built-in sets share their images, and what is said of them.
        others = before.others + before.boxes - boxes
        self.report = replace(before, boxes=boxes, background=background, others=others)

    def _of(self, rows: np.ndarray) -> np.ndarray:
        numbers = self._becomes[rows[:, 0].astype(int)]
        taken = rows[numbers >= 0].copy()
        taken[:, 0] = numbers[numbers >= 0]
        return taken

    def _outlines(self, found: list[Outline | None], rows: np.ndarray) -> list[Outline | None]:
        numbers = self._becomes[rows[:, 0].astype(int)].tolist()
        return [outline for outline, number in zip(found, numbers, strict=True) if number >= 0]

    @property
    def shapes(self) -> Sequence[tuple[int, int]]:
        return self._source.shapes

    def name(self, i: int) -> str:
        return self._source.name(i)

    def read(self, i: int) -> np.ndarray:
        return self._source.read(i)

    def drop(self, bad: dict[int, str]) -> None:
        self._source.drop(bad)
        self._take()
