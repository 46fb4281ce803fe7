"""Plain networks trained alike after a search: what it found, upstream's, and random ones of the same cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from models.documents import read_json
from models.network import Network
from models.schemas import Retrained
from spaces import CostModel, Space
from spaces.space import Arch

from ..run.callbacks import EpochLine, History
from ..run.folder import RunFolder
from ..tasks.task import SearchTask
from ..training.fit import train_alone
from .derive import Budget
from .options import Options

_FILE = "retrained.json"
SAME_COST = 0.05  # archs whose FLOPs differ by no more are compared
_WALKS_AN_ARCH, _STEPS_A_WALK = 50, 200


class Retraining:
    """Trains one network after another for the same steps, on the same images, from the same seeds.

    All training images are trained on, those of the architecture too: it is decided.
    What is done stands in ``retrained.json``, so that a resumed run goes on behind it.
    """

    def __init__(
        self, task: SearchTask, run: RunFolder, options: Options, epochs: int, accelerator: str, resume: bool = False
    ) -> None:
        self.task, self.run, self.options, self.epochs, self.accelerator = task, run, options, epochs, accelerator
        path = run.path / _FILE
        self.done: dict[str, float] = (
            Retrained.of(read_json(path), path).model_dump() if resume and path.exists() else {}
        )

    def has_done(self, name: str, start: str) -> bool:
        """Whether the first seed's network was trained before a resume."""
        return _title(name, start) in self.done

    def __call__(
        self,
        name: str,
        start: str,
        cfg: Mapping[str, Any],
        weights: Mapping[str, Tensor] | None = None,
        then: Callable[[Network], None] = lambda network: None,
    ) -> list[float]:
        """Train the network of a frozen YAML from each seed; its metric on unseen data.

        Parameters
        ----------
        start
            ``inherited``: its weights are a trained supernet's; or ``scratch``.
        weights
            What it begins with; noise if they are None.
        then
            Is given the first seed's network, with batch norm statistics of all batches.
        """
        title, finetunes = _title(name, start), start == "inherited"
        return [self._once(title, i, cfg, weights, finetunes, then) for i in range(self.options.seeds)]

    def _once(
        self,
        name: str,
        number: int,
        cfg: Mapping[str, Any],
        weights: Mapping[str, Tensor] | None,
        finetunes: bool,
        then: Callable[[Network], None],
    ) -> float:
        name = f"{name}_{number + 1}" if number else name
        if name not in self.done:
            seed = self.options.seed + number
            pl.seed_everything(seed, verbose=False)
            network = self.task.network(cfg)
            if weights is not None:
                network.load_state_dict(weights)
            callbacks = [History(self.run.path / f"metrics_{name}.csv"), EpochLine(f"{name:<9}")]
            given: Any = {"batch": self.options.batch, "part": "all", "seed": seed, "finetunes": finetunes}
            train_alone(self.task, network, self.options, self.epochs, self.accelerator, callbacks, **given)
            trained = self.task.calibrated(network)
            metric = self.task.measure(trained, calibrated=False)
            if number == 0:
                then(trained)
            self.done[name] = metric
            self.run.write_json(_FILE, self.done)
        return self.done[name]


def _title(name: str, start: str) -> str:
    return f"{name}_inherited" if start == "inherited" else name


def random_archs(
    space: Space, costs: CostModel, like: Arch, number: int, seed: int, budget: Budget | None
) -> list[Arch]:
    """Different random archs whose FLOPs are within 5 % of those of `like`, and that keep the limits.

    Each is a uniform draw, walked towards that cost by random changes of one decision. Fewer than `number` are given
    where no more are found.
    """
    rng, target = random.Random(seed), costs.of(like)["flops"]

    def off(arch: Arch) -> float:
        return abs(costs.of(arch)["flops"] / target - 1)

    found: list[Arch] = []
    for _ in range(_WALKS_AN_ARCH * number):
        if len(found) == number:
            break
        arch = space.sample(rng)
        for _ in range(_STEPS_A_WALK):
            if off(arch) <= SAME_COST:
                break
            label = rng.choice(list(space.decisions))
            changed = {**arch, label: rng.choice(space.decisions[label].values)}
            arch = changed if off(changed) < off(arch) else arch
        fits = off(arch) <= SAME_COST and (budget is None or budget.feasible([arch])[0])
        if fits and arch not in found and arch != like:
            found.append(arch)
    return found
