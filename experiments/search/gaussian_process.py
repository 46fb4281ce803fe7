"""A Gaussian process over archs (Rasmussen and Williams 2006, ISBN 0-262-18253-X, chapters 2 and 5)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .domain import Indices

# Of how far two values of a decision are apart: so much is that they differ at all, the rest how far.
_DIFFERENT = 0.25
# Means and standard deviations of the hyperparameters' logarithms. Of a mean decision the weight is such that random
# archs of any number of decisions correlate by about 1/e.
_APART = 3.0
_PRIOR_WEIGHT, _PRIOR_SCALE, _PRIOR_TREND, _PRIOR_NOISE = 1.0, (0.0, 1.0), (-2.0, 1.0), (-4.0, 1.5)
_STEPS, _JITTER = 50, 1e-6
# More archs take too long to fit to; these are spread over the targets.
MOST_FITTED = 200


class Features:
    """Archs as numbers: the places of their values, and logarithms of costs.

    Parameters
    ----------
    sizes
        Of every decision; where they have an order, `Indices` are in it.
    ordered
        Whether its values have an order.
    """

    def __init__(self, sizes: Sequence[int], ordered: Sequence[bool]) -> None:
        self.free = [i for i, n in enumerate(sizes) if n > 1]
        self.last = np.array([sizes[i] - 1 for i in self.free], float)
        self.different = np.array([_DIFFERENT if ordered[i] else 1.0 for i in self.free])

    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(decisions, n, m), from 0 to 1, of (n, L) and (m, L) indices."""
        x, y = (v[:, self.free].T.astype(float) for v in (a, b))
        apart = (x[:, :, None] - y[:, None, :]) / self.last[:, None, None]
        share = self.different[:, None, None]
        found: np.ndarray = (1 - share) * apart**2 + share * (apart != 0)
        return found

    def weighted(self, weights: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n, m), the sum of `distances` by weights, as products of matrices."""
        by_place, by_value = weights * (1 - self.different), weights * self.different
        x, y = (v[:, self.free] / self.last for v in (a, b))
        squares = (x**2 @ by_place)[:, None] + y**2 @ by_place - 2 * (x * by_place) @ y.T
        values = [np.eye(int(n) + 1) for n in self.last]
        p, q = (np.hstack([eye[v[:, i]] for i, eye in zip(self.free, values, strict=True)]) for v in (a, b))
        equal = p * np.repeat(by_value, [len(eye) for eye in values]) @ q.T
        found: np.ndarray = np.maximum(squares, 0.0) + by_value.sum() - equal
        return found


class GaussianProcess:
    """The kernel is s exp(-sum of w_i d_i) over decisions, and a linear trend in the costs.

    Weights, scales and noise are the maximum of the posterior under broad normal priors of their logarithms.

    Parameters
    ----------
    archs, costs, targets
        (n, L) indices, (n, q) of any scale, (n,).
    """

    def __init__(self, features: Features, archs: np.ndarray, costs: np.ndarray, targets: np.ndarray) -> None:
        self.features, self.archs = features, archs
        self.mean, self.scale = float(targets.mean()), float(targets.std()) or 1.0
        self._centre, spread = costs.mean(0), costs.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        self.costs, targets = self._scaled(costs), (targets - self.mean) / self.scale
        order = targets.argsort(kind="stable")
        few = order[np.linspace(0, len(order) - 1, min(len(order), MOST_FITTED)).round().astype(int)]
        self._hyper = self._fit(np.sort(few), targets)

        kernel = self._kernel(archs, archs, self.costs, self.costs)
        kernel[np.diag_indices_from(kernel)] += math.exp(self._hyper[-1]) + _JITTER
        self._factor = np.linalg.cholesky(kernel)
        self._weights = _solve(self._factor, targets)

    def predict(self, archs: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m,) means and standard deviations."""
        from scipy.linalg import solve_triangular

        costs = self._scaled(costs)
        between = self._kernel(self.archs, archs, self.costs, costs)
        known = solve_triangular(self._factor, between, lower=True, check_finite=False)
        own = math.exp(self._hyper[-3]) + math.exp(self._hyper[-2]) * (costs**2).sum(1)
        variance = np.maximum(own - (known**2).sum(0), 1e-9)
        return self.mean + self.scale * (between.T @ self._weights), self.scale * np.sqrt(variance)

    def _scaled(self, costs: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (costs - self._centre) / self._spread / math.sqrt(max(costs.shape[1], 1))
        return scaled

    def _kernel(self, a: np.ndarray, b: np.ndarray, costs_a: np.ndarray, costs_b: np.ndarray) -> np.ndarray:
        weights, scale, trend = np.exp(self._hyper[:-3]), math.exp(self._hyper[-3]), math.exp(self._hyper[-2])
        kernel: np.ndarray = scale * np.exp(-self.features.weighted(weights, a, b)) + trend * costs_a @ costs_b.T
        return kernel

    def _fit(self, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
        from scipy.optimize import minimize

        count = len(self.features.free)
        prior = np.array([(math.log(_APART / max(count, 1)), _PRIOR_WEIGHT)] * count)
        prior = np.vstack([prior.reshape(-1, 2), _PRIOR_SCALE, _PRIOR_TREND, _PRIOR_NOISE])
        targets, costs = targets[rows], self.costs[rows]
        distances = self.features.distances(self.archs[rows], self.archs[rows])
        linear, identity = costs @ costs.T, np.eye(len(rows))

        def loss(hyper: np.ndarray) -> tuple[float, np.ndarray]:
            weights, (scale, trend, noise) = np.exp(hyper[:-3]), np.exp(hyper[-3:])
            near = scale * np.exp(-np.tensordot(weights, distances, 1))
            try:
                factor = np.linalg.cholesky(near + trend * linear + (noise + _JITTER) * identity)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(hyper)
            inverse = _solve(factor, identity)
            fitted = inverse @ targets
            # Of the likelihood by the kernel: Rasmussen and Williams 2006, equation 5.9.
            by_kernel = 0.5 * (inverse - np.outer(fitted, fitted))
            gradient = np.concatenate(
                (
                    -weights * np.tensordot(distances, by_kernel * near, 2),
                    [(by_kernel * near).sum(), trend * (by_kernel * linear).sum(), noise * np.trace(by_kernel)],
                )
            )
            off = (hyper - prior[:, 0]) / prior[:, 1]
            value = 0.5 * targets @ fitted + np.log(np.diag(factor)).sum() + 0.5 * off @ off
            return float(value), gradient + off / prior[:, 1]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = minimize(loss, prior[:, 0], jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
        hyper: np.ndarray = found.x
        return hyper


def _solve(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    from scipy.linalg import cho_solve

    solved: np.ndarray = cho_solve((factor, True), right, check_finite=False)
    return solved


def as_rows(archs: Sequence[Indices], decisions: int) -> np.ndarray:
    """(n, L)."""
    return np.array(archs, np.int64).reshape(len(archs), decisions)


class Warp:
    """Losses as logarithms of how far they are from a little below the best of them.

    What good archs differ by counts as much as what bad ones do. The distance that the best one has is a share of the
    spread, so that it is no outlier.
    """

    _BEST = 0.1

    def __init__(self, losses: np.ndarray) -> None:
        low, high = np.percentile(losses, [25, 75])
        self.spread = float(high - low) or float(losses.std()) or 1.0
        self.origin = float(losses.min()) - self._BEST * self.spread

    def __call__(self, losses: Any) -> np.ndarray:
        warped: np.ndarray = np.log(losses - self.origin)
        return warped

    def inverse(self, warped: np.ndarray) -> np.ndarray:
        losses: np.ndarray = self.origin + np.exp(warped)
        return losses
