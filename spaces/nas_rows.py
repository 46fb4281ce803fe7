"""The searchable rows `NASConv` and `NASC3` without torch: their decisions, and the plain rows that they freeze to.

Labels and candidate order are those of the first YOLOv5 search on NNI, so that its arch files load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.grammar import Call, Config, Row

from .choices import Decision
from .rows import SpaceRow, Written

ACTIVATIONS = ("nn.SiLU", "nn.Identity", "nn.ReLU")
C3_RATIOS = (1.0, 1.5, 2.0)
BOTTLENECK_RATIOS = (1, 1.5, 2)
# Closes the arguments of a NASC3 whose archs YOLOv5's own arguments suffice for.
UPSTREAM = {"upstream_form": True}


def kernel_candidates(k: int, p: int | None) -> list[tuple[int, int]]:
    """(kernel, padding) of each candidate: the base, then k-2 (only where `p` is written out), then k+2.

    Kernel and padding change together, so that every candidate has the output size of the base.
    """
    base = k // 2 if p is None else p
    smaller = [(k - 2, base - 1)] if p is not None and k - 2 >= 1 and base >= 1 else []
    return [(k, base), *smaller, (k + 2, base + 1)]


class NASConvRow(SpaceRow):
    """``[c2, k, s, p]``: kernel and activation of a convolution."""

    def __init__(self, config: Config, row: Row) -> None:
        super().__init__(config, row)
        if row.kwargs or not 1 <= len(row.args) <= 4:
            raise row.error(f"takes [c2, k, s, p], got {[*row.args, *([dict(row.kwargs)] if row.kwargs else [])]}")
        written: list[Any] = [*row.args, *(1, 1, None)[len(row.args) - 1 :]]
        c2, k, s, p = written
        for name, value, least in (("k", k, 1), ("s", s, 1), ("p", p, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise row.error(f"{name} must be an integer of at least {least}, got {value!r}")
        config.depth(row)
        if row.number != 1:
            raise row.error("is not repeated: number must be 1")
        self.c2, self.stride = config.width(c2, row), s
        self.kernels = kernel_candidates(k, p)
        self.label = f"nasconv_{row.index}"
        self.default_act = str(config.activation or Call("nn.SiLU"))
        kernel, act = conv_decisions(self.label, self.kernels, self.default_act)
        self.places.update({"k": kernel, "act": act})

    def freeze(self, arch: Mapping[str, Any]) -> Written:
        """A `Conv` row, in upstream's form where that can say it."""
        source, number, _, args = self.row.written
        k, p = self.kernels[arch[self.label]]
        if act := act_argument(arch[f"{self.label}_act"], self.default_act):
            # By position, as upstream's Conv (c1, c2, k, s, p, g, d, act) takes it too.
            args = [args[0], k, self.stride, p, 1, 1, act]
        elif arch[self.label]:
            args = [args[0], k, self.stride, *([p] if p != k // 2 else [])]
        return [source, number, "Conv", list(args)]


class NASC3Row(SpaceRow):
    """``[c2, shortcut]``: hidden width, the two entry convolutions, and the hidden width of every bottleneck.

    Closed by `UPSTREAM` it is hidden width alone.
    """

    def __init__(self, config: Config, row: Row) -> None:
        super().__init__(config, row)
        self.upstream_form = row.kwargs == UPSTREAM
        if (
            (row.kwargs and not self.upstream_form)
            or not 1 <= len(row.args) <= 2
            or not isinstance((*row.args, True)[1], bool)
        ):
            raise row.error(f"takes [c2, shortcut], got {[*row.args, *([dict(row.kwargs)] if row.kwargs else [])]}")
        self.c2, self.n = config.width(row.args[0], row), config.depth(row)
        self.shortcut = (*row.args, True)[1]
        self.widths = tuple(round(h * int(0.5 * self.c2)) for h in C3_RATIOS)
        self.kernels = kernel_candidates(1, None)
        self.label = f"c3_{row.index}"
        self.conv_labels: tuple[str, ...] = (f"nasconv_{row.index}-1", f"nasconv_{row.index}-2")
        self.bottleneck_labels: tuple[str, ...] = tuple(f"{self.label}_m{j}" for j in range(self.n))
        self.default_act = str(config.activation or Call("nn.SiLU"))
        names = tuple(f"{width} channels" for width in self.widths)
        self.places["e"] = Decision(self.label, tuple(range(len(C3_RATIOS))), 0, names)
        if self.upstream_form:
            self.conv_labels, self.bottleneck_labels = (), ()
        for i, label in enumerate(self.conv_labels):
            self.places[f"k.{i}"], self.places[f"act.{i}"] = conv_decisions(label, self.kernels, self.default_act)
        names = tuple(f"x{ratio}" for ratio in BOTTLENECK_RATIOS)
        for j, label in enumerate(self.bottleneck_labels):
            self.places[f"m_e.{j}"] = Decision(label, BOTTLENECK_RATIOS, 1, names)

    def freeze(self, arch: Mapping[str, Any]) -> Written:
        """A `C3` row, in upstream's form where that can say it."""
        source, number, _, args = self.row.written
        args = list(args[: len(self.row.args)])
        chosen = arch[self.label]
        if chosen:
            args = [args[0], self.shortcut, 1, self.expansion(chosen)]
        kwargs: dict[str, Any] = {}
        for name, label in zip(("cv1", "cv2"), self.conv_labels, strict=False):
            if arch[label]:
                kwargs[f"{name}_k"] = self.kernels[arch[label]][0]
            if act := act_argument(arch[f"{label}_act"], self.default_act):
                kwargs[f"{name}_act"] = act
        ratios = [arch[label] for label in self.bottleneck_labels]
        if any(r != 1 for r in ratios):
            kwargs["m_e"] = ratios[0] if len(set(ratios)) == 1 else ratios
        return [source, number, "C3", [*args, *([kwargs] if kwargs else [])]]

    def expansion(self, chosen: int) -> float:
        """`e` such that C3's own ``int(c2 e)`` is the chosen width, also where rounding had a say in it."""
        e, width = 0.5 * C3_RATIOS[chosen], self.widths[chosen]
        return e if int(self.c2 * e) == width else (width + 0.5) / self.c2


def conv_decisions(label: str, kernels: Sequence[tuple[int, int]], default_act: str) -> tuple[Decision, Decision]:
    """Kernel and activation of a NASConv; absent labels mean the block as upstream builds it."""
    kernel = Decision(label, tuple(range(len(kernels))), 0, tuple(f"{k}x{k}" for k, _ in kernels))
    written = [f"{name}()" for name in ACTIVATIONS]
    names = tuple(name.removeprefix("nn.") for name in ACTIVATIONS)
    default = {"default": written.index(default_act)} if default_act in written else {}
    return kernel, Decision(f"{label}_act", tuple(range(len(written))), names=names, **default)


def act_argument(index: int, default_act: str) -> str | None:
    """How the activation is written in a row; None where it is the default anyway."""
    text = f"{ACTIVATIONS[index]}()"
    return None if text == default_act else text


NAS_ROWS: dict[str, type[SpaceRow]] = {"NASConv": NASConvRow, "NASC3": NASC3Row}
