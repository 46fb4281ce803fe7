"""Boxes stay on their objects, whatever is done to the image; and the same draw is made whoever draws it."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data import EpochSampler, Hyp, augment, collate, detect, detection, letterbox
from data.augment import RANGES
from data.detect_index import NOTHING_IGNORED
from data.report import Report
from models.errors import InputError
from tests.refusal import refused

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)])
OFF = Hyp(hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=0, flipud=0, mosaic=0, mixup=0)


class Painted:
    """Black images, each with one rectangle in the colour of its class."""

    def __init__(self, count: int = 6):
        rng = np.random.default_rng(0)
        self.report = Report("train")
        self.shapes = [(int(h), int(w)) for h, w in rng.integers(60, 200, (count, 2))]
        self.labels, self._corners, self.ignored = [], [], [NOTHING_IGNORED] * count
        for i, (h, w) in enumerate(self.shapes):
            x1, y1 = int(rng.integers(0, w // 2)), int(rng.integers(0, h // 2))
            x2, y2 = x1 + int(rng.integers(20, w // 2)), y1 + int(rng.integers(20, h // 2))
            self._corners.append((x1, y1, x2, y2))
            box = [i % 4, (x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h]
            self.labels.append(np.array([box], dtype=np.float32))

    def name(self, i: int) -> str:
        return f"painted/{i}"

    def read(self, i: int) -> np.ndarray:
        image = np.zeros((*self.shapes[i], 3), dtype=np.uint8)
        x1, y1, x2, y2 = self._corners[i]
        image[y1:y2, x1:x2] = COLOURS[i % 4]
        return image

    def drop(self, bad: dict[int, str]) -> None:
        raise AssertionError


def corners_of(item: detect.Item) -> np.ndarray:
    _, h, w = item.image.shape
    rows = item.labels.numpy().astype(np.float64)
    half = rows[:, 3:] / 2
    return np.concatenate([rows[:, 1:3] - half, rows[:, 1:3] + half], 1) * [w, h, w, h]


def assert_boxes_are_on_their_objects(item: detect.Item, tolerance: float = 1.6) -> int:
    """Every box is tight around pixels of its colour, to `tolerance` pixels. Returns how many there are."""
    image = item.image.permute(1, 2, 0).numpy().astype(int)
    boxes = corners_of(item)
    for label, (x1, y1, x2, y2) in zip(item.labels[:, 0].int().tolist(), boxes, strict=True):
        like = (np.abs(image - COLOURS[label]) < 100).all(2)
        a, b, c, d = (int(np.floor(v)) for v in (y1, y2, x1, x2))
        inner = like[a + 2 : b - 1, c + 2 : d - 1]
        assert inner.size == 0 or inner.mean() > 0.99
        around = like[max(a - 3, 0) : b + 4, max(c - 3, 0) : d + 4]
        ys, xs = np.nonzero(around)
        seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) + [max(c - 3, 0), max(a - 3, 0)] * 2
        assert np.abs(seen - [x1, y1, x2, y2]).max() <= tolerance
    return len(boxes)


@pytest.mark.parametrize(
    "hyp",
    [
        OFF,
        replace(OFF, fliplr=1.0),
        replace(OFF, flipud=1.0),
        replace(OFF, scale=0.5),
        replace(OFF, translate=0.2),
        replace(OFF, mosaic=1.0),
        replace(OFF, mosaic=1.0, scale=0.5, translate=0.1, fliplr=0.5, flipud=0.5),
    ],
    ids=["off", "fliplr", "flipud", "scale", "translate", "mosaic", "all"],
)
def test_boxes_stay_on_their_objects(hyp):
    train = detect.DetectionSet(Painted(), 160, hyp)
    boxes = 0
    for epoch in range(10):
        train.set_epoch(epoch)
        boxes += sum(assert_boxes_are_on_their_objects(train[i]) for i in range(len(train)))
    assert boxes > 30


def test_letterboxed_boxes_are_on_their_objects():
    val = detect.DetectionSet(Painted(), 160)
    assert sum(assert_boxes_are_on_their_objects(val[i]) for i in range(len(val))) == 6


@pytest.mark.parametrize("shape", [(480, 640), (37, 91), (200, 200), (1, 500), (33, 7)])
@pytest.mark.parametrize("imgsz", [320, 96])
@pytest.mark.parametrize("rect", [False, True])
def test_letterbox_maps_there_and_back(shape, imgsz, rect):
    image = np.full((*shape, 3), 50, dtype=np.uint8)
    canvas, box = letterbox(image, imgsz, rect=rect)
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 1, (50, 4)) * ([shape[1], shape[0]] * 2)
    assert box.to_image(box.to_canvas(boxes)) == pytest.approx(boxes, abs=1e-9)
    there = box.to_canvas(torch.from_numpy(boxes))
    assert torch.allclose(box.to_image(there), torch.from_numpy(boxes), atol=1e-9)
    # The image's own edges land on the edges of what is not padding.
    ys, xs = np.nonzero((canvas == 50).all(2))
    edges = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert box.to_canvas(np.array([0.0, 0.0, shape[1], shape[0]])) == pytest.approx(edges, abs=1e-9)
    assert (canvas[canvas != 50] == 114).all()
    assert canvas.shape[:2] == box.size
    assert max(edges[2] - edges[0], edges[3] - edges[1]) == imgsz
    if rect:
        assert all(side % 32 == 0 for side in box.size)
        assert box.size[0] * box.size[1] <= imgsz * imgsz


def test_flips_are_their_own_inverse():
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), rng.uniform(0, 30, (5, 5))
    for flip in (augment.flip_left_right, augment.flip_up_down):
        once, twice = flip(image, labels), flip(*flip(image, labels))
        assert not np.array_equal(once[0], image)
        assert np.array_equal(twice[0], image)
        assert twice[1] == pytest.approx(labels)


def test_scaling_is_about_the_centre_to_the_fraction_of_a_pixel():
    image = np.zeros((20, 20, 3), np.uint8)
    image[5:15, 5:15] = 200
    box = np.array([[0, 5, 5, 15, 15]], dtype=float)
    for seed in range(10):
        out, rows = augment.scale_and_shift(image, box, 20, replace(OFF, scale=0.5), np.random.default_rng(seed))
        assert rows[0, 1] + rows[0, 3] == pytest.approx(20)
        assert np.abs(out.astype(int) - out[::-1, ::-1]).max() <= 8  # OpenCV interpolates in 1/32 of a pixel


def test_what_was_cut_off_by_the_mosaic_stays_cut_off():
    image = np.zeros((100, 100, 3), np.uint8)
    box = np.array([[0, -40, 20, 60, 80]], dtype=float)  # 40 pixels of it lie left of the canvas
    out, rows = augment.scale_and_shift(image, box, 160, OFF, np.random.default_rng(0))
    assert rows[0, 1:].tolist() == [30, 50, 90, 110]
    assert (out[:, :30] == 114).all()


def test_mixup_unites_labels_and_blends_pixels():
    train = detect.DetectionSet(Painted(), 160, replace(OFF, mixup=1.0))
    item = train[0]
    assert len(item.labels) == 2
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)
    blend, labels = augment.mixup(black, np.zeros((2, 5)), white, np.ones((3, 5)), np.random.default_rng(0))
    assert 40 < blend.mean() < 160
    assert labels[:, 0].tolist() == [0, 0, 1, 1, 1]


def test_colour_gains_keep_the_shape_and_are_near_identity_at_zero():
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    same = augment.colour(image, OFF, np.random.default_rng(0))
    assert np.abs(same.astype(int) - image).mean() < 2  # OpenCV's 8-bit HSV rounds
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = [augment.colour(grey, replace(OFF, hsv_v=0.4), np.random.default_rng(s)).mean() for s in range(30)]
    assert 60 <= min(values) < 80
    assert 120 < max(values) <= 140


def test_boxes_too_small_to_learn_are_dropped():
    whole = np.array([[0, 0, 100, 100], [0, 0, 100, 100], [0, 0, 10, 10], [0, 0, 400, 3]], dtype=float)
    seen = np.array([[0, 0, 50, 50], [0, 0, 9, 100], [0, 0, 1.9, 10], [0, 0, 400, 3]], dtype=float)
    assert augment._worth_keeping(whole, seen).tolist() == [True, False, False, False]


def test_an_item_is_a_function_of_seed_epoch_and_index():
    def items(seed: int, epoch: int) -> list[torch.Tensor]:
        train = detect.DetectionSet(Painted(), 96, Hyp(mixup=0.5), seed)
        train.set_epoch(epoch)
        return [train[i].image for i in reversed(range(len(train)))]

    def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[bool]:
        return [x.equal(y) for x, y in zip(a, b, strict=True)]

    assert all(same(items(0, 3), items(0, 3)))
    assert not any(same(items(0, 3), items(0, 4)))
    assert not any(same(items(0, 3), items(1, 3)))


def test_workers_do_not_change_what_is_seen():
    def batches(workers: int) -> list[detect.Batch]:
        train = detect.DetectionSet(Painted(9), 96, Hyp())
        sampler = EpochSampler(train, seed=1)
        loader = DataLoader(
            train, 4, sampler=sampler, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,
        )  # fmt: skip
        seen = []
        for epoch in (2, 3):
            sampler.set_epoch(epoch)
            seen += list(loader)
        return seen

    alone, helped = batches(0), batches(2)
    assert len(alone) == len(helped) == 6
    for a, b in zip(alone, helped, strict=True):
        assert a.images.equal(b.images)
        assert a.targets.equal(b.targets)
        assert [m[:3] for m in a.metas] == [m[:3] for m in b.metas]
        assert all(np.array_equal(m.ignored, n.ignored) for m, n in zip(a.metas, b.metas, strict=True))


def test_collate_numbers_the_images():
    val = detect.DetectionSet(Painted(), 96)
    background = val[1]._replace(labels=val[1].labels[:0])
    batch = collate([val[0], background, val[2]])
    assert batch.images.shape == (3, 3, 96, 96)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.dtype == torch.float32
    assert batch.targets[:, 0].tolist() == [0, 2]
    assert batch.targets[1, 1:].equal(val[2].labels[0])
    assert collate([background]).targets.shape == (0, 6)


def test_digits_detect_boxes_are_tight_and_reproducible(tmp_path):
    source = tmp_path / "d.yaml"
    source.write_text("format: digits-detect\ntrain: 12\nval: 8\ncanvas: 128\nmirror: false\n")
    data = detection(source, 128)
    assert data.train.hyp == Hyp(fliplr=0.0)
    assert data.nc == 10
    assert [len(data.train), len(data.val)] == [12, 8]
    again = detection(source, 128, seed=9)
    for i in range(8):
        item = data.val[i]
        assert item.image.equal(again.val[i].image)
        assert len(item.labels) > 0
        image = item.image.float().mean(0).numpy()
        for x1, y1, x2, y2 in corners_of(item).round().astype(int):
            assert 4 <= max(x2 - x1, y2 - y1) <= 0.4 * 128 + 1
            assert 0 <= x1 < x2 <= 128
            assert 0 <= y1 < y2 <= 128
            # Ink stands out from paper: by far more than the texture's own spread.
            assert np.ptp(image[y1:y2, x1:x2]) > 30
    assert detection("digits-detect", 320, hyp=None).train.report.images == 800


def test_digits_detect_says_what_is_no_number(tmp_path):
    source = tmp_path / "d.yaml"
    for text, message in (
        ("train: many\nval: 8\n", "train is 'many'"),
        ("train: 4\nval: 8\ntest: 0\n", "test is 0; give train, val and test a number of images"),
        ("train: 4\nval: 8\ncanvas: 10\n", "canvas is 10"),
    ):
        source.write_text("format: digits-detect\n" + text)
        with pytest.raises(InputError, match=message):
            detection(source)


def test_every_hyper_parameter_has_a_range_and_a_reason():
    assert [*RANGES] == [f.name for f in fields(Hyp)]
    for name, (least, greatest, why) in RANGES.items():
        assert {getattr(Hyp(**{name: value}), name) for value in (least, greatest)} == {least, greatest}
        assert why
        for value in (least - 0.01, greatest + 0.011, float("nan"), float("inf"), 1e9):
            with refused(f"{name}={value:g}: right would be {least:g} to {greatest:g}; it is {why}"):
                Hyp(**{name: value})


def test_the_table_in_the_docs_is_that_of_the_ranges():
    text = (Path(__file__).parents[2] / "docs/detector.md").read_text(encoding="utf-8")
    for name, (least, greatest, why) in RANGES.items():
        assert f"| `{name}` | {getattr(Hyp(), name):g} | {least:g} | {greatest:g} | {why} |" in text
