"""Cost providers, one file each: what archs cost, asked for many archs at a time."""

from models.lazy import lazy_exports

_EXPORTS = {
    "Budget": "budget",
    "COUNTED": "counted",
    "Cached": "cache",
    "PROVIDERS": "catalog",
    "CommandLatency": "command",
    "CostProvider": "base",
    "Counted": "counted",
    "Hardware": "roofline",
    "Latency": "latency",
    "LatencyFilter": "latency_filter",
    "Limits": "limits",
    "Remote": "pool.client",
    "Range": "ranges",
    "Roofline": "roofline",
    "TableLatency": "table",
    "Target": "limits",
    "Trust": "pool.client",
    "make_provider": "make",
    "measure_latency": "timing",
    "parse_range": "ranges",
    "providers_of": "catalog",
    "read_costs": "config",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
