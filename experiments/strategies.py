"""Strategies by their classes: one-shot ones, which train a supernet, and multi-trial ones, which train every arch."""

from models.lazy import lazy_exports

from .run.registry import KINDS

_EXPORTS = {
    **dict.fromkeys(("FBNet", "ProxylessNAS", "RandomOneShot", "Strategy", "TPEStrategy"), "nni_names"),
    "LatencyFilter": "costs.latency_filter",
    **{
        name: module.removeprefix("experiments.")
        for kind in ("oneshot", "multi-trial")
        for module, _, name in (entry.target.partition(":") for entry in KINDS[kind].values())
    },
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__package__, _EXPORTS)
