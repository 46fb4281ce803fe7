"""A zero-cost proxy that chooses among proposed archs, where it knows more than cost and depth do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from spaces import Space

from ..proxies.probe import Probe
from ..run.device import device_of
from ..search import Domain
from ..search.base import History
from ..search.domain import Indices
from ..search.fidelity import BANDS, cost_bands, tau_within
from ..tasks.task import SearchTask

_FIRST, _EVERY = 50, 25
_TRIVIAL = ("flops", "blocks")


class ProxyScreen:
    """Takes, of several archs, the one with the best score for its cost.

    It is asked only while it ranks the evaluated archs better than FLOPs and the number of blocks do, within bands of
    FLOPs: after 50 evaluations and every 25 after that, which it says. Else the first arch is taken, as without it.

    Parameters
    ----------
    space, task
        Of the networks that are rated.
    proxy
        Name in the registry.
    for_its_cost
        Whether a score counts by its rank among evaluated archs of about as many FLOPs, where cost is an objective of
        its own; else as it is.
    """

    def __init__(
        self, domain: Domain, space: Space, task: SearchTask, proxy: str, seed: int, device: str, for_its_cost: bool
    ) -> None:
        self.domain, self.proxy, self.seed, self.for_its_cost = domain, proxy, seed, for_its_cost
        self._space, self._task, self._device = space, task, device_of(device)
        self._probe: Probe | None = None
        self._scores: dict[tuple[str, Indices], float] = {}
        self._trusted: dict[int, bool] = {}

    def __call__(self, history: History, archs: Sequence[Indices]) -> Indices:
        count = len(history.good) // _EVERY * _EVERY
        if count < _FIRST or not self.is_trusted(history, count):
            return archs[0]
        scores = np.array([self.score(self.proxy, a) for a in archs])
        if self.for_its_cost:
            known = np.array([self.score(self.proxy, a) for a in history.good[:count]])
            flops = np.array(self.domain.cost("flops", history.good[:count]))
            near = [
                known[np.argsort(np.abs(flops - f), kind="stable")[: count // BANDS]]
                for f in self.domain.cost("flops", archs)
            ]
            scores = np.array([(s > n).mean() + 0.5 * (s == n).mean() for s, n in zip(scores, near, strict=True)])
        return archs[int(scores.argmax())]

    def is_trusted(self, history: History, count: int) -> bool:
        """Whether the proxy ranks the first `count` archs better than the trivial ones, within bands of FLOPs."""
        if count not in self._trusted:
            archs = history.good[:count]
            truth, bands = -history.losses[:count, 0], cost_bands(np.array(self.domain.cost("flops", archs)))
            taus = {
                name: tau_within(truth, np.array([self.score(name, a) for a in archs]), bands)
                for name in dict.fromkeys((self.proxy, *_TRIVIAL))
            }
            others = [taus[name] for name in _TRIVIAL if name != self.proxy]
            self._trusted[count] = taus[self.proxy] > max(0, *others)
            said = ", ".join(f"{name} {tau:.2f}" for name, tau in taus.items())
            used = f"{self.proxy} is {'' if self._trusted[count] else 'not '}used"
            print(f"screen  after {count} archs: {said} (Kendall, in {BANDS} bands of FLOPs): {used}", flush=True)
        return self._trusted[count]

    def score(self, name: str, arch: Indices) -> float:
        """Of an arch by a proxy, with weights of the seed; -inf where there is none."""
        if name == "flops":
            return self.domain.cost("flops", [arch])[0]
        if (name, arch) not in self._scores:
            self._probe = self._probe or Probe(self._task, self._device)
            cfg = self._space.freeze(self.domain.arch(arch))
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                score = self._probe.score(name, cfg)
            self._scores[name, arch] = -np.inf if np.isnan(score) else score
        return self._scores[name, arch]
