"""The loss against a slow reference, written anew from the papers, one cell and one object at a time."""

import math

import pytest
import torch

from models import Model
from models.dfl import DetectDFL
from models.dfl_loss import DFLGains, DFLLoss

GAINS = DFLGains()


def _head(nc=3, strides=(8, 16), **form):
    head = DetectDFL(nc, [8] * len(strides), **form)
    head.set_strides([float(s) for s in strides])
    return head


def _logits(head, n=2, side=48, seed=0, sets=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, head.no, side // int(s), side // int(s) + 1) for s in head.stride] * sets
    return [(2 * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]


def _targets(*objects):
    return torch.tensor(objects).view(-1, 6)


SEVERAL = _targets(
    (0, 1, 0.5, 0.5, 0.6, 0.7),
    (0, 2, 0.45, 0.55, 0.5, 0.5),  # over the first
    (0, 1, 0.05, 0.05, 0.02, 0.02),  # within it no cell has its centre
    (2, 0, 0.3, 0.6, 0.9, 0.3),
    (2, 0, 1.0, 1.0, 0.5, 0.5),  # half outside
)


def _iou(a, b):
    """Complete IoU of two boxes by corners."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = a, b
    w, h, p, q = x2 - x1, y2 - y1, u2 - u1, v2 - v1
    both = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
    iou = both / (w * h + p * q - both)
    hull = (max(x2, u2) - min(x1, u1)) ** 2 + (max(y2, v2) - min(y1, v1)) ** 2
    far = ((x1 + x2 - u1 - u2) ** 2 + (y1 + y2 - v1 - v2) ** 2) / 4
    aspect = 4 / math.pi**2 * (math.atan(p / q) - math.atan(w / h)) ** 2
    return iou - far / hull - aspect * aspect / (1 - iou + aspect)


def _softmax(values):
    e = [math.exp(v) for v in values]
    return [v / sum(e) for v in e]


def _reference(head, levels, targets, top):
    box = cls = dfl = total = 0.0
    r = head.reg_max
    height, width = (levels[0].shape[i] * float(head.stride[0]) for i in (2, 3))
    for n in range(len(levels[0])):
        cells = []
        for level, stride in zip(levels, head.stride.tolist(), strict=True):
            for j in range(level.shape[2]):
                for i in range(level.shape[3]):
                    values = level[n, :, j, i].tolist()
                    bins = [values[k * r : (k + 1) * r] for k in range(4)]
                    sides = [b[0] if r == 1 else sum(k * p for k, p in enumerate(_softmax(b))) for b in bins]
                    x, y = (i + 0.5) * stride, (j + 0.5) * stride
                    left, top_, right, bottom = (s * stride for s in sides)
                    drawn = (x - left, y - top_, x + right, y + bottom)
                    if drawn[2] <= drawn[0] or drawn[3] <= drawn[1]:  # empty, at its centre
                        cx, cy = (drawn[0] + drawn[2]) / 2, (drawn[1] + drawn[3]) / 2
                        w, h = max(drawn[2] - drawn[0], 1e-9), max(drawn[3] - drawn[1], 1e-9)
                        drawn = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
                    cells.append((x, y, stride, bins, sides, drawn, values[4 * r :]))
        objects = []
        for image, label, x, y, w, h in targets.tolist():
            if image == n:
                x, y, w, h = x * width, y * height, w * width, h * height
                objects.append((int(label), (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        wanted = {}  # cell to its best (overlap, object, alignment)
        for o, (label, (x1, y1, x2, y2)) in enumerate(objects):
            aligned = []
            for c, (x, y, *_, drawn, classes) in enumerate(cells):
                if x1 < x < x2 and y1 < y < y2:
                    u = max(_iou(drawn, (x1, y1, x2, y2)), 0)
                    aligned.append((math.sqrt(1 / (1 + math.exp(-classes[label]))) * u**6, u, c))
            for t, u, c in sorted(aligned, reverse=True)[:top]:
                if c not in wanted or u > wanted[c][0]:
                    wanted[c] = (u, o, t)
        scores = {}
        for c, (_, o, t) in wanted.items():
            same = [v for v in wanted.values() if v[1] == o]
            most = max(v[2] for v in same)
            scores[c] = t / most * max(v[0] for v in same) if most else 0.0
        for c, (x, y, stride, bins, sides, drawn, classes) in enumerate(cells):
            score = scores.get(c, 0.0)
            label, given = objects[wanted[c][1]] if c in wanted else (None, None)
            total += score
            for k, logit in enumerate(classes):
                p = 1 / (1 + math.exp(-logit))
                t = score if k == label else 0.0
                cls -= t * math.log(p) + (1 - t) * math.log(1 - p)
            if score:
                box += score * (1 - _iou(drawn, given))
                right = [
                    (x - given[0]) / stride,
                    (y - given[1]) / stride,
                    (given[2] - x) / stride,
                    (given[3] - y) / stride,
                ]
                for k, value in enumerate(right):
                    if r == 1:
                        dfl += score * abs(sides[k] - value) * stride / (width if k % 2 == 0 else height) / 4
                        continue
                    value = min(max(value, 0), r - 1 - 0.01)
                    low, p = int(value), _softmax(bins[k])
                    near = (low + 1 - value) * math.log(p[low]) + (value - low) * math.log(p[low + 1])
                    dfl -= score * near / 4
    total = max(total, 1)
    return [GAINS.box * box / total, GAINS.cls * cls / total, GAINS.dfl * dfl / total]


@pytest.mark.parametrize("form", [{}, {"reg_max": 4}, {"reg_max": 1, "end2end": True}, {"reg_max": 8, "end2end": True}])
def test_is_the_definition(form):
    head = _head(**form)
    sets = 2 if head.end2end else 1
    predictions = _logits(head, n=3, sets=sets)
    loss, parts = DFLLoss(head)(predictions, SEVERAL)
    tops = (10, 1)[:sets]
    each = [_reference(head, predictions[2 * i : 2 * i + 2], SEVERAL, top) for i, top in enumerate(tops)]
    expected = [sum(of_one) for of_one in zip(*each, strict=True)]
    assert [parts[name].item() for name in ("box", "cls", "dfl")] == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0
    assert loss.item() == pytest.approx(3 * sum(expected), rel=1e-4)
    if head.end2end:  # in eval mode the one-to-one branches are alone
        alone = DFLLoss(head)(predictions[2:], SEVERAL)[1]
        assert [alone[name].item() for name in ("box", "cls", "dfl")] == pytest.approx(each[1], rel=1e-4)


@pytest.mark.parametrize("reg_max", [1, 16])
def test_images_without_objects(reg_max):
    head = _head(reg_max=reg_max)
    predictions = _logits(head)
    loss, parts = DFLLoss(head)(predictions, torch.zeros(0, 6))
    assert parts["box"] == parts["dfl"] == 0 < parts["cls"]
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in predictions)
    one, _ = DFLLoss(head)([p[:1] for p in predictions], SEVERAL[:2])
    both, _ = DFLLoss(head)(predictions, SEVERAL[:2])  # the second image has none
    assert torch.isfinite(both)
    assert both > one


def test_half_precision_is_computed_in_full():
    head = _head()
    predictions = [p.detach().half() for p in _logits(head)]
    expected, _ = DFLLoss(head)([p.float() for p in predictions], SEVERAL[:3])
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = DFLLoss(head)(predictions, SEVERAL[:3])
    assert loss.dtype == torch.float32
    assert loss == expected


def test_an_overfit_detector_finds_its_object():
    torch.manual_seed(0)
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    model = Model({"nc": 2, "backbone": rows, "head": [[[1, 2], 1, "Detect", ["nc"]]], "end2end": True})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5  # for a training as short as this
    images = torch.rand(1, 3, 64, 64)  # no two cells see the same
    images[..., 16:48, 8:40] += 1
    targets = _targets((0, 1, 24 / 64, 0.5, 0.5, 0.5))
    loss = model.head.loss()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss(model(images), targets)[0].backward()
        optimizer.step()
    first, second = model.eval()(images)[0][0, :2]
    assert first[:4].tolist() == pytest.approx([8, 16, 40, 48], abs=4)
    assert first[5] == 1
    assert first[4] > 0.2
    assert second[4] < first[4] / 2, "an object is given once"
