"""Cost providers, one file each: what archs cost, asked for many archs at a time."""

from models.lazy import lazy_exports

_EXPORTS = {
    "COUNTED": "counted",
    "PROVIDERS": "catalog",
    "CostProvider": "base",
    "Counted": "counted",
    "providers_of": "catalog",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
