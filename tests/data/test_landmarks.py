"""Landmarks: lists of three forms, what is cut out and how points follow, and one line for what is no list."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from data.landmark_files import read_marked
from data.landmarks import landmarks
from models.errors import InputError

POINTS = np.array([[10, 20], [50, 20], [30, 60]], float)  # pixels of images of 80 x 80
ANGLES = (10.0, 0.0, 60.0)


def paint(path, size=(80, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((*size, 3), np.uint8)
    for (x, y), channel in zip(POINTS.astype(int), range(3), strict=True):
        image[y - 2 : y + 3, x - 2 : x + 3, channel] = 255  # point k is of colour k
    Image.fromarray(image).save(path)


def text_of(kind, name):
    numbers = " ".join(f"{v:g}" for v in POINTS.ravel())
    if kind == "wflw":
        return f"{numbers} 5 15 55 65 0 0 0 0 0 1 {name}\n"
    if kind == "pfld":
        shares = " ".join(f"{v / 80:g}" for v in POINTS.ravel())
        return f"{name} {shares} 0 0 0 0 0 1 {' '.join(map(str, ANGLES))}\n"
    return f"{name},{numbers.replace(' ', ',')}\n"


def a_set(folder, kind, number=4, **more):
    """A set of a form, `number` training images and as many of validation; its YAML."""
    for split in ("train", "val"):
        names = [f"{split}{i}.png" for i in range(number)]
        for name in names:
            paint(folder / "images" / split / name)
        if kind == "pts":
            for name in names:
                lines = "\n".join(f"{x + 1:g} {y + 1:g}" for x, y in POINTS)
                file = (folder / "images" / split / name).with_suffix(".pts")
                file.write_text(f"version: 1\nn_points: 3\n{{\n{lines}\n}}\n")
            continue
        head = "image,x0,y0,x1,y1,x2,y2\n" if kind == "csv" else ""
        (folder / f"{split}.txt").write_text(head + "".join(text_of(kind, f"{split}/{n}") for n in names))
    places = {s: f"images/{s}" if kind == "pts" else f"{s}.txt" for s in ("train", "val")}
    content = {"format": "wflw" if kind == "pfld" else kind, "images": "images", "normalise": [0, 1], **places, **more}
    file = folder / "set.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def colour_at(image, points):
    """Which channel is brightest at each of the points, (K, 2) in shares of the side."""
    side = image.shape[-1]
    return [int(image[:, int(y * side), int(x * side)].argmax()) for x, y in points.tolist()]


@pytest.mark.parametrize("kind", ["wflw", "pfld", "pts", "csv"])
@pytest.mark.parametrize("crop", [1.5, None])
def test_points_lie_on_what_they_mark(tmp_path, kind, crop):
    data = landmarks(a_set(tmp_path, kind, crop=crop), 64)
    assert (data.num_points, data.normalise, data.names[:3]) == (3, (0, 1), ("x0", "y0", "x1"))
    for split in (data.val, data.both):  # as they are, and turned, scaled and shifted
        for image, target in (split[i] for i in range(len(split))):
            points = target[:-1].view(3, 2)
            assert ((points > 0) & (points < 1)).all()
            assert colour_at(image, points) == [0, 1, 2]


def test_cut_out_around_the_points(tmp_path):
    image, target = landmarks(a_set(tmp_path, "csv", crop=1.25), 64).val[0]
    assert image.shape == (3, 64, 64)
    points = target[:-1].view(3, 2)
    # 40 pixels wide and high, of 50: a tenth is left at every side.
    assert torch.allclose(
        torch.stack((points.amin(0), points.amax(0))), torch.tensor([[0.1, 0.1], [0.9, 0.9]]), atol=1e-5
    )


def test_pose_is_that_of_the_list_and_turns_with_the_image(tmp_path):
    data = landmarks(a_set(tmp_path, "pfld", rotate=0.0), 64)
    told = sum(1 - np.cos(np.radians(ANGLES)))
    assert float(data.val[0][1][-1]) == pytest.approx(told, rel=1e-5)
    assert float(data.both[0][1][-1]) == pytest.approx(told, rel=1e-5)
    turned = landmarks(a_set(tmp_path, "pfld", rotate=90.0), 64)
    assert len({float(turned.both[i][1][-1]) for i in range(4)}) == 4
    assert float(landmarks(a_set(tmp_path, "csv"), 64).val[0][1][-1]) == 0


def test_a_mirrored_point_has_the_number_of_the_other_side(tmp_path):
    data = landmarks(a_set(tmp_path, "csv", number=12, flip=[1, 0, 2], rotate=0.0), 64)
    seen = set()
    for image, target in (data.both[i] for i in range(12)):
        points = target[:-1].view(3, 2)
        colours = colour_at(image, points)
        seen.add(tuple(colours))
        assert points[0, 0] < points[1, 0], "0 stays the left one"
    assert seen == {(0, 1, 2), (1, 0, 2)}


def test_splits_are_disjoint_and_draws_depend_on_seed_and_epoch_alone(tmp_path):
    file = a_set(tmp_path, "csv", number=10)
    data = landmarks(file, 32, arch_share=0.2)
    assert (len(data.train), len(data.arch), len(data.both), len(data.val)) == (8, 2, 10, 10)
    assert not {*data.train.indices.tolist()} & {*data.arch.indices.tolist()}
    again = landmarks(file, 32, arch_share=0.2)
    assert torch.equal(data.both[0][0], again.both[0][0])
    again.both.set_epoch(1)
    assert not torch.equal(data.both[0][1], again.both[0][1])


def test_digits_have_their_ends_and_centre():
    data = landmarks("digits-landmarks", 64)
    assert (len(data.both), len(data.val)) == (1438, 359)
    image, target = data.val[5]
    left, right, top, bottom, centre = target[:-1].view(5, 2)
    assert left[0] == target[:-1:2].min()
    assert right[0] == target[:-1:2].max()
    assert top[1] == target[1:-1:2].min()
    assert bottom[1] == target[1:-1:2].max()
    assert left[0] < centre[0] < right[0]
    assert top[1] < centre[1] < bottom[1]
    x, y = (float(v) * 64 for v in top)
    above, at = image[0, max(round(y) - 4, 0), round(x)], image[0, round(y) : round(y) + 2, round(x)].max()
    assert at > above, "ink begins at the uppermost point"


BAD = {
    "two points fewer": (
        lambda f: (f / "train.txt").write_text("image,x0,y0,x1,y1,x2,y2\nval/val0.png,1,2\n"),
        "3 columns",
    ),
    "no number": (
        lambda f: (f / "train.txt").write_text("image,x0,y0,x1,y1,x2,y2\nval/val0.png,1,2,a,3,4,5\n"),
        r"train.txt:2: 'a' is no number",
    ),
    "not finite": (
        lambda f: (f / "train.txt").write_text("image,x0,y0,x1,y1,x2,y2\nval/val0.png,1,2,nan,3,4,5\n"),
        r"train.txt:2: a point that is not finite",
    ),
    "no image": (
        lambda f: (f / "train.txt").write_text("image,x0,y0,x1,y1,x2,y2\nnone.png,1,2,2,3,4,5\n"),
        r"train.txt:2: no image .*none.png",
    ),
    "no text": (
        lambda f: (f / "train.txt").write_text('a,x,y,x,y\n"' + "1" * 200_000 + '",1,2,3,4\n'),
        "not CSV: field larger",
    ),
    "empty": (lambda f: (f / "train.txt").write_text("image,x0,y0,x1,y1\n"), "no image with points"),
    "in both": (
        lambda f: (f / "train.txt").write_text((f / "val.txt").read_text()),
        "4 images are in train and in val",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_list_that_is_none_is_refused(tmp_path, what):
    file = a_set(tmp_path, "csv")
    damage, said = BAD[what]
    damage(tmp_path)
    with pytest.raises(InputError, match=said):
        landmarks(file, 32)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("normalise", [0, 3], "normalise is .*two of the 3 points"),
        ("normalise", None, "normalise is None"),
        ("flip", [0, 0, 2], "flip should have each of the numbers 0 to 2 once"),
        ("format", "xml", "format"),
        ("normalize", [0, 1], "normalize"),
    ],
)
def test_a_yaml_that_is_none_is_refused(tmp_path, key, value, said):
    with pytest.raises(InputError, match=said):
        landmarks(a_set(tmp_path, "csv", **{key: value}), 32)


def test_forms_of_rows_are_told(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3 4 0 0 0\n")
    with pytest.raises(InputError, match=r"a.txt:1: .* right would be x0 y0 … 4 of a box, 6 attributes, name"):
        read_marked("wflw", tmp_path / "a.txt", tmp_path)
    with pytest.raises(InputError, match="no such set of landmarks; right would be digits-landmarks or a YAML"):
        landmarks("none.yaml", 32)
    (tmp_path / "b.pts").write_text("1 2\n")
    with pytest.raises(InputError, match=r"b.pts: right would be version, n_points and the points in braces"):
        read_marked("pts", tmp_path, tmp_path)
