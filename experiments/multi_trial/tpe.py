"""The tree-structured Parzen estimator (Bergstra et al. 2011; of several objectives: Ozaki et al. 2022), Optuna's."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from .optuna_base import OptunaStrategy


class TPE(OptunaStrategy):
    """TPE, without the second that NNI's sleeps for each trial; see `OptunaStrategy` for the parameters."""

    def sampler(self, seed: int) -> BaseSampler:
        # Trials that run side by side keep off each other's archs.
        return TPESampler(seed=seed, constant_liar=True)
