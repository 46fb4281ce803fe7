"""Policy-based reinforcement learning: proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347, section 3)
on the controller of ENAS. NNI's own wants tianshou and gym, which are dead."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from ..search.controller import Controller
from .strategy import Arch, Indices, MultiTrialStrategy, Trial


class PolicyBasedRL(MultiTrialStrategy):
    """A controller draws the archs and learns from their metrics.

    It draws one arch for each free worker and learns whenever so many trials have ended, whichever policy they were
    drawn from: the ratio of probabilities accounts for that, so no worker waits for a batch to end. An arch that it
    draws again is not trained again, its metric is learned again; where it draws little else, the nearest arch that is
    new is trained.

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
    seed, dedup, feasible
        See `MultiTrialStrategy`.
    """

    _redrawn = 8
    _baseline_decay = 0.8

    def __init__(
        self,
        *,
        samples_per_update: int = 10,
        epochs_per_update: int = 5,
        lr: float = 5e-3,
        entropy_weight: float = 1e-3,
        clip: float = 0.2,
        seed: int | None = None,
        dedup: bool = True,
        feasible: Callable[[Arch], bool] | None = None,
    ) -> None:
        super().__init__(seed=seed, dedup=dedup, feasible=feasible)
        self.samples_per_update, self.epochs_per_update = samples_per_update, epochs_per_update
        self.lr, self.entropy_weight, self.clip = lr, entropy_weight, clip

    def start(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.controller = Controller(self.sizes)
        self._optimizer = torch.optim.Adam(self.controller.parameters(), self.lr)
        self._baseline: float | None = None
        self._known: dict[Indices, float] = {}
        self._drawn_with: dict[int, float] = {}  # trial number to log-probability
        self._batch: list[tuple[Indices, float, float]] = []  # arch, its log-probability when drawn, its metric

    def propose(self) -> Indices | None:
        for _ in range(self._redrawn):
            with torch.no_grad():
                drawn, log_prob, _ = self.controller.sample(generator=self._generator)
            indices: Indices = tuple(drawn[0].tolist())
            if self.usable(indices):
                self._drawn_with[len(self._trials)] = log_prob.item()
                return indices
            if indices in self._known:
                self._collect(indices, log_prob.item(), self._known[indices])
        return self.neighbour(indices)  # not of the policy, so not learned from

    def learn(self, trial: Trial) -> None:
        log_prob = self._drawn_with.pop(trial.number, None)
        if trial.values is not None:
            self._known[trial.indices] = trial.values[0]
            if log_prob is not None:
                self._collect(trial.indices, log_prob, trial.values[0])

    def _collect(self, indices: Indices, log_prob: float, metric: float) -> None:
        self._batch.append((indices, log_prob, metric))
        if len(self._batch) == self.samples_per_update:
            self._update(*zip(*self._batch, strict=True))
            self._batch.clear()

    def _update(self, archs: tuple[Indices, ...], log_probs: tuple[float, ...], metrics: tuple[float, ...]) -> None:
        mean = statistics.fmean(metrics)
        self._baseline = mean if self._baseline is None else self._baseline
        self._baseline += (1 - self._baseline_decay) * (mean - self._baseline)
        # Metrics of any scale: accuracies of good archs differ by little.
        scale = statistics.pstdev(self._known.values()) or 1.0
        advantage = torch.tensor([(metric - self._baseline) / scale for metric in metrics])
        indices, before = torch.tensor(archs), torch.tensor(log_probs)
        for _ in range(self.epochs_per_update):
            log_prob, entropy = self.controller.evaluate(indices)
            ratio = (log_prob - before).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
            self._optimizer.zero_grad()
            (-(gain + self.entropy_weight * entropy).mean()).backward()
            self._optimizer.step()
