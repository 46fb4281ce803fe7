"""What a detector asks of its last row, whichever head that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

# What a head's predictions are, (N, A, …) in pixels of the input: `objectness` is centre x, y, width, height,
# objectness and class probabilities; `classes` the same without objectness; `detections` x1, y1, x2, y2, confidence
# and class, the most confident first, each object once. `labels` is no list of boxes: logits (N, nc, H, W) of pixels.
Form = Literal["objectness", "classes", "detections", "labels"]
Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]


class Head(nn.Module):
    """Base of the heads; who registers a subclass of it has a detector's last row.

    It takes a list of maps, one a level. In training mode it gives a list of logits, to which `loss` belongs; in eval
    mode a pair, the predictions in the head's `form` and such a list.

    Attributes
    ----------
    nc, nl
        Classes, levels.
    stride
        (nl,) in pixels, once `set_strides` has been called.
    form
        What the predictions are; `models.postprocess` makes detections of any of them.
    finds
        What metrics measure: ``boxes``, or ``masks`` besides; or ``labels``, a class for every pixel.
    num_coefficients
        Numbers of a prediction behind those of its classes, or behind a detection: the coefficients of its mask.
    parts
        Names of the parts of the loss.
    width_by_class
        Beginnings of the names of layers whose widths may follow from the number of classes.
    """

    nc: int
    nl: int
    stride: Tensor
    form: Form = "classes"
    num_coefficients: int = 0
    finds: ClassVar[str] = "boxes"
    parts: ClassVar[tuple[str, ...]] = ()
    width_by_class: ClassVar[tuple[str, ...]] = ()

    def set_strides(self, strides: Sequence[float]) -> None:
        """Take the measured strides of the levels."""
        raise NotImplementedError

    def loss(self, imgsz: int = 640) -> Loss:
        """The loss that this head learns by, of images of that side.

        It is called with the logits, those of training or of eval mode, and with targets (M, 6): image index, class,
        and x, y of the centre, width, height in fractions of the input. Of a head that finds masks also with these, (M,
        H, W) or None, of one that finds labels with label maps, (N, H, W) or None. It gives the loss, a sum over
        images, and its `parts`, means over images, detached.
        """
        raise NotImplementedError

    def by_class(self) -> Mapping[str, tuple[int, ...]]:
        """Layers whose outputs are by class, to (groups of outputs, outputs of a group before those of classes).

        A third number is of the outputs of a group behind them.
        """
        return {}

    def prototypes(self, logits: Sequence[Tensor]) -> Tensor:
        """(N, num_coefficients, H, W), of which masks are sums; for a head that finds masks."""
        raise NotImplementedError

    def with_classes(self, level: Tensor, classes: Sequence[int]) -> Tensor:
        """A level's logits with these classes alone, in this order."""
        return level

    def of_classes(self, logits: Sequence[Tensor], classes: Sequence[int]) -> Tensor:
        """(K,), what a network without the other classes gives as well."""
        return torch.cat([self.with_classes(level, classes).flatten() for level in logits])

    def sees_like(self, other: Any) -> bool:
        """Whether the logits of both are of the same places and boxes, whatever the classes."""
        return type(other) is type(self) and torch.equal(other.stride.cpu(), self.stride.cpu())

    def is_like(self, other: Any) -> bool:
        """Whether the logits of both mean the same, so that one can learn from the other."""
        return self.sees_like(other) and bool(other.nc == self.nc)
