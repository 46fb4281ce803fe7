"""Searchers, one file each: which archs of a trained supernet to evaluate next, and the study that remembers.

To add one: a file with a subclass of `Searcher`, a name in `SEARCHERS` (the contract test
takes all of them), and one in `search_subnets.py`.
"""

from models.lazy import lazy_exports

_EXPORTS = {
    "SEARCHERS": "catalog",
    "GP": "optuna_searchers",
    "NSGA2": "optuna_searchers",
    "NSGA3": "optuna_searchers",
    "TPE": "optuna_searchers",
    "Asked": "loop",
    "Attentive": "attentive",
    "CoarseToFine": "coarse_to_fine",
    "Domain": "domain",
    "Evolution": "evolution",
    "Genetic": "genetic",
    "Grid": "grid",
    "History": "base",
    "Objective": "loop",
    "Question": "base",
    "RL": "rl",
    "Random": "random",
    "Result": "loop",
    "Search": "loop",
    "Searcher": "base",
    "evaluate": "loop",
    "open_storage": "storage",
    "study_of": "storage",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
