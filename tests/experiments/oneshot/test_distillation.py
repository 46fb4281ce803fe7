"""Distillation losses against their closed forms, and what they do at the edges."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments.oneshot.distillation import AlphaDivergence, FeatureMimic
from experiments.training.distillation import DetectionMimic, SoftLabels, Tap, mimic_of
from models import Classifier, InputError, Model
from models.loss import DetectionLoss, Gains, complete_iou
from tests.refusal import refused

TINY = {
    "nc": 3,
    "anchors": [[8, 10, 12, 16], [20, 24, 28, 36]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C3", [16]]],
    "head": [[[1, 2], 1, "Detect", ["nc", "anchors"]]],
}


def logits(seed=0, n=6, nc=5, scale=2.0):
    return scale * torch.randn(n, nc, generator=torch.Generator().manual_seed(seed), dtype=torch.double).float()


def gradient(loss, student, teacher):
    student = student.clone().requires_grad_()
    loss(student, teacher).backward()
    return student.grad


def divergence(alpha):
    """D_α(p || q), the mean over samples, as AlphaNet's equation 4 has it."""

    def loss(student, teacher):
        p, q = teacher.softmax(1), student.softmax(1)
        if alpha == 1:
            return (p * (p / q).log()).sum(1).mean()
        if alpha == 0:
            return (q * (q / p).log()).sum(1).mean()
        return (q * ((p / q) ** alpha - 1)).sum(1).mean() / (alpha * (alpha - 1))

    return loss


def test_soft_labels_are_the_kl_divergence():
    s, t = logits(0), logits(1)
    for temperature in (1.0, 4.0):
        kl = divergence(1)(s / temperature, t / temperature) * temperature**2
        torch.testing.assert_close(SoftLabels(temperature)(s, t), kl)
    assert SoftLabels()(t, t).abs() < 1e-6


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
def test_alpha_divergence_and_its_gradient(alpha):
    s, t = logits(0, scale=0.5), logits(1, scale=0.5)
    loss = AlphaDivergence(alpha, alpha, clip=1e6)
    torch.testing.assert_close(loss(s, t), divergence(alpha)(s, t), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient(loss, s, t), gradient(divergence(alpha), s, t), rtol=1e-3, atol=1e-5)


def test_alpha_takes_the_larger_divergence_of_each_sample():
    s, t = logits(0), logits(1)
    loss = AlphaDivergence(clip=1e6)
    each = torch.stack(
        [torch.stack([divergence(a)(s[i : i + 1], t[i : i + 1]) for i in range(len(s))]) for a in (-1, 1)]
    )
    assert 0 < (each[0] > each[1]).sum() < len(s), "both happen"
    torch.testing.assert_close(loss(s, t), each.amax(0).mean(), rtol=1e-4, atol=1e-5)
    larger = each.argmax(0)
    expected = torch.cat(
        [gradient(divergence((-1, 1)[larger[i]]), s[i : i + 1], t[i : i + 1]) / len(s) for i in range(len(s))]
    )
    torch.testing.assert_close(gradient(loss, s, t), expected, rtol=1e-3, atol=1e-5)


def test_alpha_is_clipped_and_safe():
    confident, wrong = torch.tensor([[200.0, -200.0, 0.0]]), torch.tensor([[-200.0, 200.0, 0.0]])
    for s, t in ((confident, wrong), (wrong, confident), (confident, confident), (confident.half(), wrong.half())):
        loss = AlphaDivergence()
        assert loss(s, t).isfinite()
        assert gradient(loss, s, t).isfinite().all()
    # Of α = -1 the ratio q/p is held to the clip: q (min(q/p, 5) - 1) / 2.
    s, t = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    q, p = s.softmax(1), t.softmax(1)
    held = (q * ((q / p).clamp(max=1.5) - 1)).sum() / 2
    torch.testing.assert_close(AlphaDivergence(-1, -1, clip=1.5)(s, t), held)


@pytest.fixture(scope="module")
def detectors():
    torch.manual_seed(0)
    student, teacher = Model(TINY).train(), Model(TINY).train()
    with torch.no_grad():
        for conv in teacher.head.m:
            conv.bias += torch.randn_like(conv.bias)
            conv.bias.view(2, -1)[:, 4] += 2
            conv.weight.unflatten(0, (2, -1))[:, 4] *= 20  # in some places it sees something, in others nothing
    return student, teacher, torch.rand(2, 3, 64, 64)


def mimic(model, boxes="ciou", gains=(0.05, 1.0, 0.5)):
    return DetectionMimic(DetectionLoss(model.head, Gains(*gains)), boxes)


def test_mimic_has_no_gradient_at_its_teacher(detectors):
    student, teacher, x = detectors
    target = [level.detach() for level in teacher(x)]
    for boxes in ("ciou", "l1"):
        own = [level.clone().requires_grad_() for level in target]
        mimic(student, boxes)(own, target).backward()
        for level in own:
            assert level.grad.abs().max() < 1e-6
        away = [level.detach().clone().requires_grad_() for level in student(x)]
        loss = mimic(student, boxes)(away, target)
        loss.backward()
        assert loss > mimic(student, boxes)(target, target)
        assert all((level.grad.abs().sum((0, 1, 2, 3)) > 0).all() for level in away), "every logit learns"


@pytest.mark.parametrize("boxes", ["ciou", "l1"])
def test_mimic_is_the_sum_of_its_parts(boxes, detectors):
    student, teacher, x = detectors
    s, t = ([level.detach() for level in m(x)] for m in (student, teacher))
    obj, cls, box = 0.0, 0.0, 0.0
    for level, (a, b) in enumerate(zip(s, t, strict=True)):
        w = b[..., 4].sigmoid()
        balance = student_loss_balance(student)[level]
        obj += balance * F.binary_cross_entropy(a[..., 4].sigmoid(), w)
        bce = F.binary_cross_entropy(a[..., 5:].sigmoid(), b[..., 5:].sigmoid(), reduction="none").mean(-1)
        total = max(float(w.sum()), 1.0)
        weight = torch.where(w > 0.01, w * w, 0)
        assert 0 < int((weight == 0).sum()) < w.numel(), "some places are left out, and some are not"
        cls += (bce * weight).sum() / total
        drawn = []
        for z in (a, b):
            z, anchors = z.sigmoid(), student.head.anchors[level].view(1, 2, 1, 1, 2)
            drawn.append(torch.cat((2 * z[..., :2] - 0.5, (2 * z[..., 2:4]) ** 2 * anchors), -1))
        far = 1 - complete_iou(*(d.flatten(0, 3) for d in drawn)).view(w.shape)
        if boxes == "l1":
            far = (drawn[0] - drawn[1]).abs().mean(-1)
        box += (far * weight).sum() / total
    for gains, part in (((1, 0, 0), box), ((0, 1, 0), obj), ((0, 0, 1), cls)):
        torch.testing.assert_close(mimic(student, boxes, gains)(s, t), 2 * part, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("seen", "teaches"), [(0.009, False), (0.011, True)])
def test_where_a_teacher_sees_nothing_it_teaches_neither_boxes_nor_classes(seen, teaches, detectors):
    student, _, x = detectors
    s = [level.detach() for level in student(x)]
    t = [level + torch.randn(level.shape, generator=torch.Generator().manual_seed(0)) for level in s]
    for level in t:
        level[..., 4] = torch.logit(torch.tensor(seen))
    for gains in ((1, 0, 0), (0, 0, 1)):
        assert bool(mimic(student, gains=gains)(s, t) > 0) == teaches


def student_loss_balance(model):
    return DetectionLoss(model.head).balance


def test_no_gradient_goes_to_a_teacher(detectors):
    student, teacher, x = detectors
    for loss, network, inputs in ((mimic(student), teacher, x), (SoftLabels(), nn.Linear(3, 5), torch.rand(2, 3))):
        out = network(inputs)
        own = [level.detach().clone().requires_grad_() for level in out] if isinstance(out, list) else out.detach() * 2
        loss(own if isinstance(own, list) else own.requires_grad_(), out).backward()
        assert all(p.grad is None for p in network.parameters())


def test_mimic_is_finite_at_the_edges(detectors):
    student, _, x = detectors
    shape = [level.shape for level in student(x)]
    for a, b in ((100.0, -100.0), (-100.0, 100.0), (0.0, -1000.0)):
        own = [torch.full(s, a).requires_grad_() for s in shape]
        loss = mimic(student)(own, [torch.full(s, b) for s in shape])
        loss.backward()
        assert loss.isfinite()
        assert all(level.grad.isfinite().all() for level in own)


def test_a_teacher_of_other_maps_is_refused(detectors):
    student, teacher, x = detectors
    with pytest.raises(InputError, match="its teacher of"):
        mimic(student)(student(x), teacher(torch.rand(2, 3, 32, 32)))


def test_features_are_compared_channel_by_channel():
    t = torch.rand(2, 6, 4, 4)
    s = torch.rand(2, 4, 4, 4).requires_grad_()
    loss = FeatureMimic([3], weight=2.0)
    torch.testing.assert_close(loss([s], [t]), 2 * ((s - t[:, :4]) ** 2).mean())
    assert loss([t], [t]) == 0
    for wrong in (torch.rand(2, 8, 4, 4), torch.rand(2, 4, 2, 2)):
        with pytest.raises(InputError, match="--distill-rows 3: the student's map is"):
            loss([wrong], [t])


def test_tap_catches_output_and_rows_and_lets_go(detectors):
    student, _, x = detectors
    with Tap(student, [0, 2]) as tap:
        out = student(x)
        assert all(torch.equal(a, b) for a, b in zip(tap.output, out, strict=True))
        assert [f.shape[1] for f in tap.features] == [8, 16]
        student.eval()(x)
        assert [level.shape for level in tap.output] == [level.shape for level in out], "logits in eval mode, too"
    student.train()
    assert not any(m._forward_hooks for m in student.modules())
    with pytest.raises(InputError, match="rows 0 to 3"):
        Tap(student, [4])
    classifier = Classifier(TINY, 3)
    with Tap(classifier) as tap:
        assert torch.equal(classifier(x), tap.output)
    assert isinstance(classifier.linear, nn.Linear)


@pytest.mark.parametrize("form", [{"reg_max": 4}, {"reg_max": 1, "end2end": True}])
@pytest.mark.parametrize("boxes", ["ciou", "l1"])
def test_anchor_free_mimic(form, boxes):
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    torch.manual_seed(0)
    student, teacher = (
        Model({"nc": 2, **form, "backbone": rows, "head": [[[0, 1], 1, "Detect", ["nc"]]]}) for _ in range(2)
    )
    x = torch.rand(2, 3, 32, 32)
    loss = mimic_of(student.head.loss(), boxes)
    own = [level.detach() + torch.rand_like(level) for level in student(x)]
    target = [level.detach() + torch.rand_like(level) + 2 * (level > 0) for level in teacher(x)]
    away = [level.clone().requires_grad_() for level in own]
    value = loss(away, target)
    value.backward()
    assert value > loss(target, target)
    assert all((level.grad.abs().sum((2, 3))[:, -2:] > 0).all() for level in away), "every class learns"
    if student.head.end2end:  # a teacher in eval mode has the one-to-one branches alone
        alone = loss(own, target[2:])
        torch.testing.assert_close(loss(own[2:], target[2:]), alone)
        assert alone < value
    with refused("the student gives maps of", "teacher"):
        loss(own, [level[..., 1:] for level in target])
    same = [level.clone().requires_grad_() for level in target]
    loss(same, target).backward()
    assert all(level.grad.abs().max() < 1e-4 for level in same), "no gradient at the teacher"


@pytest.mark.parametrize(("boxes", "far"), [("ciou", 1 - 1 / 4), ("l1", 1.0)])
def test_anchor_free_mimic_of_one_cell(boxes, far):
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    head = Model({"nc": 2, "reg_max": 4, "backbone": rows, "head": [[[0, 1], 1, "Detect", ["nc"]]]}).head
    student, teacher = ([torch.full((1, 18, side, side), -30.0) for side in (8, 4)] for _ in range(2))
    for levels, distance in ((student, 1), (teacher, 2)):  # squares of 2 and of 4 cells, in one of which both are sure
        levels[0][0, [4 * side + distance for side in range(4)], 3, 3] = 30
        levels[0][0, 16, 3, 3] = 30
    loss = mimic_of(head.loss(), boxes)(student, teacher)
    assert loss.item() == pytest.approx(7.5 * far + 1.5 * 60, rel=1e-4)  # cross entropy: logits are 60 apart


def test_a_loss_without_a_mimic_is_refused():
    with refused("--distill mimic", "right would be none"):
        mimic_of(object(), "ciou")
