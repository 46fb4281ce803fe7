"""The prioritised paths of Cream: the best that have been seen, by a moving average of what they reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Path = tuple[int, ...]
# Of a path that is seen again, what the new score weighs at least; before that all that it has count alike.
_NEWEST = 0.2
# As good is what falls short of another by no more than this share of it.
_AS_GOOD = 0.01


@dataclass
class Entry:
    """A path on the board: the index of a value for each decision, what it reached, from how many batches, its cost."""

    path: Path
    score: float
    cost: float
    count: int = 1


class Board:
    """The paths that others learn from (Peng et al. 2020, arXiv:2010.15821, section 3.1), the best first.

    Parameters
    ----------
    size
        Of them at most.
    """

    def __init__(self, size: int) -> None:
        self.size, self.entries = size, list[Entry]()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def see(self, path: Sequence[int], score: float, cost: float) -> None:
        """Note what a path reached on a batch, the more the better.

        One that is on the board moves its average. Another one takes the place of the worst, once the board is full, if
        it is better, or as good and cheaper.
        """
        path = tuple(path)
        known = next((e for e in self.entries if e.path == path), None)
        if known is not None:
            known.score += (score - known.score) * max(1 / (known.count + 1), _NEWEST)
            known.count += 1
        elif len(self.entries) < self.size:
            self.entries.append(Entry(path, score, cost))
        else:
            worst = self.entries[-1]
            as_good = score >= worst.score - _AS_GOOD * abs(worst.score)
            if score > worst.score or (as_good and cost < worst.cost):
                self.entries[-1] = Entry(path, score, cost)
        self.entries.sort(key=lambda e: (-e.score, e.cost))

    def state(self) -> list[dict[str, Any]]:
        """Of a checkpoint."""
        return [asdict(entry) for entry in self.entries]

    def load(self, state: Sequence[dict[str, Any]]) -> None:
        self.entries = [Entry(**{**entry, "path": tuple(entry["path"])}) for entry in state]
