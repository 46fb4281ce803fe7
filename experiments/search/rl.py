"""Policy-based reinforcement learning: proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347, section 3)
on the controller of ENAS. NNI's own wants tianshou and gym, which are dead."""

from __future__ import annotations

import statistics
from collections.abc import Collection

import torch

from .base import Evaluated, Question, Searcher, check_positive
from .controller import Controller
from .domain import Domain, Indices

_REDRAWN = 8
_BASELINE_DECAY = 0.8


class RL(Searcher):
    """A controller draws the archs and learns from their metrics.

    It learns whenever so many evaluations have ended, whichever policy they were drawn from: the ratio of probabilities
    accounts for that, so no worker waits for a batch to end. An arch that it draws again is not evaluated again, its
    metric is learned again; where it draws little else, the nearest arch that is new is evaluated, and not learned
    from.

    Parameters
    ----------
    samples_per_update
        Results for each update of the policy.
    epochs_per_update
        Steps of Adam in each update.
    lr
        Of Adam.
    entropy_weight
        See `controller.Reinforce`.
    clip
        The ratio of probabilities is clipped to 1 - clip … 1 + clip.
    """

    attempts = 1
    most_objectives = 1

    def __init__(
        self,
        samples_per_update: int = 10,
        epochs_per_update: int = 5,
        lr: float = 5e-3,
        entropy_weight: float = 1e-3,
        clip: float = 0.2,
    ) -> None:
        self.samples_per_update, self.epochs_per_update = samples_per_update, epochs_per_update
        self.lr, self.entropy_weight, self.clip = lr, entropy_weight, clip
        check_positive(samples_per_update=samples_per_update, epochs_per_update=epochs_per_update)

    def propose(self, question: Question) -> Indices | None:
        return self.memory(question.domain, lambda: _Policy(self, question)).next(question)


class _Policy:
    """A controller and what it has learned so far, in the order in which the archs were asked for."""

    def __init__(self, of: RL, question: Question) -> None:
        self._of = of
        self._generator = torch.Generator().manual_seed(question.seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(question.seed)
            self._controller = Controller(question.domain.sizes)
        self._optimizer = torch.optim.Adam(self._controller.parameters(), of.lr)
        self._baseline: float | None = None
        self._learned = set[Indices]()
        self._drawn_with: dict[Indices, float | None] = {}  # log-probability; None of what the policy did not draw
        self._known: dict[Indices, float] = {}
        self._batch: list[tuple[Indices, float, float]] = []  # arch, its log-probability when drawn, its metric

    def next(self, question: Question) -> Indices:
        history = question.history
        for number, one in enumerate(history.evaluated):
            if one.indices in self._learned:
                continue
            if one.indices not in self._drawn_with:  # in another process, after the same archs
                self._draw(question.domain, {e.indices for e in history.evaluated[:number]})
                self._drawn_with.setdefault(one.indices, None)
            self._learn(one)
        return self._draw(question.domain, history.seen)

    def _draw(self, domain: Domain, seen: Collection[Indices]) -> Indices:
        for _ in range(_REDRAWN):
            with torch.no_grad():
                drawn, log_prob, _ = self._controller.sample(generator=self._generator)
            arch: Indices = domain.canonical(tuple(drawn[0].tolist()))
            if arch != tuple(drawn[0].tolist()):
                with torch.no_grad():
                    log_prob, _ = self._controller.evaluate(torch.tensor([arch]))
            if arch not in seen and domain.feasible(arch):
                self._drawn_with[arch] = log_prob.item()
                break
            if arch in self._known:
                self._collect(arch, log_prob.item(), self._known[arch])
        return arch

    def _learn(self, one: Evaluated) -> None:
        self._learned.add(one.indices)
        if one.losses is not None:
            self._known[one.indices] = metric = -one.losses[0]
            if (log_prob := self._drawn_with[one.indices]) is not None:
                self._collect(one.indices, log_prob, metric)

    def _collect(self, arch: Indices, log_prob: float, metric: float) -> None:
        self._batch.append((arch, log_prob, metric))
        if len(self._batch) == self._of.samples_per_update:
            self._update(*zip(*self._batch, strict=True))
            self._batch.clear()

    def _update(self, archs: tuple[Indices, ...], log_probs: tuple[float, ...], metrics: tuple[float, ...]) -> None:
        mean = statistics.fmean(metrics)
        self._baseline = mean if self._baseline is None else self._baseline
        self._baseline += (1 - _BASELINE_DECAY) * (mean - self._baseline)
        # Metrics of any scale: accuracies of good archs differ by little.
        scale = statistics.pstdev(self._known.values()) or 1.0
        advantage = torch.tensor([(metric - self._baseline) / scale for metric in metrics])
        indices, before = torch.tensor(archs), torch.tensor(log_probs)
        for _ in range(self._of.epochs_per_update):
            log_prob, entropy = self._controller.evaluate(indices)
            ratio = (log_prob - before).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self._of.clip, 1 + self._of.clip) * advantage)
            self._optimizer.zero_grad()
            (-(gain + self._of.entropy_weight * entropy).mean()).backward()
            self._optimizer.step()
