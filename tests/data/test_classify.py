"""Classification: three disjoint splits from every layout, and one clear line when there is nothing to split."""

import gzip
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data import EpochSampler, classification, classify_arrays, classify_files, cluttered_digits
from models.errors import InputError


def paint(path: Path, value: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)


def folder_of(root: Path, counts: dict[str, int]) -> Path:
    for c, (name, count) in enumerate(counts.items()):
        for i in range(count):
            paint(root / name / f"{i}.png", 50 * c)
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def one_line(caught: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_split_40_40_20_stratified_and_disjoint():
    data = classification("digits", imgsz=16)
    splits = [data.train, data.arch, data.val]
    assert sorted(np.concatenate([s.indices for s in splits]).tolist()) == list(range(1797))
    for split, share in zip(splits, (0.4, 0.4, 0.2), strict=True):
        assert np.bincount(split.labels) == pytest.approx(np.full(10, 179.7 * share), abs=3)
    image, label = data.val[0]
    assert image.shape == (3, 16, 16)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < 0.05 < 0.8 < image.max() <= 1
    assert isinstance(label, int)
    assert data.nc == 10
    assert classification("digits", imgsz=16, ch=1).val[0][0].shape == (1, 16, 16)


def test_the_split_follows_the_seed():
    a, b, c = (classification("digits", seed=s).train.indices for s in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_augmentation_follows_seed_epoch_and_index_only():
    train = classification("digits", imgsz=16).train
    first = torch.stack([train[i][0] for i in range(20)])
    train.set_epoch(1)
    assert not torch.equal(first, torch.stack([train[i][0] for i in range(20)]))
    train.set_epoch(0)
    assert torch.equal(first, torch.stack([train[i][0] for i in reversed(range(20))]).flip(0))


def test_val_is_not_augmented():
    val = classification("digits", imgsz=16).val
    first = val[3][0]
    val.set_epoch(5)
    assert torch.equal(first, val[3][0])


def test_workers_do_not_change_what_is_seen_even_when_they_live_on():
    def epochs(workers: int) -> list[torch.Tensor]:
        train = classification("digits", imgsz=8).train
        sampler = EpochSampler(train, seed=3)
        loader = DataLoader(
            train, 100, sampler=sampler, num_workers=workers, persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,
        )  # fmt: skip
        seen = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            seen.append(torch.cat([x for x, _ in loader]))
        return seen

    alone, helped = epochs(0), epochs(2)
    assert torch.equal(alone[0], helped[0])
    assert torch.equal(alone[1], helped[1])
    assert not torch.equal(alone[0], alone[1])


def test_fashion_mnist_is_read_from_idx_files(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("t10k", 10)):
        write_idx(tmp_path / f"fashion-mnist/{split}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"fashion-mnist/{split}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    data = classification("fashion-mnist", imgsz=28, root=tmp_path)
    assert [len(s) for s in (data.train, data.arch, data.val)] == [20, 20, 10]
    assert data.val.indices.min() == 40
    assert data.val[3][1] == 3
    assert data.names[3] == "Dress"


def test_a_broken_idx_file_is_named(tmp_path):
    write_idx(tmp_path / "fashion-mnist/train-images-idx3-ubyte.gz", np.zeros(5))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz: not an IDX file of bytes in 3") as caught:
        classification("fashion-mnist", root=tmp_path)
    one_line(caught)


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist", "imagenette"])
def test_a_failed_download_is_one_line(name, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(classify_arrays, "_DEBIAN_FASHION", tmp_path / "none")
    with pytest.raises(InputError, match=f"{name}: could not be downloaded") as caught:
        classification(name, root=tmp_path)
    assert str(tmp_path) in one_line(caught)


def test_a_folder_without_splits_is_split_40_40_20(tmp_path):
    data = classification(folder_of(tmp_path, {"cat": 10, "dog": 20}), imgsz=8)
    assert [len(s) for s in (data.train, data.arch, data.val)] == [12, 12, 6]
    assert data.names == ("cat", "dog")
    for image, label in data.val:
        assert image[0].max().item() == pytest.approx(label * 50 / 255, abs=1e-6)


def test_a_folder_with_train_and_val_keeps_its_val(tmp_path):
    folder_of(tmp_path / "train", {"cat": 4, "dog": 6})
    folder_of(tmp_path / "val", {"cat": 2, "dog": 1})
    data = classification(str(tmp_path), imgsz=8, ch=1)
    assert [len(s) for s in (data.train, data.arch, data.val)] == [5, 5, 3]
    assert data.val.labels.tolist() == [0, 0, 1]
    assert data.train[0][0].shape == (1, 8, 8)


def test_images_too_many_for_memory_are_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(6):
        (tmp_path / f"c{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"c{i % 2}/{i}.jpg")
    kept = classification(tmp_path, imgsz=8)
    monkeypatch.setattr(classify_files, "_RAM_BYTES", 0)
    read = classification(tmp_path, imgsz=8)
    assert all(torch.equal(kept.train[i][0], read.train[i][0]) for i in range(len(kept.train)))


def tiny_imagenet(root: Path) -> Path:
    home = root / "tiny-imagenet-200"
    for k, wnid in enumerate(("n01443537", "n01629819")):
        for i in range(4):
            paint(home / f"train/{wnid}/images/{wnid}_{i}.JPEG", 60 * k, (64, 64))
        paint(home / f"val/images/val_{k}.JPEG", 60 * k, (64, 64))
    (home / "val/val_annotations.txt").write_text(
        "val_1.JPEG\tn01629819\t0\t32\t44\t62\nval_0.JPEG\tn01443537\t52\t55\t57\t59\n"
    )
    return home


def test_tiny_imagenet_archive(tmp_path):
    tiny_imagenet(tmp_path)
    data = classification("tinyimagenet", imgsz=32, root=tmp_path)
    assert [len(s) for s in (data.train, data.arch, data.val)] == [4, 4, 2]
    assert data.names == ("n01443537", "n01629819")
    assert data.val.labels.tolist() == [1, 0]
    assert data.val[0][0][0].mean() > 0.2 > data.val[1][0][0].mean()


def test_tiny_imagenet_missing_or_malformed(tmp_path):
    with pytest.raises(InputError, match=r"unpack tiny-imagenet-200.zip there") as caught:
        classification("tinyimagenet", root=tmp_path)
    one_line(caught)
    home = tiny_imagenet(tmp_path)
    (home / "val/val_annotations.txt").write_text("val_1.JPEG n01629819\n")
    with pytest.raises(InputError, match=r"val_annotations.txt:1: expected file, tab, wnid") as caught:
        classification("tinyimagenet", root=tmp_path)
    one_line(caught)


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_unreadable_image_is_named_before_training(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(classify_files, "_RAM_BYTES", (2 << 30) * in_memory)
    folder_of(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "dog/bad.jpg").write_bytes(b"this is no image")
    with pytest.raises(InputError, match=r"bad.jpg: cannot be read \(not an image file\)") as caught:
        classification(tmp_path, imgsz=8)
    one_line(caught)


def test_a_truncated_image_is_named(tmp_path):
    folder_of(tmp_path, {"cat": 5, "dog": 5})
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "dog/cut.jpg")
    whole = (tmp_path / "dog/cut.jpg").read_bytes()
    (tmp_path / "dog/cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut.jpg: cannot be read"):
        classification(tmp_path, imgsz=8)


def test_what_cannot_be_split_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no class folders"):
        classification(tmp_path / "empty")
    (tmp_path / "hollow/cat").mkdir(parents=True)
    with pytest.raises(InputError, match="cat: holds no images"):
        classification(tmp_path / "hollow")
    with pytest.raises(InputError, match="too few"):
        classification(folder_of(tmp_path / "few", {"cat": 1}))
    folder_of(tmp_path / "lonely/train", {"cat": 2})
    with pytest.raises(InputError, match="neither val/ nor test/"):
        classification(tmp_path / "lonely")
    folder_of(tmp_path / "lonely/val", {"cow": 1})
    with pytest.raises(InputError, match="'cow' has no folder"):
        classification(tmp_path / "lonely")


def test_an_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"digits, cluttered-digits, .*, tinyimagenet") as caught:
        classification("mnits")
    one_line(caught)
    with pytest.raises(InputError, match="1 channel"):
        classification("digits", ch=4)


def test_cluttered_digits_are_drawn_alike_and_keep_digits_apart():
    data = classification("cluttered-digits", imgsz=64, arch_share=0.2)
    assert [len(split) for split in (data.both, data.val)] == [1438, 4 * 359]
    images, labels = zip(*(data.val[i] for i in range(8)), strict=True)
    assert labels[0] == labels[1] == labels[2] == labels[3], "drawings of one digit"
    assert len({image.numpy().tobytes() for image in images}) == 8
    cluttered_digits._drawn.cache_clear()
    again = classification("cluttered-digits", imgsz=64, seed=5, arch_share=0.2)
    assert torch.equal(again.val[3][0], images[3]), "runs of other seeds are compared on the same images"


def test_cluttered_digits_have_pieces_of_their_own_split_alone(monkeypatch):
    drawn = []
    monkeypatch.setattr(cluttered_digits, "_draw", lambda _, k, others, __: drawn.append((k, {*others})) or np.zeros(1))
    cluttered_digits._drawn.__wrapped__()
    assert all(k in others for k, others in drawn)
    assert not drawn[0][1] & drawn[-1][1]
