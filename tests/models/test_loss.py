import math
from types import SimpleNamespace

import pytest
import torch
from torchvision.ops import box_convert, complete_box_iou_loss

from models.errors import InputError
from models.heads import Detect
from models.loss import DetectionLoss, Gains, complete_iou, scaled_gains
from models.postprocess import non_max_suppression

torch.set_num_threads(1)


def _head(nl=3, na=3, nc=4):
    stride = torch.tensor([8.0 * 2**level for level in range(nl)])
    pixels = torch.arange(1.0, na + 1)[None, :, None] * torch.tensor([6.0, 8.0]) * (stride[:, None, None] / 4)
    return SimpleNamespace(nc=nc, no=nc + 5, nl=nl, na=na, anchors=pixels / stride[:, None, None], stride=stride)


def _logits(head, images=2, width=192, height=128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, head.na, max(height // int(s), 1), max(width // int(s), 1), head.no, generator=generator)
        for s in head.stride
    ]


def _targets(head, num=30, images=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(images, (num, 1), generator=generator)
    label = torch.randint(head.nc, (num, 1), generator=generator)
    xy = torch.rand(num, 2, generator=generator)
    wh = torch.rand(num, 2, generator=generator) * 0.5 + 0.02
    return torch.cat((image, label, xy, wh), 1)


# The definition, one target at a time, in plain Python.


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


def _bce(logit, target):
    p = _sigmoid(logit)
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def _ciou(box, other):
    (x, y, w, h), (u, v, a, b) = box, other
    overlap_w = max(0, min(x + w / 2, u + a / 2) - max(x - w / 2, u - a / 2))
    overlap_h = max(0, min(y + h / 2, v + b / 2) - max(y - h / 2, v - b / 2))
    iou = overlap_w * overlap_h / (w * h + a * b - overlap_w * overlap_h)
    hull_w = max(x + w / 2, u + a / 2) - min(x - w / 2, u - a / 2)
    hull_h = max(y + h / 2, v + b / 2) - min(y - h / 2, v - b / 2)
    aspect = 4 / math.pi**2 * (math.atan(a / b) - math.atan(w / h)) ** 2
    alpha = aspect / (1 - iou + aspect) if aspect else 0
    return iou - ((x - u) ** 2 + (y - v) ** 2) / (hull_w**2 + hull_h**2) - alpha * aspect


def _cells(x, y, nx, ny):
    """Own cell, then neighbours. On an edge the right (lower) neighbour is the cell itself, as in YOLOv5."""
    cells = [(int(x), int(y))]
    if x > 1 and x % 1 < 0.5:
        cells.append((int(x - 0.5), int(y)))
    if y > 1 and y % 1 < 0.5:
        cells.append((int(x), int(y - 0.5)))
    if nx - x > 1 and (nx - x) % 1 < 0.5:
        cells.append((int(x + 0.5), int(y)))
    if ny - y > 1 and (ny - y) % 1 < 0.5:
        cells.append((int(x), int(y + 0.5)))
    return [(min(i, nx - 1), min(j, ny - 1)) for i, j in cells]


def _reference(head, predictions, targets, gains, smoothing=0.0):
    balances = {3: (4, 1, 0.4)}.get(head.nl, (4, 1, 0.25, 0.06, 0.02))
    box = obj = cls = 0.0
    for level, p in enumerate(predictions):
        images, na, ny, nx, _ = p.shape
        p = p.tolist()
        box_losses, class_losses, objectness = [], [], {}
        for image, label, x, y, w, h in targets.tolist():
            image, label, x, y, w, h = int(image), int(label), x * nx, y * ny, w * nx, h * ny
            for a, (aw, ah) in enumerate(head.anchors[level].tolist()):
                if max(w / aw, aw / w, h / ah, ah / h) >= 4:
                    continue
                for i, j in _cells(x, y, nx, ny):
                    px, py, pw, ph, _, *classes = p[image][a][j][i]
                    drawn = (
                        2 * _sigmoid(px) - 0.5,
                        2 * _sigmoid(py) - 0.5,
                        (2 * _sigmoid(pw)) ** 2 * aw,
                        (2 * _sigmoid(ph)) ** 2 * ah,
                    )
                    iou = _ciou(drawn, (x - i, y - j, w, h))
                    box_losses.append(1 - iou)
                    place = (image, a, j, i)
                    objectness[place] = max(objectness.get(place, 0), iou)
                    for c, logit in enumerate(classes):
                        class_losses.append(_bce(logit, 1 - smoothing / 2 if c == label else smoothing / 2))
        if box_losses:
            box += sum(box_losses) / len(box_losses)
            if head.nc > 1:
                cls += sum(class_losses) / len(class_losses)
        everywhere = [
            _bce(p[n][a][j][i][4], objectness.get((n, a, j, i), 0))
            for n in range(images)
            for a in range(na)
            for j in range(ny)
            for i in range(nx)
        ]
        obj += balances[level] * sum(everywhere) / len(everywhere)
    parts = {"box": gains.box * box, "obj": gains.obj * obj, "cls": gains.cls * cls}
    return sum(parts.values()) * len(predictions[0]), parts


def _check(head, predictions, targets, gains=None, smoothing=0.0):
    loss, parts = DetectionLoss(head, gains, smoothing)(predictions, targets)
    gains = gains or scaled_gains(head.nl, head.nc)
    expected, expected_parts = _reference(head, predictions, targets, gains, smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected_parts, rel=1e-5)


@pytest.mark.parametrize("nl", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("na", "nc"), [(3, 4), (2, 1), (1, 2)])
def test_is_the_definition(nl, na, nc):
    head = _head(nl, na, nc)
    _check(head, _logits(head), _targets(head))


def test_gains_and_label_smoothing():
    head = _head()
    _check(head, _logits(head), _targets(head), Gains(0.3, 0.7, 1.1), smoothing=0.1)


@pytest.mark.parametrize("x", [0.0, 0.01, 0.25, 0.5, 0.99, 1.0])  # corners, edges of cells, the far border
@pytest.mark.parametrize("y", [0.0, 0.5, 0.97, 1.0])
def test_targets_at_borders(x, y):
    head = _head()
    _check(head, _logits(head), torch.tensor([[1.0, 2.0, x, y, 0.1, 0.15]]))


def test_neighbours_are_the_nearest():
    head = SimpleNamespace(nc=1, no=6, nl=1, na=1, anchors=torch.ones(1, 1, 2), stride=torch.tensor([8.0]))
    logits = torch.zeros(1, 1, 8, 8, 6, requires_grad=True)
    loss, _ = DetectionLoss(head)([logits], torch.tensor([[0.0, 0.0, 3.3 / 8, 4.8 / 8, 1 / 8, 1 / 8]]))
    loss.backward()
    touched = logits.grad[0, 0, :, :, 0].nonzero().tolist()  # y, x of the cells with a box loss
    assert sorted(touched) == [[4, 2], [4, 3], [5, 3]]


def test_same_cell_goes_to_the_largest_iou():
    head = _head(nl=1, na=1)
    near = torch.tensor([[0.0, 0.0, 0.504, 0.504, 0.06, 0.12], [0.0, 1.0, 0.505, 0.505, 0.2, 0.3]])
    _check(head, _logits(head, images=1), near)


def test_order_of_targets_does_not_matter():
    head = _head()
    predictions, targets = _logits(head), _targets(head, num=100)  # 100: many share cells
    loss = DetectionLoss(head)
    for seed in range(5):
        shuffled = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))]
        torch.testing.assert_close(loss(predictions, shuffled), loss(predictions, targets), rtol=1e-6, atol=0)


@pytest.mark.parametrize("nc", [1, 4])
@pytest.mark.parametrize("num", [0, 1, 50])
def test_gradients_are_finite_and_reach_every_level(nc, num):
    head = _head(nc=nc)
    predictions = [p.mul(30).requires_grad_() for p in _logits(head)]  # x 30: sigmoids at their ends
    loss, parts = DetectionLoss(head)(predictions, _targets(head, num))
    loss.backward()
    for p in predictions:
        assert p.grad.isfinite().all()
        assert p.grad[..., 4].abs().sum() > 0
    assert not any(part.requires_grad for part in parts.values())
    if num == 0:
        assert parts["box"] == parts["cls"] == 0
        assert parts["obj"] > 0


def test_objectness_does_not_move_boxes():
    head = _head()
    predictions = [p.requires_grad_() for p in _logits(head)]
    DetectionLoss(head, Gains(0, 1, 0))(predictions, _targets(head))[0].backward()
    assert not any(p.grad[..., :4].any() for p in predictions)


def test_targets_that_fit_no_anchor():
    head = _head()
    predictions = _logits(head)
    _, none = DetectionLoss(head)(predictions, torch.zeros(0, 6))
    for wh in (1e-4, 0.0):
        _, parts = DetectionLoss(head)(predictions, torch.tensor([[0.0, 0.0, 0.5, 0.5, wh, wh]]))
        assert parts == none


def test_perfect_prediction_has_no_loss():
    head = _head()
    targets = torch.tensor([[0.0, 1.0, 0.40, 0.30, 0.15, 0.20], [1.0, 3.0, 0.71, 0.62, 0.3, 0.4]])
    predictions = [torch.full_like(p, -20.0) for p in _logits(head)]
    for p, anchors in zip(predictions, head.anchors, strict=True):
        _, _, ny, nx, _ = p.shape
        for image, label, x, y, w, h in targets.tolist():
            wh = torch.tensor([w * nx, h * ny])
            for i, j in _cells(x * nx, y * ny, nx, ny):
                drawn = p[int(image), :, j, i]
                drawn[:, :2] = ((torch.tensor([x * nx - i, y * ny - j]) + 0.5) / 2).logit()
                drawn[:, 2:4] = ((wh / anchors).sqrt() / 2).clamp(max=0.999).logit()
                drawn[:, 4] = torch.where((wh / anchors).maximum(anchors / wh).amax(1) < 4, 20.0, -20.0)
                drawn[:, 5 + int(label)] = 20
    _, parts = DetectionLoss(head)(predictions, targets)
    assert max(part.item() for part in parts.values()) < 1e-5


def test_least_loss_decodes_to_the_targets():
    """Descend on the logits alone; what the head makes of them must be the boxes and classes asked for."""
    head = Detect(3, [[10, 12, 16, 30, 33, 23], [30, 61, 62, 45, 59, 90]], [8, 8])
    head.set_strides([8.0, 16.0])
    logits = [torch.zeros(1, 3, 96 // s, 128 // s, 8, requires_grad=True) for s in (8, 16)]
    targets = torch.tensor([[0, 2, 0.3, 0.4, 0.25, 0.3], [0, 0, 0.8, 0.7, 0.3, 0.5], [0, 1, 0.61, 0.2, 0.1, 0.15]])
    optimizer, loss_of = torch.optim.Adam(logits, lr=0.2), DetectionLoss(head, Gains(1, 1, 1))
    for _ in range(400):
        optimizer.zero_grad()
        loss_of(logits, targets)[0].backward()
        optimizer.step()
    z = torch.cat([head.decode(level, i) for i, level in enumerate(logits)], 1)
    (found,) = non_max_suppression(z)
    found = found[found[:, 5].argsort()]
    assert found[:, 5].tolist() == [0, 1, 2]
    asked = targets[targets[:, 1].argsort(), 2:] * torch.tensor([128.0, 96.0, 128.0, 96.0])
    torch.testing.assert_close(box_convert(found[:, :4], "xyxy", "cxcywh"), asked, rtol=0, atol=1)  # pixels


def test_autocast():
    head = _head()
    layer = torch.nn.Linear(8, head.no)
    inputs = [torch.randn(*p.shape[:4], 8) for p in _logits(head)]
    with torch.autocast("cpu", torch.bfloat16):
        predictions = [layer(x) for x in inputs]
        assert predictions[0].dtype == torch.bfloat16
        loss, _ = DetectionLoss(head)(predictions, _targets(head))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert layer.weight.grad.isfinite().all()
    same, _ = DetectionLoss(head)([p.float() for p in predictions], _targets(head))
    assert loss.item() == pytest.approx(same.item(), rel=1e-6)


def test_follows_the_anchors_of_the_head():
    head = _head()
    loss, predictions, targets = DetectionLoss(head), _logits(head), _targets(head)
    head.anchors = head.anchors * 1.7
    assert torch.equal(loss(predictions, targets)[0], DetectionLoss(head)(predictions, targets)[0])


def test_scaled_gains():
    assert scaled_gains(3, 80, 640) == pytest.approx(Gains(0.05, 1.0, 0.5))
    assert scaled_gains(4, 20, 1280) == pytest.approx(Gains(0.0375, 3.0, 0.09375))


def test_too_many_levels():
    with pytest.raises(InputError, match="6 levels"):
        DetectionLoss(_head(nl=6))


def test_complete_iou_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(200, 4, generator=generator, dtype=torch.float64) + 0.1
    others = torch.rand(200, 4, generator=generator, dtype=torch.float64) + 0.1
    ours, theirs = boxes.clone().requires_grad_(), boxes.clone().requires_grad_()
    iou = complete_iou(ours, others)
    expected = 1 - complete_box_iou_loss(box_convert(theirs, "cxcywh", "xyxy"), box_convert(others, "cxcywh", "xyxy"))
    torch.testing.assert_close(iou, expected, rtol=1e-5, atol=1e-6)
    iou.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1e-3, 1e-8, 1e-20, 0.0])
def test_complete_iou_of_vanishing_boxes_is_finite(size):
    boxes = torch.tensor([[0.5, 0.5, size, size], [0.5, 0.5, size, 2.0], [0.5, 0.5, 2.0, size]], requires_grad=True)
    iou = complete_iou(boxes, torch.tensor([[0.4, 0.6, 2.0, 3.0]]).expand(3, 4))
    iou.sum().backward()
    assert iou.isfinite().all()
    assert boxes.grad.isfinite().all()
