"""Data sets: data.yaml, YOLO's labels and lists, COCO, Pascal VOC."""

import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.detect_index import build
from data.formats import coco_ids, records, spec_of
from tests.data.detection_sets import coco, coco_content, voc, yolo

from .guard import holds
from .hostile import bytes_of, json_files, scalars, yaml_files

DATA = {"path": ".", "train": "images/train", "val": ["images/val"], "nc": 3, "names": {0: "cat", 1: "dog", 2: "cow"}}
ROWS = b"0 0.5 0.5 0.25 0.25\n2 0.1 0.2 0.05 0.1\n1 0.1 0.1 0.5 0.1 0.5 0.5\n"
XML = b"""<?xml version="1.0" encoding="utf-8"?><annotation><size><width>80</width><height>60</height></size>
<object><name>cat</name><difficult>0</difficult><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>50</ymax>
</bndbox></object></annotation>"""


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    yolo(folder / "yolo")
    coco(folder / "coco")
    voc(folder / "voc")
    return folder


def _read(source):
    _, splits = records(spec_of(source), outlines=True)
    for images, report in splits.values():
        build(images, report)
    coco_ids(source, "train")
    return splits


@given(yaml_files(DATA))
def test_a_data_yaml(sets, content):
    (sets / "yolo/data.yaml").write_bytes(content)
    holds("data.yaml", _read, sets / "yolo/data.yaml")


def _b(text):
    return text.encode("utf-8", "replace")


fields = st.one_of(scalars.map(str), st.floats(-3, 3).map(str), st.integers(-1, 3).map(str))
rows = st.lists(fields, max_size=8).map(" ".join)
labels = st.one_of(bytes_of(ROWS), st.binary(max_size=100), st.lists(rows, max_size=3).map(lambda r: _b("\n".join(r))))


@given(labels)
def test_labels(sets, content):
    (sets / "yolo/data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog, cow]\n")
    (sets / "yolo/labels/train/a.txt").write_bytes(content)
    holds("YOLO labels", _read, sets / "yolo/data.yaml")


lines = st.one_of(
    st.sampled_from(
        ["images/train/a.png", "./images/val/a.png", "a\0b.png", "x" * 300, "/" * 5000, "~nobody/a.png", "\\\\a\\b"]
    ),
    st.text(max_size=30),
    scalars.map(str),
)


@given(st.lists(lines, max_size=6).map(lambda found: _b("\n".join(found))))
def test_lists_of_images(sets, content):
    (sets / "yolo/list.txt").write_bytes(content)
    (sets / "yolo/data.yaml").write_text("train: list.txt\nval: images/val\nnames: [cat, dog, cow]\n")
    holds("list of images", _read, sets / "yolo/data.yaml")


def _outlined():
    content = coco_content("abc")
    polygon, rle = [[10, 20, 30, 20, 30, 50]], {"size": [60, 80], "counts": [80, 720, 4000]}
    for annotation, written in zip(content["annotations"], (polygon, rle, {**rle, "counts": "oo2m"}), strict=True):
        annotation["segmentation"] = written
    return content


@given(json_files(_outlined()))
def test_coco(sets, content):
    (sets / "coco/annotations/instances_train2017.json").write_bytes(content)
    holds("COCO", _read, sets / "coco")


xml = st.one_of(
    bytes_of(XML),
    st.binary(max_size=80),
    st.sampled_from(
        [
            b"<a>" * 100_000,
            XML.replace(b"utf-8", b"utf-99"),
            XML.replace(b"utf-8", b"utf-16"),
            b"<!DOCTYPE a [<!ENTITY b 'lol'>"
            + b"".join(b"<!ENTITY b%d '%s'>" % (i, b"&b%d;" % (i - 1) * 10) for i in range(1, 9))
            + b"]><annotation><object><name>&b8;</name></object></annotation>",
            XML.replace(b"10", b"1" * 5000),
            XML.replace(b"10", b"1e400"),
            XML.replace(b"cat", b"\x1b[31mcat\n"),
        ]
    ),
    scalars.map(lambda v: XML.replace(b">10<", b">" + _b(str(v)) + b"<")),
    scalars.map(lambda v: XML.replace(b"cat", _b(str(v)))),
)


@given(xml)
def test_voc(sets, content):
    (sets / "voc/Annotations/a.xml").write_bytes(content)
    holds("VOC", _read, sets / "voc")


@given(st.lists(lines, max_size=6).map(lambda found: _b("\n".join(found))))
def test_lists_of_voc(sets, content):
    whole = (sets / "voc/ImageSets/Main/train.txt").read_bytes()
    try:
        (sets / "voc/ImageSets/Main/train.txt").write_bytes(content)
        (sets / "voc/Annotations/a.xml").write_bytes(XML)
        holds("VOC lists", _read, sets / "voc")
    finally:
        (sets / "voc/ImageSets/Main/train.txt").write_bytes(whole)


@pytest.mark.parametrize("place", ["data.yaml", "labels/train/a.txt", "images/train/a.png", "list.txt"])
def test_a_pipe_is_no_file(tmp_path, place):
    """To open one waits for ever."""
    data = yolo(tmp_path)
    if place == "list.txt":
        data.write_text("train: list.txt\nval: images/val\nnames: [cat, dog, cow]\n")
    file = tmp_path / place
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    holds("pipes", _read, data)
    shutil.rmtree(tmp_path)
