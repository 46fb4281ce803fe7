"""From a detector's raw boxes to detections: non-maximum suppression."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from .head import Form

# NMS is quadratic in the boxes. At 0.001 confidence, several labels a box, an image seldom has this many (YOLOv5).
_MAX_CANDIDATES = 30_000


@torch.no_grad()
def non_max_suppression(
    z: Tensor,
    conf: float = 0.25,
    iou: float = 0.45,
    max_det: int = 300,
    multi_label: bool = False,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    form: Form = "objectness",
    num_coefficients: int = 0,
) -> list[Tensor]:
    """Non-maximum suppression of a batch.

    The defaults are for looking at detections. To measure AP, which needs the whole precision-recall curve, YOLOv5
    takes `conf=0.001, iou=0.6, multi_label=True`.

    Args:
        z: what the head returns in eval mode, in its `form`: (N, A, nc + 5) as x, y of the centre, width, height in
            pixels, objectness, class probabilities; (N, A, nc + 4) without objectness; or (N, K, 6) detections, of
            which none is suppressed. Each may have coefficients of a mask behind.
        conf: detections have more than this confidence, objectness x class probability. With one class, whose
            probability no loss trains, the objectness alone.
        iou: of two boxes that overlap more than this, the less confident goes.
        max_det: most detections kept of an image.
        multi_label: a box may be a detection of several classes, not only of its likeliest.
        classes: keep only these.
        agnostic: boxes suppress those of other classes too.
        form: see `models.head.Form`.
        num_coefficients: of the mask of each.

    Returns:
        For each image (n, 6 + num_coefficients), float32: x1, y1, x2, y2 in pixels, confidence, class, coefficients;
        most confident first.
    """
    detections = []
    for rows in z:
        if form == "detections":
            detections.append(_thinned(rows.float(), conf, max_det, classes))
            continue
        end = rows.shape[1] - num_coefficients
        rows = rows[(rows[:, 4] if form == "objectness" else rows[:, 4:end].amax(1)) > conf].float()
        scores = scores_of(rows[:, :end], form)
        if multi_label:
            box, label = (scores > conf).nonzero(as_tuple=True)
            score = scores[box, label]
        else:
            score, label = scores.max(1)
            box = (score > conf).nonzero().squeeze(1)
            score, label = score[box], label[box]
        if classes is not None:
            wanted = torch.isin(label, torch.tensor(classes, dtype=label.dtype, device=label.device))
            box, label, score = box[wanted], label[wanted], score[wanted]

        score, best = score.topk(min(len(score), _MAX_CANDIDATES))
        box, label = box[best], label[best]
        xyxy = box_convert(rows[box, :4], "cxcywh", "xyxy")
        keep = batched_nms(xyxy, score, torch.zeros_like(label) if agnostic else label, iou)[:max_det]
        found = (xyxy[keep], score[keep, None], label[keep, None].float(), rows[box[keep], end:])
        detections.append(torch.cat(found, 1))
    return detections


def scores_of(predictions: Tensor, form: Form) -> Tensor:
    """(…, nc) confidences of predictions in the form ``objectness`` or ``classes``, without coefficients."""
    if form == "classes":
        return predictions[..., 4:]
    if predictions.shape[-1] == 6:  # one class, whose probability no loss trains
        return predictions[..., 4:5]
    return predictions[..., 4:5] * predictions[..., 5:]


def _thinned(found: Tensor, conf: float, max_det: int, classes: Sequence[int] | None) -> Tensor:
    """Of detections (n, 6) those that are asked for, most confident first."""
    found = found[found[:, 4] > conf]
    if classes is not None:
        found = found[torch.isin(found[:, 5], torch.tensor(classes, dtype=found.dtype, device=found.device))]
    return found[found[:, 4].argsort(descending=True, stable=True)[:max_det]]
