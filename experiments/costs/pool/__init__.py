"""Servers that tell the costs of archs to others, over gRPC; `experiments.costs.Remote` asks them."""

from models.lazy import lazy_exports

_EXPORTS = {"Estimator": "service", "serve": "service"}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
