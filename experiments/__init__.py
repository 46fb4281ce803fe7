"""Strategies, tasks and the experiments themselves.

Names are imported when they are first used, so that scripts answer ``--help`` without loading torch.
"""

from models.lazy import lazy_exports

_EXPORTS = {
    "evaluator": "=evaluator",
    "strategy": "=strategies",
    "RetiariiExeConfig": "experiment_config",
    "RetiariiExperiment": "experiment",
    # These work without NNI: what a search hands over needs none.
    "DetectionMetrics": "metrics",
    "detect_image": "predict",
    "evaluate": "validate",
    "open_detector": "detectors",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
