"""A YAML that says where costs come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.grammar import load_yaml
from models.schemas import Cost
from spaces import CostModel

from .base import CostProvider
from .make import make_provider

_LOCAL = {"provider", "hw_config"}
_REMOTE = {"servers", "hw_config", "timeout", "connect_timeout", "batch", "tls", "max_message_mb"}
_TLS = {"ca", "cert", "key"}


def read_costs(path: str | Path | Mapping[str, Any]) -> dict[str, Callable[[CostModel], CostProvider]]:
    """Name of a cost to what makes its provider, as `PROVIDERS` has them; of a file, or of what is in it.

    Under ``costs`` stands by name what is told here (``provider``, a name that `make_provider` takes) or by a pool
    (``servers``, and the options of `Remote`); ``cache`` names a file that keeps what was told.

    Raises
    ------
    InputError
        Names file and cost.
    """
    content: Any = path
    if isinstance(path, Mapping):
        path = "--costs"
    else:
        content = load_yaml(Path(path))
    costs = content.get("costs") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not content.keys() <= {"costs", "cache"} or not isinstance(costs, Mapping):
        raise InputError(f"{path}: right would be the keys costs, a mapping of names, and cache")
    if not isinstance(content.get("cache", ""), str):
        raise InputError(f"{path}: cache: {content['cache']!r}: right would be the name of a file")
    for name, entry in costs.items():
        _check(f"{path}: {name}", entry)

    def maker(name: str, entry: Mapping[str, Any]) -> Callable[[CostModel], CostProvider]:
        def make(model: CostModel) -> CostProvider:
            try:
                provider = _provider(entry, model)
            except InputError as e:
                raise InputError(f"{path}: {name}: {e}") from None
            if cache := content.get("cache"):
                from .cache import Cached

                provider = Cached(provider, cache)
            provider.name = name
            return provider

        return make

    return {str(name): maker(str(name), entry) for name, entry in costs.items()}


def read_latency(told: str | Path | Mapping[str, Any]) -> Callable[[CostModel], CostProvider]:
    """What makes the provider of the cost ``latency``, of which limits and targets are meant; see `read_costs`."""
    costs = read_costs(told)
    if "latency" not in costs:
        where = "--costs" if isinstance(told, Mapping) else told
        raise InputError(f"{where}: does not tell latency; right would be an entry of that name under costs")
    return costs["latency"]


def composed(provider: CostProvider) -> CostModel | None:
    """The cost model of a latency that is a sum over blocks, as of a table or a roofline; None of any other."""
    model = getattr(getattr(provider, "provider", provider), "model", None)
    return model if model is not None and "latency" in model.names else None


def _check(where: str, entry: Any) -> None:
    keys = entry.keys() if isinstance(entry, Mapping) else set()
    if ("provider" in keys) == ("servers" in keys):
        raise InputError(f"{where}: right would be either provider or servers")
    known = _LOCAL if "provider" in keys else _REMOTE
    if unknown := sorted(map(str, keys - known)):
        raise InputError(f"{where}: unknown key '{unknown[0]}'; there are {', '.join(sorted(known))}")
    if not isinstance(entry.get("hw_config") or {}, Mapping):
        raise InputError(f"{where}: hw_config: right would be a mapping, such as {{threads: 4}}")
    for name in ("timeout", "connect_timeout", "batch", "max_message_mb"):
        value = entry.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise InputError(f"{where}: {name}: {value!r}: right would be a positive number")
    if not isinstance(entry.get("provider", ""), str):
        raise InputError(f"{where}: provider: {entry['provider']!r}: right would be a name")
    if "tls" in keys and not (isinstance(entry["tls"], Mapping) and {"ca"} <= entry["tls"].keys() <= _TLS):
        raise InputError(f"{where}: tls: right would be a mapping of ca, and cert and key if the servers ask for them")
    Cost.of(dict(entry), where)


def _provider(entry: Mapping[str, Any], model: CostModel) -> CostProvider:
    if "provider" in entry:
        return make_provider(entry["provider"], model.space, model.imgsz, entry.get("hw_config"))
    from .pool.client import Remote, Trust

    options = {k: v for k, v in entry.items() if k not in ("servers", "tls")}
    tls = Trust(**entry["tls"]) if "tls" in entry else None
    return Remote(entry["servers"], model.space, model.imgsz, tls=tls, **options)
