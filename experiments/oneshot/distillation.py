"""What in-place distillation has beside `training.distillation`: a subnet learns from the largest one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import InputError

from ..training.distillation import Distillation, SameOutputs, SoftLabels, can_mimic, mimic_of


class AlphaDivergence:
    """Adaptive alpha-divergence of class probabilities, (N, nc) logits (AlphaNet, Wang et al. 2021, arXiv:2102.07954).

    Of the divergences with `low` and `high` the larger one, for every sample: one punishes the student where it is too
    sure, the other where it is not sure enough. The ratio of probabilities to the power of alpha is held to `clip` in
    value and gradient, without which a negative alpha has no bounds.
    """

    of_maps, with_labels = False, False

    def __init__(self, low: float = -1.0, high: float = 1.0, clip: float = 5.0) -> None:
        self.low, self.high, self.clip = low, high, clip

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        log_p = F.log_softmax(teacher.detach().float(), 1)
        log_q = F.log_softmax(student.float(), 1)
        (value, surrogate), (other, other_surrogate) = (self._of(log_p, log_q, a) for a in (self.low, self.high))
        # The loss reads as the divergence, and has the gradient of the surrogate.
        chosen = torch.where(value > other, surrogate, other_surrogate).mean()
        return chosen - chosen.detach() + torch.maximum(value, other).mean()

    def _of(self, log_p: Tensor, log_q: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """(N,) divergences of p from q, and what has their gradient: -1/α E_q[(p/q)^α ∇ log q]."""
        with torch.no_grad():
            q, log_ratio = log_q.exp(), log_p - log_q
            if alpha == 1:  # KL(p || q): q times the ratio is p, which has no need of a clip
                weight, values = log_p.exp(), log_p.exp() * log_ratio
            elif alpha == 0:  # KL(q || p)
                held = log_ratio.clamp(-math.log(self.clip), math.log(self.clip))
                weight, values = q * (held - 1), -q * held
            else:
                ratio = (alpha * log_ratio).clamp(max=math.log(self.clip)).exp()
                weight, values = q * ratio / alpha, q * (ratio - 1) / (alpha * (alpha - 1))
        return values.sum(1), -(weight * log_q).sum(1)


def distillation_of(module: Any, kind: str, boxes: Literal["ciou", "l1"]) -> Distillation | None:
    """The loss that is meant by ``--distill`` for the networks of a task's module; None where there is none.

    Raises
    ------
    InputError
        It is for another task.
    """
    detects = hasattr(module, "head")
    if module.regresses:
        if kind not in ("auto", "none"):
            raise InputError(f"--distill {kind} is not for this task; right would be auto, or none")
        return SameOutputs() if kind == "auto" else None
    if kind == "auto":
        kind = ("mimic" if can_mimic(module.loss) else "none") if detects else "kl"
    if kind != "none" and detects != (kind == "mimic"):
        right = "mimic" if detects else "kl or alpha"
        raise InputError(f"--distill {kind} is not for this task; right would be {right}, or none")
    if kind == "none":
        return None
    if kind == "mimic":
        return mimic_of(module.loss, boxes)
    return SoftLabels() if kind == "kl" else AlphaDivergence()


class FeatureMimic:
    """Mean squared distance of feature maps at some rows, a narrower student's being compared with the first channels.

    Parameters
    ----------
    rows
        Of the network; each gives one block's output, whose narrower forms are its first channels.
    weight
        Of the sum over rows.
    """

    of_maps = True

    def __init__(self, rows: Sequence[int], weight: float = 1.0) -> None:
        self.rows, self.weight = tuple(rows), weight

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        losses = []
        for row, s, t in zip(self.rows, student, teacher, strict=True):
            if s.shape[1] > t.shape[1] or s.shape[2:] != t.shape[2:]:
                own, given = ("x".join(map(str, x.shape[1:])) for x in (s, t))
                raise InputError(f"--distill-rows {row}: the student's map is {own}, the teacher's {given}")
            losses.append(F.mse_loss(s.float(), t.detach()[:, : s.shape[1]].float()))
        return torch.stack(losses).sum() * self.weight
