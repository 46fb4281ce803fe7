"""A trained supernet and the studies that search it, as one process sees them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl

from models.errors import InputError
from spaces import CostModel, Decision, Sizes, Space, in_upstream_form
from spaces.kinds import kind_of
from spaces.space import Arch

from ..costs import CostProvider, Latency, parse_range, providers_of, read_costs
from ..run.device import device_of
from ..run.folder import RunFolder
from ..run.lightning import quiet_lightning
from ..search import Domain, Objective, Random, Search, Searcher, evaluate, make_searcher, open_storage, study_of
from ..search.predictor import CANDIDATES, TRUSTED, Predictor
from .folder import supernet_folder
from .options import Options
from .rating import Rating
from .screen import ProxyScreen
from .subnets import SUPERNET, open_supernet, read_archs

Makers = Mapping[str, Callable[[CostModel], CostProvider]]
"""Name of a cost to what makes its provider."""


class SubnetSearch:
    """A supernet, its domain, and the studies of a run: the search, and random search beside it.

    Attributes
    ----------
    space
        Of the whole detectors that archs stand for.
    searches
        Name to search; the run's own is the first.
    """

    def __init__(self, options: Options, run: RunFolder, resume: bool = False) -> None:
        quiet_lightning()
        self.options, self.run = options, run
        rated_by = self.open()
        model = self.task.costs(self.imgsz)
        self.space = model.space
        makers = None if options.costs is None else read_costs(options.costs)
        if options.int8:
            makers = self._of_int8(makers or {}, rated_by)
        self.domain = domain_of(model, self._costs(), options.range, makers, options.upstream_form)
        own_searcher = make_searcher(options.searcher, population=options.population, stride=options.stride)
        self._check(options, own_searcher)
        storage = open_storage(options.storage or study_of(run.path))
        settings: dict[str, Any] = {
            **rated_by,
            "cost_imgsz": self.imgsz,
            "costs": {
                name: {k: v for k, v in p.settings.items() if k != "space"} for name, p in self.domain.providers.items()
            },
        }
        shared: dict[str, Any] = {"budget": options.trials, "seed": options.seed, "storage": storage}
        shared["resumes"] = resume
        if options.first:
            shared["first"] = [*read_archs(options.first, self.space, self.imgsz).values()]
        screen: Any = {}
        if options.predictor != "none":
            costs = [o.name for o in self.objectives[1:]]
            predictor = Predictor(self.domain, costs, options.predictor, self._trust)  # type: ignore[arg-type]
            screen = {"screen": predictor, "screened": CANDIDATES}
            settings["predictor"] = options.predictor
        elif options.screen is not None:
            by, number = options.screen
            about = (self.supernet.space, self.task, by, options.seed, options.device)
            screen = {"screen": ProxyScreen(self.domain, *about, len(self.objectives) > 1), "screened": number}
            settings["screen"] = by
        self.searches = {
            options.searcher: Search(
                self.domain, self.objectives, own_searcher, name=options.study, settings=settings, **shared, **screen
            )
        }
        if options.baseline and options.searcher != "random":
            name = f"{options.study}-random"
            self.searches["random"] = Search(
                self.domain, self.objectives, Random(), name=name, settings=settings, **shared
            )

        if resume:
            self._check_is_whole()

    def _check_is_whole(self) -> None:
        """`InputError` where the run's table has evaluations that its studies have not."""
        table = self.run.path / "subnets.csv"
        if not table.is_file():
            return
        with table.open(newline="", encoding="utf-8") as file:
            told = sum(1 for _ in csv.DictReader(file))
        found = sum(len(search.results()) for search in self.searches.values())
        if found < told:
            raise InputError(
                f"{table}: has {told} evaluations, but its studies have {found}: they were emptied, or are others; "
                "right would be the studies of this run, or a new run"
            )

    def open(self) -> dict[str, Any]:
        """Make task and supernet; what a study's ratings depend on."""
        assert self.options.supernet is not None
        self.folder = supernet_folder(self.options.supernet)
        self.supernet, self.task, self.trained = open_supernet(self.folder, self.options.device)
        self.imgsz, self.metric = self.options.cost_imgsz or self.trained.cost_imgsz, self.task.metric
        rated_by: dict[str, Any] = {"supernet": hashlib.sha256((self.folder / SUPERNET).read_bytes()).hexdigest()[:16]}
        if self.options.int8:
            from .int8 import Int8Slices

            self.int8 = Int8Slices(lambda: self.supernet, self.task, self.options.calibrate)
            rated_by["int8"] = self.options.calibrate
        return rated_by

    def _of_int8(self, makers: Makers, rated_by: dict[str, Any]) -> Makers:
        """What tells costs, those of a file of the file in 8 bits; latency where it is asked for."""
        from .int8 import of_files

        asked = {*self._costs(), *(parse_range(text).name for text in self.options.range), *makers}
        return {name: make for name, make in of_files(makers, self.int8, rated_by).items() if name in asked}

    def rating(self, total: int) -> Rating:
        """What rates `total` archs at most."""
        self.supernet.to(device_of(self.options.device))
        if self.options.int8:
            from .int8 import Int8Rating

            return Int8Rating(self.int8, total)
        return Rating(lambda: self.supernet, self.task, total)

    def _check(self, options: Options, searcher: Searcher) -> None:
        """`InputError` for options that do not go together."""
        here = [name for name, p in self.domain.providers.items() if _is_measured_here(p)]
        if options.workers > 1 and here:
            raise InputError(
                f"--workers {options.workers}: {here[0]} is measured on this machine, where workers would disturb each "
                "other; right would be --workers 1, a table of latencies, or a pool of servers"
            )
        if options.predictor != "none" and searcher.attempts < 2:
            raise InputError(f"--predictor {options.predictor}: {options.searcher} proposes one arch at a time")
        if options.screen is not None and (options.predictor != "none" or searcher.attempts < 2):
            other = f"--predictor {options.predictor}" if options.predictor != "none" else options.searcher
            right = "one of both" if options.predictor != "none" else "another --searcher: it proposes one at a time"
            raise InputError(f"--screen {options.screen[0]} beside {other}: right would be {right}")

    @property
    def objectives(self) -> list[Objective]:
        """The metric first, then costs in the order in which they are named."""
        return [Objective(self.metric, True), *(Objective(name) for name in self._costs())]

    def _costs(self) -> list[str]:
        aliases = self.aliases()
        names = [name for name in self.options.objectives if name.lower() not in aliases]
        if len({*names}) < len(names) or len(self.options.objectives) > len(names) + 1:
            raise InputError(f"--objectives {','.join(self.options.objectives)}: names one twice")
        if len(names) == len(self.options.objectives):
            raise InputError(
                f"--objectives {','.join(names)}: the metric is missing; right would be {self.metric},flops"
            )
        return names

    def aliases(self) -> set[str]:
        """What the metric may be called, in small letters."""
        return {"metric", self.metric.lower(), self.metric.lower().partition("50")[0]}

    def work(self) -> None:
        """Evaluate archs as long as there are any to ask for."""
        total = sum(search.budget - len(search.results()) for search in self.searches.values())
        rating = self.rating(total)
        known: dict[tuple[Any, ...], float] = {}
        with rating:
            for search in self.searches.values():
                # What was rated in the one need not be rated in the other.
                known.update(
                    (tuple(r.arch.items()), r.values[self.metric])
                    for other in self.searches.values()
                    for r in other.results()
                    if r.values
                )
                evaluate(search, self.metric, self._remembering(rating, known), self.record)
                if search.is_empty and self.options.range:
                    ranges = " ".join(f"--range {text}" for text in self.options.range)
                    raise InputError(f"{ranges}: no arch was found within; search_subnets.py --sample-cost shows costs")

    def _remembering(
        self, rate: Callable[[Arch], float], known: dict[tuple[Any, ...], float]
    ) -> Callable[[Arch], float]:
        def remembered(arch: Arch) -> float:
            key = tuple(arch.items())
            if key not in known:
                pl.seed_everything(self.options.seed, verbose=False)
                known[key] = rate(arch)
            return known[key]

        return remembered

    @property
    def record(self) -> dict[str, Any]:
        """What is kept of every rating."""
        return {"seed": self.options.seed, "bn": "calibrated"}

    @staticmethod
    def _trust(count: int, tau: float) -> None:
        used = "used" if tau >= TRUSTED else f"not used (needs {TRUSTED:g})"
        print(
            f"predictor  after {count} archs: rank correlation {tau:.2f} (Kendall, held-out archs), {used}", flush=True
        )


def _is_measured_here(provider: Any) -> bool:
    while hasattr(provider, "provider"):  # such as a cache of another one
        provider = provider.provider
    return isinstance(provider, Latency)


def domain_of(
    model: CostModel,
    costs: Sequence[str],
    ranges: Sequence[str],
    makers: Makers | None = None,
    upstream_form: bool = False,
) -> Domain:
    """What can be asked of a space; `makers` are of more costs, as `experiments.costs.read_costs` gives them.

    In `upstream_form` that is no more than `spaces.in_upstream_form` leaves of it.
    """
    found = [parse_range(text) for text in ranges]
    providers = providers_of([*costs, *(r.name for r in found)], model, makers)
    decisions, ranked = model.space.decisions, dict(Sizes(model).ranked)
    if upstream_form:
        kept = Space(in_upstream_form(model.space.config)).decisions
        fixed = {k: (d.upstream,) for k, d in decisions.items() if k not in kept}
        decisions = {k: Decision(k, fixed[k]) if k in fixed else d for k, d in decisions.items()}
        ranked |= {k: v for k, v in fixed.items() if k in ranked}
    return Domain(decisions, providers, found, kind_of(model.space), ranked, canonical=model.space.canonical)
