"""Losses by which a network learns from the outputs of a teacher, and what catches these."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dfl_loss import DFLLoss, expected, from_sides
from models.errors import InputError
from models.loss import DetectionLoss, complete_iou
from models.segment_loss import SegmentLoss, within
from models.semantic import SemanticLoss


class Distillation(Protocol):
    """Loss of a student's output against a teacher's, of which no gradient is taken.

    Attributes
    ----------
    of_maps
        Whether the outputs are compared place by place, so that both must have seen images of one size.
    with_labels
        Whether it is added to the labels' loss; else it stands in its place, as in BigNAS.
    """

    of_maps: bool
    with_labels: bool

    def __call__(self, student: Any, teacher: Any) -> Tensor:
        """Scalar; outputs are those of the networks in training mode."""


class SoftLabels:
    """KL divergence of the student's class probabilities from the teacher's, (N, nc) logits (Hinton et al. 2015).

    Parameters
    ----------
    temperature
        Logits are divided by it; the loss is multiplied by its square, so that gradients keep their size.
    """

    of_maps, with_labels = False, False

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        log_p, log_q = (F.log_softmax(x.float() / self.temperature, 1) for x in (teacher.detach(), student))
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * self.temperature**2


class SameOutputs:
    """Squared distance of the student's outputs from the teacher's, (N, n) numbers: of an image's sum the mean."""

    of_maps, with_labels = False, True

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student.float() - teacher.detach().float()).square().sum(1).mean()


# Objectness below which a teacher's boxes and classes are left out: they would weigh less than 1e-4.
_LEAST_SEEN = 0.01
# Masks of an image that are compared: each is a map.
_MASKS = 32


class DetectionMimic:
    """A detector's logits after another's, at every anchor of every cell; both have the same head and image size.

    Objectness by binary cross entropy with the teacher's probability, the balance of levels being that of the
    detection loss. Classes by binary cross entropy, and boxes by 1 - CIoU or L1 (in cells), both weighed by the
    square of the teacher's objectness, and left out where that is below a ten thousandth: where it sees nothing, it has
    nothing to say of what and where. Their means count as much as the teacher is sure: boxes of one in its first steps
    are noise, and full weight on them holds all subnets back. So this comes beside the labels' loss.

    Parameters
    ----------
    loss
        The student's detection loss, whose gains and balance hold here too: both losses are of one size.
    boxes
        ``ciou`` or ``l1``.
    temperature
        Of classes: their logits are divided by it, and their part is multiplied by its square.
    """

    of_maps, with_labels = True, True

    def __init__(self, loss: DetectionLoss, boxes: Literal["ciou", "l1"] = "ciou", temperature: float = 1.0) -> None:
        self.loss, self.boxes, self.temperature = loss, boxes, temperature

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Of lists of (N, na, ny, nx, nc + 5) logits; a sum over images, as the detection loss."""
        _same_maps(student, teacher)
        losses, head, gains = [], self.loss.head, self.loss.gains
        for s, t, anchors, balance in zip(student, teacher, head.anchors, self.loss.balance, strict=True):
            s, t = s.float(), t.detach().float()
            seen = t[..., 4].sigmoid()
            losses.append(gains.obj * balance * F.binary_cross_entropy_with_logits(s[..., 4], seen))
            total = seen.sum().clamp_min(1)
            places = (seen > _LEAST_SEEN).nonzero(as_tuple=True)
            s, t, weight = s[places], t[places], seen[places] ** 2
            losses.append(gains.box * (self._boxes(s, t, anchors[places[1]]) * weight).sum() / total)
            if head.nc > 1:
                own, given = (x[:, 5:] / self.temperature for x in (s, t))
                classes = F.binary_cross_entropy_with_logits(own, given.sigmoid(), reduction="none")
                classes = classes * self.temperature**2
                losses.append(gains.cls * (classes.mean(-1) * weight).sum() / total)
        return torch.stack(losses).sum() * len(student[0])

    def _boxes(self, student: Tensor, teacher: Tensor, anchors: Tensor) -> Tensor:
        """(n,), distances of boxes, from logits (n, nc + 5) and anchors (n, 2)."""
        one, other = (
            torch.cat((2 * p[:, :2] - 0.5, (2 * p[:, 2:]) ** 2 * anchors), -1)
            for p in (student[:, :4].sigmoid(), teacher[:, :4].sigmoid())
        )
        if self.boxes == "l1":
            return (one - other).abs().mean(-1)
        return 1 - complete_iou(one, other)


class DFLMimic:
    """An anchor-free head's logits after another's, at every cell; both have the same head and image size.

    Classes by binary cross entropy with the teacher's probabilities. Boxes by 1 - CIoU or L1 (in cells), and their
    sides' distributions by cross entropy (Zheng et al. 2022, arXiv:2102.12252, section 3.1), weighed by the square of
    the teacher's confidence, and left out where that is below a ten thousandth, for the reasons of `DetectionMimic`.
    Of the one-to-many and the one-to-one branches each by itself; a teacher in eval mode has the latter alone.

    Parameters
    ----------
    loss, boxes, temperature
        As `DetectionMimic` takes them.
    """

    of_maps, with_labels = True, True

    def __init__(self, loss: DFLLoss, boxes: Literal["ciou", "l1"] = "ciou", temperature: float = 1.0) -> None:
        self.loss, self.boxes, self.temperature = loss, boxes, temperature

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Of lists of (N, 4 reg_max + nc, ny, nx) logits; a sum over images, as the detection loss."""
        nl = self.loss.head.nl
        student = student[-len(teacher) :]
        _same_maps(student, teacher)
        sets = [self._of(student[i : i + nl], teacher[i : i + nl]) for i in range(0, len(student), nl)]
        return torch.stack(sets).sum() * len(student[0])

    def _of(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        head, gains = self.loss.head, self.loss.gains
        levels, theirs = [s.float() for s in student], [t.detach().float() for t in teacher]
        (own_boxes, own_classes), (boxes, classes) = head.split(levels), head.split(theirs)
        seen = classes.sigmoid()
        total = seen.amax(1).sum().clamp_min(1)
        own, given = (x / self.temperature for x in (own_classes, classes))
        cls = F.binary_cross_entropy_with_logits(own, given.sigmoid(), reduction="sum") / total * self.temperature**2
        image, cell = (seen.amax(1) > _LEAST_SEEN).nonzero(as_tuple=True)
        weight = seen.amax(1)[image, cell] ** 2
        own, given = (b[image, :, cell].view(len(cell), 4, head.reg_max) for b in (own_boxes, boxes))
        centres = head.cells(levels)[0].T[cell]
        one, other = (from_sides(centres, expected(bins)) for bins in (own, given))
        if self.boxes == "l1":
            distance = (one - other).abs().mean(-1)
        else:
            one, other = (torch.cat((b[:, :2], b[:, 2:].clamp(min=1e-9)), 1) for b in (one, other))
            distance = 1 - complete_iou(one, other)
        dfl = -(given.softmax(-1) * own.log_softmax(-1)).sum(-1).mean(-1)  # 0 of a single bin
        return gains.cls * cls + ((gains.box * distance + gains.dfl * dfl) * weight).sum() / total


class SegmentMimic:
    """`DetectionMimic` of the boxes of a `Segment`, and masks by binary cross entropy with the teacher's probabilities.

    Of each image those places alone whose boxes the teacher is surest of, within its boxes and by their area, as in the
    labels' loss; weighed by the square of its objectness.

    Parameters
    ----------
    loss, boxes, temperature
        As `DetectionMimic` takes them.
    """

    of_maps, with_labels = True, True

    def __init__(self, loss: SegmentLoss, boxes: Literal["ciou", "l1"] = "ciou", temperature: float = 1.0) -> None:
        self.loss, self._boxes = loss, DetectionMimic(loss.boxes, boxes, temperature)

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Of lists of (N, na, ny, nx, nc + 5 + k) logits and prototypes; a sum over images, as the detection loss."""
        _same_maps(student, teacher)
        end = self.loss.head.nc + 5
        boxes = self._boxes(*([level[..., :end] for level in output[:-1]] for output in (student, teacher)))
        places, sizes = self._places([level[..., :end].detach().float() for level in teacher[:-1]])
        own, given = (
            torch.cat([level[..., end:].flatten(1, 3) for level in output[:-1]], 1).float()
            for output in (student, teacher)
        )
        seen, cells = places.topk(min(_MASKS, places.shape[1]), 1)
        found = 0 * own.sum() + 0 * student[-1].float().sum()
        for i in range(len(seen)):
            at = cells[i][seen[i] > _LEAST_SEEN]
            if not len(at):
                continue
            weight = places[i, at] ** 2
            drawn = torch.einsum("nk,khw->nhw", own[i, at], student[-1][i].float())
            wanted = torch.einsum("nk,khw->nhw", given[i, at].detach(), teacher[-1][i].detach().float()).sigmoid()
            each = F.binary_cross_entropy_with_logits(drawn, wanted, reduction="none")
            box = sizes[i, at]
            area = (box[:, 2] * box[:, 3]).clamp(min=1 / each[0].numel())
            of_each = (each * within(box, each.shape[1:])).mean((1, 2)) / area
            found = found + (of_each * weight).sum() / weight.sum().clamp_min(1)
        return boxes + self.loss.gains.box * found

    def _places(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, P) objectness of all places, and (N, P, 4) their boxes as shares of the image."""
        seen, boxes = [], []
        for level, anchors in zip(levels, self.loss.head.anchors.to(levels[0]), strict=True):
            ny, nx = level.shape[2:4]
            size = level.new_tensor((nx, ny))
            ys, xs = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            probability = level.sigmoid()
            xy = (2 * probability[..., :2] - 0.5 + torch.stack((xs, ys), -1).to(level)) / size
            wh = (2 * probability[..., 2:4]) ** 2 * anchors[:, None, None] / size
            seen.append(probability[..., 4].flatten(1))
            boxes.append(torch.cat((xy, wh), -1).flatten(1, 3))
        return torch.cat(seen, 1), torch.cat(boxes, 1)


class SemanticMimic:
    """The class probabilities of every pixel after another's: the KL divergence of `SoftLabels`, a mean over pixels.

    Parameters
    ----------
    loss, boxes
        As of the others; not looked at.
    temperature
        As of `SoftLabels`.
    """

    of_maps, with_labels = True, True

    def __init__(self, loss: SemanticLoss, boxes: str = "ciou", temperature: float = 1.0) -> None:
        self._of_pixels = SoftLabels(temperature)

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Of lists of one tensor, (N, nc, H, W); a sum over images, as the loss."""
        _same_maps(student, teacher)
        own, given = (level.movedim(1, -1).flatten(0, 2) for (level,) in (student, teacher))
        return self._of_pixels(own, given) * len(student[0])


# The loss of a head to what mimics its logits.
_MIMICS: dict[type, Callable[..., Distillation]] = {
    DetectionLoss: DetectionMimic,
    DFLLoss: DFLMimic,
    SegmentLoss: SegmentMimic,
    SemanticLoss: SemanticMimic,
}


def can_mimic(loss: Any) -> bool:
    """Whether there is a mimic of the logits that a detection loss belongs to."""
    return type(loss) in _MIMICS


def mimic_of(loss: Any, boxes: Literal["ciou", "l1"] = "ciou", temperature: float = 1.0) -> Distillation:
    """The mimic of the logits that a detection loss belongs to."""
    if not can_mimic(loss):
        raise InputError(f"--distill mimic: not for {type(loss).__name__}, the loss of this head; right would be none")
    return _MIMICS[type(loss)](loss, boxes, temperature)


def _same_maps(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    if [s.shape for s in student] != [t.shape for t in teacher]:
        shapes = (", ".join("x".join(map(str, x.shape)) for x in out) for out in (student, teacher))
        raise InputError(f"the student gives maps of {next(shapes)}, but its teacher of {next(shapes)}")


class ChannelWise(nn.Module):
    """Where each channel of a feature map looks, after the teacher's (Shu et al. 2021, arXiv:2011.13256, section 3.2).

    A channel's values become a distribution over the places of the map; the loss is the KL divergence of the student's
    from the teacher's, a mean over channels, maps and images. A 1 x 1 convolution a map brings the student's channels
    to the teacher's number; these adapters learn with the student, and are no part of it.

    Parameters
    ----------
    channels
        Of the student's and of the teacher's map, of each.
    temperature
        Values are divided by it; the loss is multiplied by its square. The paper has 4.
    """

    def __init__(self, channels: Sequence[tuple[int, int]], temperature: float = 4.0) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(nn.Conv2d(own, theirs, 1) for own, theirs in channels)
        self.temperature = temperature

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Scalar, of lists of (N, C, H, W)."""
        losses = []
        for adapter, s, t in zip(self.adapters, student, teacher, strict=True):
            log_q, log_p = (F.log_softmax(x.float().flatten(2) / self.temperature, 2) for x in (adapter(s), t.detach()))
            losses.append((log_p.exp() * (log_p - log_q)).sum(2).mean())
        return torch.stack(losses).mean() * self.temperature**2


class Tap:
    """Catches a network's output, and its feature maps at some rows, as it is run.

    Attributes
    ----------
    output, features
        Of the last forward, with their graph; of a detector in eval mode the logits.
    """

    def __init__(self, network: nn.Module, rows: Sequence[int] = ()) -> None:
        layers: Any = network.get_submodule("model") if rows else ()
        if far := [row for row in rows if not 0 <= row < len(layers)]:
            raise InputError(f"--distill-rows {far[0]}: the network has the rows 0 to {len(layers) - 1}")
        self._rows = tuple(rows)
        self.output: Any = None
        self._caught: dict[int, Tensor] = {}
        self._handles = [network.register_forward_hook(self._see)]
        self._handles += [layers[row].register_forward_hook(functools.partial(self._catch, row)) for row in rows]

    @property
    def features(self) -> list[Tensor]:
        return [self._caught[row] for row in self._rows]

    def _catch(self, row: int, _: nn.Module, __: Any, output: Tensor) -> None:
        self._caught[row] = output

    def _see(self, _: nn.Module, __: Any, output: Any) -> None:
        self.output = output[1] if isinstance(output, tuple) else output

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
