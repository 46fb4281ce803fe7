"""Plain networks trained alike after a search: what it found, upstream's, and random ones."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from models.errors import InputError
from spaces import Space

from ..run.callbacks import EpochLine, History
from ..run.folder import RunFolder
from ..tasks.task import SearchTask
from .derive import Arch, Budget

_FILE = "retrained.json"
# Of a narrow space so many draws are enough to say that it has no more.
_DRAWS_AN_ARCH = 1000


class Retraining:
    """Trains one network after another for the same steps from the same seed.

    What is done stands in ``retrained.json``, so that a resumed run goes on behind it.
    """

    def __init__(self, task: SearchTask, run: RunFolder, epochs: int, seed: int, resume: bool = False) -> None:
        self.task, self.run, self.epochs, self.seed = task, run, epochs, seed
        path = run.path / _FILE
        self.done: dict[str, float] = json.loads(path.read_text()) if resume and path.exists() else {}

    def __call__(self, name: str, cfg: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None) -> float:
        """Train the network of a frozen YAML, from `weights` if they are given; its metric on unseen data."""
        if name not in self.done:
            pl.seed_everything(self.seed, verbose=False)
            network = self.task.network(cfg)
            if weights is not None:
                network.load_state_dict(weights)
            callbacks = [History(self.run.path / f"metrics_{name}.csv"), EpochLine(f"{name:<9}")]
            self.done[name] = self.task.train(network, self.epochs, callbacks)
            self.run.write_json(_FILE, self.done)
        return self.done[name]


def random_archs(space: Space, number: int, seed: int, budget: Budget | None) -> list[Arch]:
    """So many different archs, drawn uniformly from those within the budget."""
    rng = random.Random(seed)
    found: list[Arch] = []
    for _ in range(_DRAWS_AN_ARCH * number):
        if len(found) == number:
            return found
        arch = space.sample(rng)
        if arch not in found and (budget is None or budget.feasible([arch])[0]):
            found.append(arch)
    if len(found) == number:
        return found
    raise InputError(f"--random-archs {number}: only {len(found)} random archs within the limits were found")
