"""Strategies, tasks and the experiments themselves.

Names are imported when they are first used, so that scripts answer ``--help`` without loading torch.
"""

from models.lazy import lazy_exports

_EXPORTS = {
    "evaluator": "=tasks.evaluator",
    "strategy": "=strategies",
    "RetiariiExeConfig": "nni_experiment.config",
    "RetiariiExperiment": "nni_experiment.experiment",
    # These work without NNI: what a search hands over needs none.
    "DetectionMetrics": "tasks.metrics",
    "detect_image": "inference.predict",
    "evaluate": "inference.validate",
    "find_detector": "find.find",
    "open_detector": "inference.detectors",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
