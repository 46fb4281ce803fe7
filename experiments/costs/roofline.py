"""Latency and energy by a roofline: what a device could do at best, from four figures of its data sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models.errors import InputError
from spaces import CostModel, Space
from spaces.cost_block import Block
from spaces.space import Arch

_UNITS = {"latency": "ms", "energy": "mJ"}


@dataclass(frozen=True)
class Hardware:
    """A device.

    The default energies are those of a 45 nm process at 0.9 V: 0.9 pJ a 32-bit floating-point addition and 3.7 pJ a
    multiplication, so 2.3 pJ a FLOP on the average; and 1.3 nJ (the lower end) a DRAM access of 64 bits (Horowitz
    2014, doi:10.1109/ISSCC.2014.6757323, figure 1.1.9). They rank archs; they are no device's of today.

    Attributes
    ----------
    peak
        FLOP/s.
    bandwidth
        Bytes/s of the memory.
    bytes
        Of an element: 4 for float32, 1 for int8.
    pj_per_flop, pj_per_byte
        Picojoules of a FLOP, and of a byte to or from the memory.
    watts
        Drawn all the time.
    """

    peak: float
    bandwidth: float
    bytes: float = 4
    pj_per_flop: float = (0.9 + 3.7) / 2
    pj_per_byte: float = 1300 / 8
    watts: float = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and name in ("peak", "bandwidth", "bytes")):
                raise InputError(f"{name}: {value!r}: right would be a positive number such as 2e12")

    def latency(self, flops: float, elements: float) -> float:
        """Milliseconds of an operation: as long as its FLOPs or its bytes take, whichever is longer.

        Williams et al. 2009, doi:10.1145/1498765.1498785.
        """
        return 1e3 * max(flops / self.peak, elements * self.bytes / self.bandwidth)

    def energy(self, flops: float, elements: float) -> float:
        """Millijoules of an operation, of its FLOPs, its bytes and its time.

        Choi et al. 2013, doi:10.1109/IPDPS.2013.77.
        """
        moving = self.pj_per_flop * flops + self.pj_per_byte * elements * self.bytes
        return 1e-9 * moving + self.watts * self.latency(flops, elements)


class Roofline:
    """``latency`` (ms) or ``energy`` (mJ) of one image as the sum over the operations of an arch.

    Each reads its inputs and weights from the memory and writes its output there; batch norms and activations are part
    of the layer before them. FLOPs are those of convolutions and matrix products.

    Parameters
    ----------
    imgsz
        Side of the images; where the YAML has a `resolution`, that is meant.
    hardware
        The fields of `Hardware`.
    """

    offset = 0.0

    def __init__(self, space: Space, imgsz: int, name: str, **hardware: Any) -> None:
        if name not in _UNITS:
            raise InputError(f"a roofline tells {' and '.join(_UNITS)}, not '{name}'")
        self.name, self.unit, self.hardware = name, _UNITS[name], Hardware(**hardware)
        self._of = self.hardware.latency if name == "latency" else self.hardware.energy
        self.model = CostModel(space, imgsz, self, space.config.is_classifier)
        self.settings: dict[str, Any] = {"space": space.config.raw, "imgsz": imgsz, **asdict(self.hardware)}

    def parts(self, block: Block) -> dict[str, float]:
        """Of a block by submodule, as `spaces.CostModel` asks for latencies."""
        return {name: sum(self._of(*work) for work in works) for name, works in block.work().items()}

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """The cost of each arch."""
        costs: list[float] = self.model.batch(self.model.indices(archs))["latency"].tolist()
        return costs
