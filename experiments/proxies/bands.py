"""How well scores rank archs that cost about the same. Who knows the cost knows the rest of the order already."""

from __future__ import annotations

import numpy as np

NUM_BANDS = 5


class Ranking:
    """Agreement of scores with the truth, as Kendall's tau-b over pairs of archs of one band.

    Parameters
    ----------
    scores, truth
        (n,), of each arch; the larger the better.
    costs
        (n,), whose quantiles part the archs into bands; None for one band.
    """

    def __init__(
        self, scores: np.ndarray, truth: np.ndarray, costs: np.ndarray | None = None, num_bands: int = NUM_BANDS
    ) -> None:
        x, y = (np.sign(v[:, None] - v[None, :]) for v in (np.asarray(scores, float), np.asarray(truth, float)))
        band = np.zeros(len(x), int)
        if costs is not None:
            edges = np.quantile(costs, np.linspace(0, 1, num_bands + 1)[1:-1])
            band = np.searchsorted(edges, costs, side="right")
        same = band[:, None] == band[None, :]
        self._agree, self._x, self._y = x * y * same, np.abs(x) * same, np.abs(y) * same

    def tau(self, weights: np.ndarray | None = None) -> float:
        """Tau-b, pooled over the bands, -1 to 1; 0 where no pair differs in both. `weights` says how often an arch
        counts."""
        w = np.ones(len(self._x)) if weights is None else np.asarray(weights, float)
        agree, x, y = (float(w @ m @ w) for m in (self._agree, self._x, self._y))
        return agree / (x * y) ** 0.5 if x and y else 0.0

    def interval(self, samples: int = 1000, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
        """Of tau, by the bootstrap over archs."""
        rng, n = np.random.default_rng(seed), len(self._x)
        drawn = [self.tau(rng.multinomial(n, [1 / n] * n)) for _ in range(samples)]
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
