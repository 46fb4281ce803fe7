"""Single paths for the weights (SPOS, Guo et al. 2020, arXiv:1904.00420), and a search of the supernet afterwards."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.documents import parse_json
from models.errors import InputError
from optimizer import calibrate_bn
from spaces.choices import Decision

from ..run.processes import average
from ..search import Domain, Genetic, Objective, Search, Searcher, evaluate, open_storage, study_of
from .base import Context, OneShot, OneShotModule
from .derive import Arch
from .options import Options

# Batches that batch norm statistics are taken from, for every arch that is rated.
_STATISTICS_BATCHES = 20
_TRIES = 1000  # of paths that are drawn until one passes the filter


class SinglePathModule(OneShotModule):
    """One path a step, drawn uniformly (section 3.2); afterwards, the arch that the search found.

    Parameters
    ----------
    filter
        See `SPOS`.
    """

    best: Arch | None = None

    def __init__(self, *args: Any, filter: Callable[[Arch], bool] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filter = filter

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.step_weights((self._loss_of(path, batch, batch_idx) for path in self.paths()), batch_idx)

    def paths(self) -> Iterable[Iterable[int]]:
        """The paths of a step: the index of a value for each decision."""
        path = self._drawn()
        if self.filter is not None:
            for _ in range(_TRIES):
                if self.filter(self.arch_of(path)):
                    return [path]
                path = self._drawn()
            raise InputError(f"none of {_TRIES} paths that were drawn passes the filter; right would be a wider one")
        return [path]

    def arch_of(self, path: Iterable[int]) -> Arch:
        return {label: values[i] for (label, values), i in zip(self.choices.items(), path, strict=True)}

    def _drawn(self) -> list[int]:
        drawn = torch.rand(len(self.choices), dtype=torch.float64, generator=self.generator).tolist()
        return [int(share * len(values)) for share, values in zip(drawn, self.choices.values(), strict=True)]

    def _loss_of(self, path: Iterable[int], batch: Any, batch_idx: int) -> Tensor:
        self.take(path)
        return self.loss(batch, batch_idx)

    def probabilities(self) -> dict[str, Tensor]:
        return {label: torch.full((len(v),), 1 / len(v)) for label, v in self.choices.items()}

    def export(self) -> Arch:
        return super().export() if self.best is None else self.best


class FairModule(SinglePathModule):
    """FairNAS (Chu et al. 2021, arXiv:1907.01845, section 3.3, strict fairness).

    A step takes as many paths as the largest decision has values, and makes one update of their summed gradients. In a
    decision with that many values, each is on exactly one of the paths. Where another has fewer, each is on as many as
    every other, or one more: who has one more is drawn.
    """

    def paths(self) -> Iterable[Iterable[int]]:
        passes = max(len(v) for v in self.choices.values())
        return zip(*(self._column(len(v), passes) for v in self.choices.values()), strict=True)

    def _column(self, size: int, passes: int) -> list[int]:
        """One decision's values on all paths."""
        rounds = [torch.randperm(size, generator=self.generator) for _ in range(-(-passes // size))]
        column: list[int] = torch.cat(rounds)[:passes].tolist()
        return column


class SPOS(OneShot):
    """Uniform single-path training, then an evolutionary search of the supernet (section 3.4).

    Parameters
    ----------
    rate
        Arch to what is to be large, for the search. By default minus the loss on the validation data, after the batch
        norms' statistics were taken anew on the path from training data, as section 3.4 asks.
    searcher, evaluations, seed
        What proposes the archs that are rated, SPOS' own evolution by default; so many of them are; what is drawn.
    storage
        Of the ratings, so that a search that was killed goes on where it was; in memory by default.
    earlier
        File of ratings that earlier versions left behind; what it knows is not rated again.
    filter
        Arch to whether it may be the result, such as a `costs.LatencyFilter`: paths of the training are drawn until one
        passes (those of `FairNAS` are not, which would be fair no longer), and the search looks at no others.
    gradient_clip_val, budget
        See `base.OneShotModule`.
    """

    module_class = SinglePathModule
    bilevel = False

    def __init__(
        self,
        rate: Callable[[Arch], float] | None = None,
        searcher: Searcher | None = None,
        evaluations: int = 1000,
        seed: int = 0,
        storage: str | None = None,
        earlier: Path | None = None,
        filter: Callable[[Arch], bool] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings if filter is None else {**settings, "filter": filter})
        self.filter = filter
        self.rate, self.searcher, self.evaluations, self.seed = rate or self.minus_loss, searcher, evaluations, seed
        self.storage, self.earlier = storage, earlier
        self.rated: list[tuple[Arch, float]] = []

    @classmethod
    def from_options(cls, options: Options, context: Context) -> Self:
        return cls(rate=context.rate, budget=context.budget, **cls.picking(options, context))

    @staticmethod
    def picking(options: Options, context: Context) -> dict[str, Any]:
        """How the supernet is searched."""
        return {
            "searcher": Genetic(options.population),
            "evaluations": options.population * options.generations,
            "seed": options.seed,
            "storage": study_of(context.folder),
            "earlier": context.folder / "ratings.txt",
        }

    def _run(self) -> None:
        super()._run()
        module: Any = self.oneshot_module
        module.to(module.trainer.strategy.root_device)  # Lightning leaves it on the CPU
        supernet = _fingerprint(self.supernet.state_dict())
        alone = module.trainer.world_size == 1  # else all processes search side by side, each in its memory
        found = Search(
            self._domain(),
            [Objective("rating", True)],
            self.searcher or Genetic(),
            budget=self.evaluations,
            seed=self.seed,
            storage=open_storage(self.storage if alone else None),
            name=f"ratings of {supernet[:16]}",
        )
        known = _earlier(self.earlier, supernet) if self.earlier is not None and alone else {}

        def rate(indices: Mapping[str, int]) -> float:
            arch = self._arch_of(indices)
            key = json.dumps(arch, default=str)
            return known[key] if key in known else self._agreed(arch)

        evaluate(found, "rating", rate)
        self.rated = [(self._arch_of(r.arch), r.values["rating"]) for r in found.results() if r.values]
        if not self.rated:
            raise InputError("no arch of the supernet has a rating")
        module.best = max(self.rated, key=lambda pair: pair[1])[0]
        module.activate(module.best)

    def _domain(self) -> Domain:
        """The places of values, which need not be plain, as the budget allows them."""
        budget, passes = self.budget, self.filter or (lambda arch: True)
        decisions = {k: Decision(k, tuple(range(len(v))), names=tuple(map(str, v))) for k, v in self.choices.items()}
        if budget is None and self.filter is None:
            return Domain(decisions)

        def allows(paths: Sequence[Sequence[int]]) -> list[bool]:
            archs = [self._arch_of(dict(zip(decisions, path, strict=True))) for path in paths]
            fits = [True] * len(archs) if budget is None else budget.feasible(archs)
            return [ok and passes(arch) for arch, ok in zip(archs, fits, strict=True)]

        known = []
        if budget is not None and passes(cheapest := budget.cheapest()):
            known = [tuple(values.index(cheapest[label]) for label, values in self.choices.items())]
        return Domain(decisions, allows=allows, known=known)

    def _arch_of(self, indices: Mapping[str, int]) -> Arch:
        return {label: self.choices[label][i] for label, i in indices.items()}

    def _agreed(self, arch: Arch) -> float:
        """The rating's mean over all processes."""
        rating = torch.tensor(self.rate(arch), dtype=torch.float64, device=self.oneshot_module.device)
        average([rating])
        return float(rating)

    @torch.no_grad()
    def minus_loss(self, arch: Arch) -> float:
        """Minus the mean loss of `arch`, cut out of the supernet as it is, on the validation data."""
        try:
            network = self.calibrated(arch)
            losses = [self._loss(network, batch) for batch in _batches(self.loaders[1]())]
        finally:
            self.oneshot_module.training_module.set_model(self.supernet)
        return -float(torch.stack(losses).mean())

    def calibrated(self, arch: Arch) -> nn.Module:
        """`arch`, cut out of the supernet, with batch norm statistics of its own of some training data."""
        batches = _batches(self.loaders[0](), _STATISTICS_BATCHES)
        network: nn.Module = calibrate_bn(self.supernet.freeze(arch), batches, self._loss)
        return network

    def _loss(self, network: nn.Module, batch: Any) -> Tensor:
        module: Any = self.oneshot_module
        module.training_module.set_model(network)
        loss: Tensor = module.quiet_loss(batch)
        return loss


def _fingerprint(state: Mapping[str, Tensor]) -> str:
    """Of a state dict, to know it again by."""
    digest = hashlib.sha256()
    for key, value in state.items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _earlier(path: Path, supernet: str) -> dict[str, float]:
    """The ratings of this supernet in a file: a line that says of which they are, then one for each arch."""
    head, *rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else [""]
    known: dict[str, float] = {}
    for row in rows if head == supernet else ():
        try:
            arch, rating = parse_json(row, path)
            known[str(arch)] = float(rating)
        except (TypeError, ValueError):  # a kill cut it off
            break
    return known


def _batches(loader: Any, count: int | None = None) -> Iterator[Any]:
    """The first batches of a loader, the same ones whenever it is asked."""
    sampler: Any = getattr(loader, "sampler", None)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield from itertools.islice(loader, count)


class FairNAS(SPOS):
    """SPOS with FairNAS' strictly fair training."""

    module_class = FairModule
