"""`train.py --teacher`: what is learnt from it, with which classes, and that it leaves no trace."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import train
from data import collate, detection
from experiments.tasks.detect import DetectionModule
from experiments.training import loop
from experiments.training.distillation import ChannelWise, DetectionMimic, DFLMimic, SoftLabels, mimic_of
from experiments.training.lessons import Lessons, Teacher
from models import Model, load_classifier, load_detector, save_detector
from models.classifier import Classifier
from models.files import save_classifier
from tests.lively import TINY, lively

NAMES = [f"digit {i}" for i in range(10)]
QUICK = ("--imgsz", 64, "--batch", 4, "--device", "cpu")
DFL = {k: v for k, v in TINY.items() if k != "anchors"}
DFL["head"] = [*TINY["head"][:-1], [[8, 5], 1, "Detect", ["nc"]]]


def options(**given):
    known = {"distill": "logits", "distill_weight": 1.0, "distill_temperature": 1.0, "imgsz": 64}
    return SimpleNamespace(**known | given)


def of_width(cfg, multiple):
    return {**cfg, "width_multiple": multiple}


def made(cfg, names=NAMES, seed=0):
    torch.manual_seed(seed)
    model = Model(cfg, nc=len(names))
    model.names = dict(enumerate(names))
    return model


@pytest.fixture(scope="module")
def batch(digits):
    return collate([detection(digits(), 64, None, 0).val[i] for i in range(4)])


@pytest.fixture(scope="module")
def images(batch):
    return batch.images.float() / 255


def lesson_of(student, teacher, batch, **given):
    """(loss of a batch, what of it is learnt from the teacher)."""
    lessons = Lessons.of(Teacher(teacher, "t.pt"), student, options(**given))
    learner = DetectionModule(NAMES, 64)
    learner.log = lambda *args, **more: None
    learner.set_model(student.train())
    both = lessons.loss(learner, batch, 0)
    return both, both - learner.training_step(batch, 0)


def test_logits_are_learnt_beside_the_labels(batch, images):
    for cfg, mimic in ((TINY, DetectionMimic), (DFL, DFLMimic)):
        student, teacher = made(cfg), made(of_width(cfg, 2.0), seed=1).eval()
        _, lesson = lesson_of(student, teacher, batch, distill_weight=0.5)
        expected = mimic(student.head.loss(64))(student(images), teacher(images)[1])
        assert lesson.item() == pytest.approx(0.5 * expected.item(), rel=1e-4)


def test_classes_go_by_name(batch):
    """A teacher that has them in another order, or more of them, teaches the same."""
    for cfg in (TINY, DFL):
        student, teacher = made(cfg), made(cfg, seed=1)
        more = made(cfg, ["other", *NAMES[::-1]], seed=1)
        state, own = teacher.state_dict(), more.state_dict()
        order = [0, *range(10, 0, -1)]  # of the new classes, the first of which is anything
        by_class = teacher.head.by_class()
        last = len(teacher.model) - 1
        for key, value in state.items():
            layer = key.removeprefix(f"model.{last}.").rpartition(".")[0]
            if key.startswith(f"model.{last}.") and layer in by_class:
                groups, before = by_class[layer]
                rows = value.view(groups, -1, *value.shape[1:])
                new = own[key].view(groups, -1, *value.shape[1:]).clone()
                new[:, :before] = rows[:, :before]
                new[:, before:] = rows[:, [before + max(i - 1, 0) for i in order]]
                own[key] = new.flatten(0, 1)
                if key.endswith("bias"):
                    own[key].view(groups, -1)[:, before] = -20  # nothing is of the other class
            elif own[key].shape == value.shape:
                own[key] = value
        more.load_state_dict(own)
        expected, found = (lesson_of(student, t, batch)[1].item() for t in (teacher, more))
        assert found == pytest.approx(expected, rel=1e-4)
        assert found > 0


def test_what_is_of_a_class_that_is_not_known_is_no_object(images):
    """A teacher that sees only such has nothing to say of boxes."""
    student, teacher = made(TINY), lively(images, ["other", *NAMES])
    lessons = Lessons.of(Teacher(teacher, "t.pt"), student, options())
    logits = [torch.zeros(1, 2, 4, 4, 16) for _ in range(2)]
    for level in logits:
        level[..., 4], level[..., 5] = 8, 8  # an object of the class "other"; the classes that are known: one half
    seen = lessons._of_classes(logits)
    assert seen[0].shape == (1, 2, 4, 4, 15)
    p = torch.tensor(8.0).sigmoid()
    assert seen[0][..., 4].sigmoid().mean().item() == pytest.approx(float(p * 0.5 / p), rel=1e-4)


@torch.no_grad()
def test_the_temperature_softens_classes(images):
    """By it, the classes' part alone changes, to its closed form."""
    student, teacher = made(TINY), lively(images, NAMES)
    s, t = student.train()(images), teacher(images)[1]
    loss = student.head.loss(64)

    def classes(temperature):
        total = 0
        for own, given in zip(s, t, strict=True):
            seen = given[..., 4].sigmoid()
            of = F.binary_cross_entropy_with_logits(
                own[..., 5:] / temperature, (given[..., 5:] / temperature).sigmoid(), reduction="none"
            )
            weight = torch.where(seen > 0.01, seen**2, 0.0)
            total += loss.gains.cls * (of.mean(-1) * weight).sum() / seen.sum() * temperature**2 * len(images)
        return float(total)

    change = float(mimic_of(loss, temperature=3.0)(s, t) - mimic_of(loss)(s, t))
    assert change == pytest.approx(classes(3) - classes(1), rel=1e-3)
    assert abs(change) > 1

    student, teacher = made(DFL), made(DFL, seed=1)
    s, t = student.train()(images), [level * 3 for level in teacher.train()(images)]
    (_, own), (_, given) = student.head.split(s), student.head.split(t)
    total = given.sigmoid().amax(1).sum().clamp_min(1)

    def of_cells(k):
        entropy = F.binary_cross_entropy_with_logits(own / k, (given / k).sigmoid(), reduction="sum")
        return float(entropy / total * k**2 * student.head.loss(64).gains.cls * len(images))

    loss = student.head.loss(64)
    change = float(mimic_of(loss, temperature=3.0)(s, t) - mimic_of(loss)(s, t))
    assert change == pytest.approx(of_cells(3) - of_cells(1), rel=1e-3)


def test_channel_wise_is_the_kl_divergence_over_places():
    loss = ChannelWise([(3, 3)], temperature=2.0)
    loss.adapters[0].weight.data = torch.eye(3).view(3, 3, 1, 1)
    loss.adapters[0].bias.data.zero_()
    s, t = torch.randn(2, 2, 3, 4, 5)
    p, q = ((x / 2).flatten(2).softmax(2) for x in (t, s))
    expected = (p * (p / q).log()).sum(2).mean() * 4
    torch.testing.assert_close(loss([s], [t]), expected)
    assert loss([t], [t]).abs() < 1e-6
    assert loss([t + 5], [t]).abs() < 1e-5  # where a channel looks, not how much it is


def test_features_are_brought_to_the_teachers_width(batch, images):
    student, teacher = made(TINY), made(of_width(DFL, 2.0), seed=1).eval()  # whichever head it has
    lessons = Lessons.of(Teacher(teacher, "t.pt"), student, options(distill="features"))
    assert [(a.in_channels, a.out_channels) for a in lessons.features.adapters] == [(32, 64), (32, 64)]
    learner = DetectionModule(NAMES, 64)
    learner.log = lambda *args, **more: None
    learner.set_model(student.train())
    loss = lessons.loss(learner, batch, 0)
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in lessons.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_network_comes_nearer_to_its_teacher(images):
    """By the lesson alone, and not merely by training."""
    torch.manual_seed(0)
    cfg = {"backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]}
    student, teacher = Classifier(cfg, 10), Classifier(of_width(cfg, 2.0), 10).eval()
    for network in (student, teacher):
        network.names = dict(enumerate(NAMES))
    teacher.linear.weight.data *= 20
    x = torch.rand(32, 3, 16, 16)
    lessons = Lessons.of(Teacher(teacher, "t.pt"), student, options(distill="both", imgsz=16))
    learner = SimpleNamespace(
        model=student,
        sums_loss=False,
        training_step=lambda batch, i: student(batch).sum() * 0,
        inputs=lambda batch: batch,
        log=lambda *args, **more: None,
    )
    optimizer = torch.optim.SGD([*student.parameters(), *lessons.parameters()], 0.1)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = lessons.loss(learner, x, 0)
        loss.backward()
        optimizer.step()
        found.append(SoftLabels()(student(x), teacher(x)).item())
    assert found[-1] < 0.7 * found[0]


@pytest.fixture(scope="module")
def files(tiny_cfg, tmp_path_factory):
    """A teacher's file, twice as wide as the student; and others that cannot teach it."""
    folder = tmp_path_factory.mktemp("teachers")
    model = Model(tiny_cfg, nc=10)
    raw = model.config.raw
    known = {i: str(i) for i in range(10)}
    others = {
        "teacher": {**raw, "width_multiple": 2.0, "anchors": [[6, 9, 14, 15], [22, 25, 30, 40]]},
        "strides": {**raw, "head": [[[2, 4], 1, "Detect", ["nc", "anchors"]]]},
        "head": {**{k: v for k, v in raw.items() if k != "anchors"}, "head": [[[4, 5], 1, "Detect", ["nc"]]]},
        "anchors": {**raw, "anchors": 3},
    }
    for i, (name, cfg) in enumerate(others.items()):
        save_detector(made(cfg, list(known.values()), seed=i), folder / f"{name}.pt", imgsz=64)
    save_detector(made(raw, [*"abcdefghij"]), folder / "classes.pt", imgsz=64)
    torch.manual_seed(0)
    for name, seed in (("classifier", 0), ("other", 1)):
        torch.manual_seed(seed)
        network = Classifier({"backbone": [[-1, 1, "Conv", [16, 3, 2]]]}, 10)
        save_classifier(network, folder / f"{name}.pt", [str(i) for i in range(10)], imgsz=16)
    return folder


def test_a_run_with_a_teacher(call, files, tiny_cfg, digits, monkeypatch):
    """Goes on bit for bit; adapters learn and are no part of the result, nor is the teacher of a checkpoint."""
    given = ("--cfg", tiny_cfg, "--data", digits(4), *QUICK, "--teacher", files / "teacher.pt", "--distill", "both")
    status, out, err = call(train, *given, "--epochs", 3, "--name", "whole")
    assert (status, err) == (0, "")
    assert "anchors: the teacher's: [[6.0, 9.0, 14.0, 15.0], [22.0, 25.0, 30.0, 40.0]]" in out
    rows = Path("runs/train/whole/metrics.csv").read_text().splitlines()
    assert "train_distill" in rows[0]
    place = rows[0].split(",").index("train_distill")
    assert all(float(row.split(",")[place]) > 0 for row in rows[1:])

    begun = loop.Training.on_train_epoch_start

    def interrupted(self):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        begun(self)

    monkeypatch.setattr(loop.Training, "on_train_epoch_start", interrupted)
    status, _, err = call(train, *given, "--epochs", 3, "--name", "a")
    assert status == 130
    monkeypatch.setattr(loop.Training, "on_train_epoch_start", begun)
    status, _, err = call(train, "--resume", "runs/train/a")
    assert (status, err) == (0, "")
    whole, again = (
        torch.load(f"runs/train/{name}/last.ckpt", weights_only=False)["state_dict"] for name in ("whole", "a")
    )
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    adapters = {key for key in whole if "adapters" in key}
    assert len(adapters) == 4
    model = load_detector("runs/train/a/detector.pt")[0]
    assert model.state_dict().keys() == Model(tiny_cfg).state_dict().keys()
    assert {key for key in whole if key.startswith("learner.")} | adapters == set(whole)


def test_a_classifier_learns_from_another(call, files):
    given = ("--weights", files / "classifier.pt", "--epochs", 1, "--batch", 300, "--device", "cpu")
    for name, more in (("alone", ()), ("taught", ("--teacher", files / "other.pt", "--distill", "both"))):
        status, _, err = call(train, *given, *more, "--name", name)
        assert (status, err) == (0, "")
    one, other = (load_classifier(f"runs/train/{name}/classifier.pt")[0].state_dict() for name in ("alone", "taught"))
    assert one.keys() == other.keys()
    assert not torch.equal(one["linear.weight"], other["linear.weight"])


REFUSED = [
    ("gone.pt", (), "--teacher gone.pt: no such file"),
    ("strides.pt", (), "has maps of strides 4, 8, and what is trained of 8, 16"),
    ("strides.pt", ("--distill", "features"), "has maps of strides 4, 8, and what is trained of 8, 16"),
    ("head.pt", (), "has the head DetectDFL, and what is trained has Detect; right would be --distill features"),
    ("anchors.pt", (), "its head speaks of other boxes"),
    ("classes.pt", (), "does not know the class '0'; it knows a, b, c"),
    ("classifier.pt", (), "does another task than this; right would be a detector.pt"),
]


@pytest.mark.parametrize(("name", "more", "message"), REFUSED)
def test_what_cannot_teach_is_refused(name, more, message, call, files, tiny_cfg, digits):
    path = files / name if name != "gone.pt" else name
    given = ("--cfg", tiny_cfg, "--data", digits(4), *QUICK, "--epochs", 1)
    status, _, err = call(train, *given, "--teacher", path, *more)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_options_of_a_teacher_need_one(call, tiny_cfg):
    status, _, err = call(train, "--cfg", tiny_cfg, "--distill", "both")
    assert status == 2
    assert "--distill: is of --teacher" in err
