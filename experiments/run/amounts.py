"""Amounts as people write and read them: ``4.5G`` FLOPs, ``8ms``. Loads no torch: options are read with it."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from models.errors import InputError

_COUNTS = {"": 0, "k": 3, "m": 6, "g": 9, "b": 9, "t": 12}  # powers of ten
_MILLISECONDS = {"us": -3, "ms": 0, "s": 3}
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)
# What is counted or measured, as reports call it.
COSTS = {"flops": "FLOPs", "params": "parameters", "activations": "activations", "latency": "latency"}


def parse_amount(text: str, name: str = "") -> float:
    """A positive number with or without a unit: ``4.5G`` is 4.5e9, ``2M`` is 2e6; times are in ms, ``0.5s`` is 500.

    Parameters
    ----------
    name
        Of the cost, where it is known to be a time or a count: it has no units of the other kind.

    Raises
    ------
    InputError
        Says which units there are.
    """
    match = _AMOUNT.fullmatch(text)
    units = {"": 0, **_MILLISECONDS} if name == "latency" else _COUNTS if name in COSTS else _COUNTS | _MILLISECONDS
    power = units.get(match[2].lower()) if match else None
    # Decimal: 8.2 * 1e6 is a little less than 8.2 million, and an arch of just that many would be beyond it.
    try:
        value = float(Decimal(match[1]).scaleb(power)) if match and power is not None else 0.0
    except ArithmeticError:  # an exponent beyond Decimal's
        value = 0.0
    if not 0 < value < math.inf:
        right = "8ms or 0.5s" if name == "latency" else "4.5G, 2M or 300k" if name in COSTS else "4.5G, 2M, 300k or 8ms"
        raise InputError(f"{text!r} is no amount; right would be a positive number such as {right}")
    return value


def titled(name: str, unit: str = "") -> str:
    """A cost as an axis or a column calls it, with its unit: ``latency, ms``; counts have none."""
    unit = unit or ("ms" if name == "latency" else "")
    return f"{COSTS.get(name, name)}{', ' if unit else ''}{unit}"


def written(name: str, value: float) -> str:
    """`value` of the cost `name` to be read by people."""
    if name == "latency":
        return f"{value:.4g} ms"
    for letter, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.4g}{letter}"
    return f"{value:.4g}"
