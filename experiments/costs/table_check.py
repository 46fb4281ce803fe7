"""How near latencies composed of a table come to those of whole networks, and what brings them nearer."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from models.errors import InputError
from models.grammar import read_config
from models.network import Network
from spaces import CostModel, Space
from spaces.space import Arch

from .latency_table import LatencyTable, nine_of_ten
from .timing import torch_threads

# What a composed latency is good enough for.
MEDIAN_ERROR, TAU = 0.05, 0.95
# Archs of which those to be fitted by are taken, from the quickest to the slowest.
_DRAWN = 200
# So far apart they have to be for an offset to show.
_APART = 1.05


class Measured(NamedTuple):
    """Milliseconds of a whole network in its quickest round, and what nine of ten runs of that keep."""

    median: float
    nine_of_ten: float


class Networks:
    """Whole networks of a space, timed as the blocks of a table are.

    Parameters
    ----------
    rounds
        So often each is measured, with all others between; the quickest stays, the others were disturbed.
    """

    def __init__(self, space: Space, imgsz: int, table: LatencyTable, rounds: int, seed: int) -> None:
        self.space, self.imgsz, self.table, self.rounds, self.seed = space, imgsz, table, rounds, seed
        self.fitted: list[Arch] = [*(table.correction or {}).get("archs", [])]
        self._model: CostModel | None = None

    def sums(self, archs: Sequence[Arch]) -> np.ndarray:
        """(n,), milliseconds of the blocks of each arch."""
        if self._model is None:
            kept, self.table.correction = self.table.correction, None
            self._model = CostModel(self.space, self.imgsz, self.table, self.space.config.is_classifier)
            self.table.correction = kept
        sums: np.ndarray = self._model.batch(self._model.indices(archs))["latency"]
        return sums

    def composed(self, archs: Sequence[Arch]) -> np.ndarray:
        """(n,), milliseconds of each arch by the table."""
        return self.table.offset + self.table.scale * self.sums(archs)

    def drawn(self, number: int, seed: str) -> list[Arch]:
        """Random archs, each once and none of `fitted`; fewer where the space has no more."""
        rng, found = random.Random(seed), list[Arch]()
        for _ in range(100 * number):
            arch = self.space.sample(rng)
            if arch not in found and arch not in self.fitted:
                found.append(arch)
            if len(found) == number:
                break
        return found

    def measured(self, archs: Sequence[Arch], say: bool = False) -> tuple[list[Measured], np.ndarray]:
        """Of each arch its latency, and the medians of all rounds (rounds, n)."""
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), torch_threads(self.table.threads):
            runs = [self._run(arch, Path(folder)) for arch in archs]
            rounds = []
            for i in range(self.rounds):
                if say and self.rounds > 1:
                    print(f"measuring {len(runs)} whole networks, round {i + 1} of {self.rounds}", flush=True)
                times = [self.table.times(run) for run in runs]
                rounds.append([Measured(statistics.median(t), nine_of_ten(t)) for t in times])
        return [min(of_one) for of_one in zip(*rounds, strict=True)], np.array(rounds)[..., 0]

    def _run(self, arch: Arch, folder: Path) -> Callable[[], Any]:
        side = self.space.freeze_resolution(arch) or self.imgsz
        raw = self.space.freeze(arch)
        if self.table.provider == "onnxruntime":
            from .latency import exported

            return exported(raw, side, self.table.threads, folder)
        network = Network()
        network.build(read_config(raw))
        network = network.to(self.table.device).eval()
        x = torch.zeros(1, self.space.config.ch, side, side, device=self.table.device)
        return lambda: network(x)


def why_not_whole(space: Space, provider: str) -> str:
    """Why the networks of a space cannot be timed; empty if they can."""
    if provider == "torch":
        return ""
    from .latency import built, whole

    try:
        whole(built(space.freeze(space.upstream())), provider)
    except InputError as e:
        return str(e)
    return ""


def fit(networks: Networks, number: int) -> dict[str, Any]:
    """Correct the table by whole networks, from quick ones to slow ones: ``offset + scale * sum of blocks``.

    A network is called once, and a block in it finds other memory in the caches than by itself. Both are much the same
    for all networks of a space. The fit is that of least squares of relative
    errors; where it makes no sense, as of networks that are all as quick, the offset is 0.
    """
    table = networks.table
    archs = networks.drawn(max(_DRAWN, number), f"{networks.seed} fit")
    sums = networks.sums(archs)
    order = np.argsort(sums, kind="stable")
    picked = sorted({int(order[i]) for i in np.linspace(0, len(archs) - 1, number).round().astype(int)})
    archs, sums = [archs[i] for i in picked], sums[picked]
    measured = np.array([m.median for m in networks.measured(archs)[0]])
    columns = np.stack([sums, np.ones(len(sums))], 1) / measured[:, None]
    scale, offset = np.linalg.lstsq(columns, np.ones(len(sums)), rcond=None)[0].tolist()
    if sums.max() < _APART * sums.min() or scale <= 0 or offset + scale * sums.min() <= 0:
        scale, offset = statistics.median((measured / sums).tolist()), 0.0
    networks.fitted = archs
    correction: dict[str, Any] = {"scale": scale, "offset": offset, "networks": len(archs), "archs": archs}
    table.correct(correction)
    print(f"corrected by {len(archs)} whole networks: {offset:.3f} ms + {scale:.3f} x the sum of blocks", flush=True)
    return correction


def check(networks: Networks, number: int, cfg: str) -> dict[str, Any]:
    """Compare, print, and note in the table, the latency of random archs as composed and as measured on whole networks.

    None of them is one that the table was corrected by. Where the measurements of two rounds differ as much from each
    other as from the table, it is the machine that is to blame, so that this is said too.
    """
    table = networks.table
    archs = networks.drawn(number, f"{networks.seed} check")
    composed = networks.composed(archs)
    found, rounds = networks.measured(archs, say=True)
    measured = np.array([m.median for m in found])
    for modelled, m in zip(composed, found, strict=True):
        print(f"modelled {modelled:8.2f} ms   measured {m.median:8.2f} ms, nine of ten runs {m.nine_of_ten:8.2f} ms")
    errors = np.abs(composed / measured - 1)
    checked: dict[str, Any] = {
        "cfg": str(cfg),
        "imgsz": networks.imgsz,
        "seed": networks.seed,
        "archs": len(archs),
        "median_error": round(float(np.median(errors)), 4),
        "largest_error": round(float(errors.max()), 4),
        "kendall": _tau(composed, measured),
    }
    if len(rounds) > 1:
        first, second = rounds[::2].min(0), rounds[1::2].min(0)
        checked["repeated_error"] = round(float(np.median(np.abs(first / second - 1))), 4)
        checked["repeated_kendall"] = _tau(first, second)
    checked["milliseconds"] = [
        [round(float(c), 4), round(m.median, 4), round(m.nine_of_ten, 4)] for c, m in zip(composed, found, strict=True)
    ]
    table.note(checked)
    _say(checked, table)
    return checked


def _tau(one: np.ndarray, other: np.ndarray) -> float | None:
    """Kendall's; None where there is no order."""
    from scipy.stats import kendalltau

    tau = kendalltau(one, other).statistic if len(one) > 1 else np.nan
    return None if np.isnan(tau) else round(float(tau), 4)


def _say(checked: dict[str, Any], table: LatencyTable) -> None:
    tau = checked["kendall"]
    said = [
        f"{checked['archs']} archs of {checked['cfg']} at {checked['imgsz']}: "
        f"median error {checked['median_error']:.1%}, largest {checked['largest_error']:.1%}, "
        f"Kendall's tau {'none' if tau is None else format(tau, '.3f')}"
    ]
    if "repeated_error" in checked:
        again = checked["repeated_kendall"]
        said.append(
            f"two measurements of the same networks: median difference {checked['repeated_error']:.1%}, "
            f"Kendall's tau {'none' if again is None else format(again, '.3f')}"
        )
    goal = f"median error at most {MEDIAN_ERROR:.0%} and tau at least {TAU}"
    if checked["median_error"] <= MEDIAN_ERROR and (tau or 0) >= TAU:
        said.append(f"goal met: {goal}")
    else:
        instead = f"costs: {{latency: {{provider: {table.provider}}}}}"
        said.append(f"goal not met ({goal}): have slices measured instead, by --costs FILE with {instead}")
    print("\n".join(said), flush=True)
