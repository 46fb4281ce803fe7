"""Plain networks: the YAML grammar, blocks, heads, detector and classifier.

Names are imported when they are first used, so that what needs no torch (the grammar) does not load it.
"""

from .lazy import lazy_exports

_EXPORTS = {
    "Call": "grammar",
    "Classifier": "classifier",
    "Config": "grammar",
    "Detect": "heads",
    "Head": "head",
    "DetectDFL": "dfl",
    "InputError": "errors",
    "Model": "detector",
    "Network": "network",
    "Row": "grammar",
    "Segment": "segment",
    "Semantic": "semantic",
    "check_imgsz": "strides",
    "count_flops": "complexity",
    "count_params": "complexity",
    "load_classifier": "files",
    "load_detector": "files",
    "load_plugin": "plugins",
    "load_upstream": "upstream",
    "load_weights": "upstream",
    "read_config": "grammar",
    "register": "registry",
    "save_classifier": "files",
    "save_detector": "files",
    "save_model_yaml": "files",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
