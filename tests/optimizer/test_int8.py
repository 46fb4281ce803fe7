"""A detector in 8 bits: what is in 8 bits and what is not, and rows that go back to float."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from models import Model
from optimizer import export_onnx
from optimizer.int8 import Int8
from tests.lively import TINY, lively
from tests.refusal import refused

IMGSZ = 64
IMAGES = np.random.default_rng(0).random((8, 3, IMGSZ, IMGSZ), dtype=np.float32)
DFL = {k: v for k, v in TINY.items() if k != "anchors"} | {"head": [*TINY["head"][:-1], [[8, 5], 1, "Detect", ["nc"]]]}


@pytest.fixture(scope="module", params=[("anchors", 17), ("anchors", 18), ("dfl", 17)], ids=str)
def made(request, tmp_path_factory):
    """The float ONNX model, and it in 8 bits."""
    head, opset = request.param
    model = lively(torch.from_numpy(IMAGES), ["a", "b"]) if head == "anchors" else Model(DFL, nc=2).eval()
    path = tmp_path_factory.mktemp("int8") / "float.onnx"
    export_onnx(model, path, IMGSZ, opset)
    plain = onnx.load(path)
    return plain, Int8(plain, iter([IMAGES[:4], IMAGES[4:]]))


def _run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": IMAGES})[0]


def _error(model, expected):
    return float(np.abs(_run(model) - expected).mean())


def test_rows_go_back_to_float(made):
    plain, int8 = made
    expected = _run(plain)
    errors = [_error(int8.model(int8.rows[:n]), expected) for n in (0, len(int8.rows) // 2, len(int8.rows))]
    assert errors[0] > errors[1] > errors[2]
    # With all convolutions in float, activations between them are, too.
    np.testing.assert_allclose(_run(int8.model(int8.rows)), expected, rtol=1e-3, atol=0.02)
    with refused("--float-rows 99", "there are 0, 1, 2"):
        int8.model([99])


def test_convolutions_are_in_8_bits_but_predictions_are_not(made):
    plain, int8 = made
    model = int8.model()
    assert {p.key: p.value for p in model.metadata_props}["dtype"] == "int8"
    assert model.ByteSize() < plain.ByteSize() or len(plain.graph.node) > 200
    by_output = {o: n for n in model.graph.node for o in n.output}
    stored = {i.name: i.data_type for i in model.graph.initializer}
    last = max(int8.rows)
    in_8_bits = [
        n
        for n in model.graph.node
        if n.op_type == "Conv" and by_output.get(n.input[1], n).op_type == "DequantizeLinear"
    ]
    assert len(in_8_bits) > 10
    for node in in_8_bits:
        weights, scale, _ = by_output[node.input[1]].input
        assert stored[weights] == onnx.TensorProto.INT8
        scales = next(onnx.numpy_helper.to_array(i) for i in model.graph.initializer if i.name == scale)
        assert len(scales) > 1, "by channel"
    # What reads a list of predictions, and what gives them, is of no step of 8 bits.
    follows = {n.output[0] for n in model.graph.node if n.op_type == "Conv" and n not in in_8_bits}
    assert len(follows) >= 2
    for node in model.graph.node:
        if follows.intersection(node.input):
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
            follows.update(node.output)
    assert model.graph.output[0].name in follows
    assert last <= 9
