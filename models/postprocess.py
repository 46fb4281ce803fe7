"""From a detector's raw boxes to detections: non-maximum suppression."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

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
) -> list[Tensor]:
    """Non-maximum suppression of a batch.

    The defaults are for looking at detections. To measure AP, which needs the whole precision-recall curve, YOLOv5
    takes `conf=0.001, iou=0.6, multi_label=True`.

    Args:
        z: (N, A, nc + 5) as x, y of the centre, width, height in pixels, objectness, class probabilities: what
            the head returns in eval mode.
        conf: detections have more than this confidence, objectness x class probability. With one class, whose
            probability no loss trains, the objectness alone.
        iou: of two boxes that overlap more than this, the less confident goes.
        max_det: most detections kept of an image.
        multi_label: a box may be a detection of several classes, not only of its likeliest.
        classes: keep only these.
        agnostic: boxes suppress those of other classes too.

    Returns:
        For each image (n, 6), float32: x1, y1, x2, y2 in pixels, confidence, class; most confident first.
    """
    detections = []
    for rows in z:
        rows = rows[rows[:, 4] > conf].float()
        scores = rows[:, 4:5] * rows[:, 5:] if rows.shape[1] > 6 else rows[:, 4:5]
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
        detections.append(torch.cat((xyxy[keep], score[keep, None], label[keep, None].float()), 1))
    return detections
