"""A model of the metric that chooses among archs, once it has shown that it can rank them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from .base import History
from .domain import Domain, Indices
from .pareto import hypervolume, reference_point

Kind = Literal["mlp", "gp"]

CANDIDATES = 8
_FIRST, _EVERY, _FOLDS = 50, 25, 5
TRUSTED = 0.5


class Predictor:
    """Chooses, of several archs, the one that is predicted to add most hypervolume to the front.

    It is fitted to the evaluated archs after 50 evaluations and every 25 after that. It is asked only while the ranks
    of its predictions of held-out archs agree with the truth (Kendall's tau of five folds at least 0.5); else the
    first arch is taken, as without it.

    Parameters
    ----------
    kind
        ``mlp`` or ``gp``.
    costs
        Names of the objectives after the metric.
    report
        Told of evaluations and tau at every fit.
    """

    def __init__(
        self, domain: Domain, costs: Sequence[str], kind: Kind, report: Callable[[int, float], None] | None = None
    ) -> None:
        self.domain, self.costs, self.kind, self.report = domain, tuple(costs), kind, report
        self._fitted: dict[int, tuple[Any, float]] = {}

    def __call__(self, history: History, archs: Sequence[Indices]) -> Indices:
        count = len(history.good) // _EVERY * _EVERY
        if count < _FIRST:
            return archs[0]
        model, tau = self.fit(history, count)
        if tau < TRUSTED:
            return archs[0]
        columns = [model.predict(encode(archs, self.domain.sizes)), *(self.domain.cost(c, archs) for c in self.costs)]
        expected = np.column_stack(columns)
        reference = reference_point(np.concatenate([history.losses, expected]))
        gains = [hypervolume(np.vstack([history.losses, row]), reference) for row in expected]
        return archs[int(np.argmax(gains))]

    def fit(self, history: History, count: int) -> tuple[Any, float]:
        """A model of the first `count` archs, and its rank correlation on held-out ones."""
        if count not in self._fitted:
            x, y = encode(history.good[:count], self.domain.sizes), history.losses[:count, 0]
            tau = rank_correlation(self.kind, x, y)
            self._fitted = {count: (_model(self.kind).fit(x, y), tau)}
            if self.report is not None:
                self.report(count, tau)
        return self._fitted[count]


def encode(archs: Sequence[Indices], sizes: Sequence[int]) -> np.ndarray:
    """(n, features): of each decision its values one-hot, and its place in their order from 0 to 1."""
    indices = np.array(archs, np.int64).reshape(len(archs), len(sizes))
    columns = [np.eye(n)[indices[:, i]] for i, n in enumerate(sizes) if n > 1]
    places = indices / np.maximum(np.array(sizes) - 1, 1)
    return np.concatenate([*columns, places], 1)


def rank_correlation(kind: Kind, x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau between truth and the predictions of archs that the model was not fitted to, five folds."""
    from scipy.stats import kendalltau
    from sklearn.model_selection import KFold

    predicted = np.empty_like(y)
    for fitted, held_out in KFold(_FOLDS, shuffle=True, random_state=0).split(x):
        predicted[held_out] = _model(kind).fit(x[fitted], y[fitted]).predict(x[held_out])
    tau = float(kendalltau(predicted, y).statistic)
    return tau if np.isfinite(tau) else 0.0


class _Quiet:
    """A model whose targets are scaled, and whose warnings (it did not converge) are left to its rank correlation."""

    def __init__(self, model: Any) -> None:
        from sklearn.compose import TransformedTargetRegressor
        from sklearn.preprocessing import StandardScaler

        self._model = TransformedTargetRegressor(model, transformer=StandardScaler())

    def fit(self, x: np.ndarray, y: np.ndarray) -> _Quiet:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model.fit(x, y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._model.predict(x))


def _model(kind: Kind) -> _Quiet:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel
    from sklearn.neural_network import MLPRegressor

    if kind == "mlp":
        layers = {"hidden_layer_sizes": (64, 64), "solver": "lbfgs", "alpha": 0.1, "max_iter": 200}
        return _Quiet(MLPRegressor(**layers, random_state=0))
    return _Quiet(GaussianProcessRegressor(RBF(3.0) + WhiteKernel(0.1), random_state=0))
