"""Sets as their archives are unpacked: ImageNet, Tiny ImageNet, CIFAR, COCO 2017, VOC; tiny files of that layout."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from data import classification
from data.classify_cifar import _Arrays
from data.detect import detection
from models import InputError
from tests.data.detection_sets import NAMES, coco, voc
from tests.data.test_classify import paint, tiny_imagenet

# Not sorted, as that of CIFAR-10 would be by chance.
LABELS = ["zebra", "apple", "mouse"]


def old_pickle(content):
    """An archive's pickle, whose arrays name NumPy's module as it was called then."""
    return pickle.dumps(content, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def batch(count, start, labelled="labels"):
    """`count` images of one colour each, label i of 3 to image i."""
    labels = [(start + i) % 3 for i in range(count)]
    data = np.array([[60 * k] * 3072 for k in labels], dtype=np.uint8)
    return {"data": data, labelled: labels, "filenames": ["x.png"] * count}


def cifar10(root: Path) -> Path:
    home = root / "cifar-10-batches-py"
    home.mkdir(parents=True)
    (home / "batches.meta").write_bytes(old_pickle({"label_names": LABELS, "num_vis": 3072}))
    for number in range(1, 6):
        (home / f"data_batch_{number}").write_bytes(old_pickle(batch(6, number)))
    (home / "test_batch").write_bytes(old_pickle(batch(3, 1)))
    return home


def cifar100(root: Path) -> Path:
    home = root / "cifar-100-python"
    home.mkdir(parents=True)
    names = {"fine_label_names": LABELS, "coarse_label_names": ["animal"]}
    (home / "meta").write_bytes(old_pickle(names))
    for name, count in (("train", 30), ("test", 3)):
        content = {**batch(count, 1, "fine_labels"), "coarse_labels": [0] * count}
        (home / name).write_bytes(old_pickle(content))
    return home


def grey(split):
    return [round(float(image[0].mean()) * 255) for image, _ in split]


@pytest.mark.parametrize(("name", "make"), [("cifar10", cifar10), ("cifar100", cifar100)])
def test_cifar_by_name_and_by_folder(name, make, tmp_path):
    home = make(tmp_path)
    for data in (classification(name, imgsz=32, root=tmp_path), classification(home, imgsz=32)):
        assert data.names == tuple(LABELS)
        assert [len(s) for s in (data.train, data.arch, data.val)] == [15, 15, 3]
        assert data.val.labels.tolist() == [1, 2, 0]
        assert grey(data.val) == [60, 120, 0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data_batch_2", b"\x80\x04no pickle", "data_batch_2: cannot be read"),
        ("data_batch_2", pickle.dumps({"labels": [0]}), "data_batch_2: has no data"),
        ("data_batch_2", pickle.dumps(batch(4, 0) | {"labels": [0]}), r"data is uint8 of \(4, 3072\)"),
        ("test_batch", pickle.dumps(batch(4, 0) | {"labels": [0, 1, 2, 3]}), "labels are not all numbers from 0 to 2"),
        ("batches.meta", pickle.dumps(Path), r"names pathlib\.\w*\.?Path, which is no part of"),
        ("test_batch", None, "not whole; right would be the unpacked archive, with test_batch"),
    ],
)
def test_cifar_that_cannot_be_read_is_named_in_one_line(file, content, message, tmp_path):
    home = cifar10(tmp_path)
    (home / file).unlink()
    if content is not None:
        (home / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as e:
        classification("cifar10", imgsz=32, root=tmp_path)
    assert "\n" not in str(e.value)


def test_no_room_is_made_for_an_array_that_a_file_only_speaks_of():
    huge = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'b'\ntR."
    assert _Arrays(huge, Path("x")).load().size == 0


def imagenet(root: Path) -> Path:
    for k, wnid in enumerate(("n02123045", "n01440764")):
        for i in range(4):
            paint(root / f"train/{wnid}/{wnid}_{i}.JPEG", 60 * k, (50, 40))
        paint(root / f"val/{wnid}/ILSVRC2012_val_{k:08}.JPEG", 60 * k, (50, 40))
    return root


def test_imagenet(tmp_path):
    data = classification(imagenet(tmp_path), imgsz=32)
    assert data.names == ("n01440764", "n02123045"), "as torchvision numbers them: sorted"
    assert [len(s) for s in (data.train, data.arch, data.val)] == [4, 4, 2]
    assert data.val.labels.tolist() == [0, 1]
    assert grey(data.val) == pytest.approx([60, 0], abs=2)


def test_imagenet_whose_validation_images_are_not_sorted_into_classes(tmp_path):
    imagenet(tmp_path)
    for file in list(tmp_path.glob("val/*/*.JPEG")):
        file.rename(tmp_path / "val" / file.name)
        file.parent.rmdir()
    with pytest.raises(InputError, match="val: has no class folders; images of class NAME go into"):
        classification(tmp_path, imgsz=32)


def test_tiny_imagenet_by_its_folder(tmp_path):
    home = tiny_imagenet(tmp_path)
    data = classification(home, imgsz=32)
    assert data.names == ("n01443537", "n01629819")
    assert data.val.labels.tolist() == classification("tinyimagenet", 32, root=tmp_path).val.labels.tolist() == [1, 0]


def test_coco_2017(tmp_path):
    data = detection(coco(tmp_path), 64)
    assert sorted(data.names) == sorted(NAMES)
    assert [data.names[int(k)] for k in data.val.labels[0][:, 0]] == ["cat", "cow"]


@pytest.mark.parametrize("given", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_2012(given, tmp_path):
    voc(tmp_path / "VOCdevkit" / "VOC2012")
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\nc -1\n")
    data = detection(tmp_path / given, 64)
    assert data.names == tuple(sorted(NAMES))
    assert [data.names[int(k)] for k in data.val.labels[0][:, 0]] == ["cat", "cow"]


def test_a_devkit_of_several_years(tmp_path):
    for year in (2007, 2012):
        voc(tmp_path / f"VOCdevkit/VOC{year}")
    with pytest.raises(InputError, match=r"VOCdevkit: holds VOC2007, VOC2012: give the folder of one of them"):
        detection(tmp_path, 64)
