"""Images with boxes, as the network sees them."""

import numpy as np
import pytest
from PIL import Image

from data import Hyp, detection
from experiments.inference import preview
from experiments.inference.draw import color_of, draw_labels


def sheet(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_images_with_boxes_as_they_are_trained_on(tmp_path, call, digits):
    yaml = digits(6, 96)
    code, out, err = call(preview, "--data", yaml, "--imgsz", 64, "--images", 5, "--out", "looks/a.png")
    assert code == 0, err
    assert "looks/a.png: 5 images of 6 at 64 pixels, " in out
    drawn = sheet(tmp_path / "looks/a.png")
    assert drawn.shape == (128, 256, 3)
    item = detection(yaml, 64, None).train[0]
    c, x, y, w, _ = item.labels[0].tolist()
    left, middle = round((x - w / 2) * 64), round(y * 64)
    assert abs(drawn[middle, max(left - 1, 0) : left + 2] - color_of(int(c))).sum(1).min() == 0, "the edge of its box"
    plain = item.image.permute(1, 2, 0).numpy()
    assert (drawn[:64, :64] == draw_labels(plain, item.labels, dict(enumerate("0123456789")))).all()


def test_augmented_they_are_those_of_a_training(tmp_path, call, digits):
    yaml = digits(6, 64)
    given = ["--data", yaml, "--imgsz", 64, "--images", 2, "--augment", "--hyp", "mixup=1", "--seed", 3, "--epoch", 2]
    assert call(preview, *given, "--out", "a.png")[0] == 0
    train = detection(yaml, 64, Hyp(mixup=1), 3).train
    train.set_epoch(1)
    item = train[5]
    expected = draw_labels(item.image.permute(1, 2, 0).numpy(), item.labels, dict(enumerate("0123456789")))
    assert (sheet(tmp_path / "a.png")[:64, 64:128] == expected).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--out", "a.txt"], "--out a.txt: right would be a name that ends with .jpg, .jpeg, .png"),
        (["--augment", "--split", "val"], "--augment: only training images are augmented"),
        (["--hyp", "mosaic=1"], "--hyp: is of --augment"),
        (["--augment", "--hyp", "mosaics=1"], "--hyp mosaics: right would be one of"),
    ],
)
def test_what_is_refused(tmp_path, call, digits, line, message):
    code, _, err = call(preview, "--data", digits(4), *line)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())
