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
    "Random": "multi_trial.random_search",
    "GridSearch": "multi_trial.grid_search",
    "RegularizedEvolution": "multi_trial.regularized_evolution",
    "TPE": "multi_trial.tpe",
    "PolicyBasedRL": "multi_trial.policy_based_rl",
    "NSGA3": "multi_trial.nsga3",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__package__, _EXPORTS)
