"""Searchers, one file each: which archs of a trained supernet to evaluate next, and the study that remembers.

To add one: a file with a subclass of `Searcher`, and its name in `experiments.run.registry`, from which script and
contract test take it.
"""

from models.lazy import lazy_exports

_EXPORTS = {
    "GP": "optuna_searchers",
    "ModelBased": "model_based",
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
    "make_searcher": "catalog",
    "open_storage": "storage",
    "study_of": "storage",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
