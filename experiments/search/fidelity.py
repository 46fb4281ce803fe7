"""How well a score ranks archs: of a supernet, of a proxy, or of mere size, beside what the archs reach alone.

Ranks are compared by Kendall's tau-b (Kendall 1945, doi:10.1093/biomet/33.3.239), as for supernets in Yu et al. 2020
(arXiv:1902.08142), and also among archs of about one cost: what merely tells large from small ranks well over all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SAMPLES, _CONFIDENCE = 1000, 0.95
BANDS = 5
TOPS = (1, 5, 10)


@dataclass(frozen=True)
class Fidelity:
    """How a score ranks.

    Attributes
    ----------
    tau, low, high
        Kendall's tau-b, and its 95 % interval.
    spearman
        Correlation of the ranks.
    regret
        Number of archs that are taken by the score, to what the best of them lacks of the best of all, in units of the
        truth.
    within
        Tau-b of pairs within bands of the cost; NaN without a cost.
    within_regret
        As `regret`, the mean over bands.
    """

    tau: float
    low: float
    high: float
    spearman: float
    regret: dict[int, float]
    within: float
    within_regret: dict[int, float]


def fidelity(truth: np.ndarray, score: np.ndarray, cost: np.ndarray | None = None, bands: int = BANDS) -> Fidelity:
    """How `score` ranks archs by `truth`; both (n,), the larger the better. `cost` is cut into so many bands."""
    low, high = tau_interval(truth, score)
    regrets = {k: top_regret(truth, score, k) for k in TOPS}
    if cost is None:
        return Fidelity(tau_b(truth, score), low, high, spearman(truth, score), regrets, float("nan"), {})
    parts = cost_bands(cost, bands)
    within = {k: float(np.mean([top_regret(truth[p], score[p], k) for p in parts])) for k in TOPS}
    return Fidelity(
        tau_b(truth, score), low, high, spearman(truth, score), regrets, tau_within(truth, score, parts), within
    )


def tau_b(truth: np.ndarray, score: np.ndarray) -> float:
    """Kendall's tau-b; 0 where one of the two says nothing."""
    return tau_within(truth, score, [np.arange(len(truth))])


def tau_within(truth: np.ndarray, score: np.ndarray, parts: list[np.ndarray]) -> float:
    """Tau-b of all pairs that lie within one of the parts (indices of archs), pooled."""
    agree = ranked = scored = 0.0
    for part in parts:
        a, b = (np.sign(v[part][:, None] - v[part][None, :]) for v in (truth, score))
        agree, ranked, scored = agree + (a * b).sum(), ranked + (a != 0).sum(), scored + (b != 0).sum()
    return float(agree / np.sqrt(ranked * scored)) if ranked and scored else 0.0


def tau_interval(
    truth: np.ndarray,
    score: np.ndarray,
    parts: list[np.ndarray] | None = None,
    samples: int = _SAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % percentile interval of tau-b over archs drawn with replacement (Efron 1979).

    An arch that is drawn twice makes no pair with itself. With `parts` it is the interval of `tau_within`.
    """
    rng, n = np.random.default_rng(seed), len(truth)
    part = np.zeros(n, int)
    for number, members in enumerate(parts or ()):
        part[members] = number
    a, b = (np.sign(v[:, None] - v[None, :]) * (part[:, None] == part) for v in (truth, score))
    products, taus = (a * b, a != 0, b != 0), []
    for _ in range(samples):
        counts = np.bincount(rng.integers(0, n, n), minlength=n)
        agree, ranked, scored = (float(counts @ p @ counts) for p in products)
        taus.append(agree / np.sqrt(ranked * scored) if ranked and scored else 0.0)
    low, high = np.quantile(taus, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def spearman(truth: np.ndarray, score: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one of the two says nothing."""
    from scipy.stats import rankdata

    a, b = (rankdata(v) - (len(v) + 1) / 2 for v in (truth, score))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0


def top_regret(truth: np.ndarray, score: np.ndarray, k: int) -> float:
    """What the best of the `k` archs of the largest score lacks of the best of all; of equal scores the worse first."""
    chosen = np.lexsort((truth, -score))[:k]
    return float(truth.max() - truth[chosen].max())


def cost_bands(cost: np.ndarray, bands: int = BANDS) -> list[np.ndarray]:
    """Indices of archs by bands of the cost with equally many in each, give or take one."""
    return [part for part in np.array_split(cost.argsort(kind="stable"), bands) if len(part)]


def noise_ceiling(truths: np.ndarray) -> float:
    """Mean tau-b between any two trainings, (seeds, n): no score can be expected to rank much better than that.

    NaN for one training.
    """
    pairs = [tau_b(truths[i], truths[j]) for i in range(len(truths)) for j in range(i)]
    return float(np.mean(pairs)) if pairs else float("nan")
