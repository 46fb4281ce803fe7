"""Strategies, one file each: one-shot ones, which train a supernet, and multi-trial ones, which train every arch."""

from models.lazy import lazy_exports

_EXPORTS = {
    "DARTS": "darts",
    "SecondOrderDARTS": "darts",
    "GumbelDARTS": "gumbel",
    "Proxyless": "proxyless",
    "ENAS": "enas",
    "SPOS": "spos",
    "FairNAS": "spos",
    "BigNAS": "bignas",
    "Random": "random_search",
    "GridSearch": "grid_search",
    "RegularizedEvolution": "regularized_evolution",
    "TPE": "tpe",
    "PolicyBasedRL": "policy_based_rl",
    "NSGA3": "nsga3",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
