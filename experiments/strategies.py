"""Strategies, one file each: one-shot ones, which train a supernet, and multi-trial ones, which train every arch."""

from models.lazy import lazy_exports

_EXPORTS = {
    "DARTS": "oneshot.darts",
    "SecondOrderDARTS": "oneshot.darts",
    "GumbelDARTS": "oneshot.gumbel",
    "Proxyless": "oneshot.proxyless",
    "ENAS": "oneshot.enas",
    "SPOS": "oneshot.spos",
    "FairNAS": "oneshot.spos",
    "BigNAS": "oneshot.bignas",
    "Random": "multi_trial.strategies",
    "GridSearch": "multi_trial.strategies",
    "RegularizedEvolution": "multi_trial.strategies",
    "TPE": "multi_trial.strategies",
    "PolicyBasedRL": "multi_trial.strategies",
    "NSGA3": "multi_trial.strategies",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__package__, _EXPORTS)
