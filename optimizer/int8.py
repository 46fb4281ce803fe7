"""An exported detector in 8 bits: calibrated on images, boxes decoded in float, any row in float where it has to be."""

from __future__ import annotations

import copy
import logging
import re
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InputError

from .exporters import need

LOWEST_OPSET = 13  # DequantizeLinear by channel
# Both exporters of PyTorch name weights by the row that they are of: `Network.model` is the list of rows.
_ROW = re.compile(r"\bmodel\.(\d+)\.")
# Where a head's maps become lists of predictions.
_DECODES = {"Flatten", "Reshape", "Softmax", "Transpose"}


class Int8:
    """A detector in 8 bits, made once of a float one and of one calibration.

    Weights are int8 by channel, activations uint8 by tensor, of the ranges that occur (Jacob et al. 2018,
    arXiv:1712.05877, sections 2.1 and 3): that is what CPUs with VNNI multiply. They are written as QuantizeLinear and
    DequantizeLinear (QDQ), which ONNX Runtime fuses. The last convolutions of the head, and all that follows them, are
    left as they are: of 256 steps a logit of a box or a class has too few.

    Parameters
    ----------
    model
        ONNX model that gives predictions, as `export_onnx` writes it without NMS.
    images
        float32 (N, 3, imgsz, imgsz) each, with N as the model takes it, from 0 to 1: training images.

    Attributes
    ----------
    rows
        Rows of the YAML of which convolutions are in 8 bits.
    """

    def __init__(self, model: Any, images: Iterable[np.ndarray]) -> None:
        opset = model.opset_import[0].version
        if opset < LOWEST_OPSET:
            raise InputError(f"--opset {opset}: INT8 needs {LOWEST_OPSET} or later")
        self._float = _with_constants(model)
        nodes = self._float.graph.node
        self._row = _rows(self._float.graph)
        self._left = _left_in_float(self._float.graph, self._row)
        self.rows = sorted({self._row[n.name] for n in nodes if n.op_type == "Conv" and n.name not in self._left})
        self._quantized = _quantized(self._float, self._left, images)

    def model(self, float_rows: Collection[int] = ()) -> Any:
        """The ONNX model, with these rows of the YAML in float.

        Raises
        ------
        InputError
            None of their convolutions is in 8 bits.
        """
        if unknown := sorted({*float_rows} - {*self.rows}):
            there = ", ".join(map(str, self.rows))
            raise InputError(f"--float-rows {unknown[0]}: has no convolution in 8 bits; there are {there}")
        model = copy.deepcopy(self._quantized)
        graph = model.graph
        inputs = {n.name: n.input for n in self._float.graph.node}
        row_of = {name: self._row[n.name] for n in self._float.graph.node for name in n.output}
        weights = {i.name: i for i in self._float.graph.initializer}
        for node in graph.node:
            if node.name in self._left:  # these take what is in 8 bits, unless it comes of such a row
                pairs = zip(inputs[node.name], node.input, strict=True)
                node.input[:] = [own if row_of.get(own) in float_rows else given for own, given in pairs]
            elif self._row.get(node.name) in float_rows:
                node.input[:] = inputs[node.name]
        _drop_unused(graph)
        # Biases have their names still: they are given by a DequantizeLinear of 32 bits, which is exact enough.
        known = {i.name for i in graph.initializer} | {o for n in graph.node for o in n.output}
        missing = {i for n in graph.node for i in n.input if i in weights} - known
        graph.initializer.extend(weights[name] for name in sorted(missing))
        return model


def _with_constants(model: Any) -> Any:
    """A copy where what is another name of a constant (PyTorch stores equal biases once) is a constant itself."""
    model = copy.deepcopy(model)
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in constants:
            graph.initializer.add().CopyFrom(constants[node.input[0]])
            graph.initializer[-1].name = node.output[0]
            graph.node.remove(node)
    return model


def _rows(graph: Any) -> dict[str, int]:
    """Name of a node to its row of the YAML: that of its weights, or the last one of what it takes."""
    of_tensor: dict[str, int] = {}
    found: dict[str, int] = {}
    for node in graph.node:
        named = [int(match[1]) for name in node.input if (match := _ROW.search(name))]
        row = max(named or [of_tensor[name] for name in node.input if name in of_tensor] or [0])
        found[node.name] = row
        of_tensor.update(dict.fromkeys(node.output, row))
    return found


def _left_in_float(graph: Any, rows: dict[str, int]) -> set[str]:
    """Names of the nodes that decode predictions, and of the convolutions that give these."""
    last = max(rows.values())
    users = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    decoding: set[str] = set()
    follows: set[str] = set()  # tensors
    for node in graph.node:
        if (rows[node.name] == last and node.op_type in _DECODES) or follows.intersection(node.input):
            decoding.add(node.name)
            follows.update(node.output)
    convolutions: set[str] = set()
    for node in reversed(graph.node):
        if all(user.name in decoding for name in node.output for user in users[name]):
            (convolutions if node.op_type == "Conv" and node.name not in decoding else decoding).add(node.name)
    return decoding | convolutions


def left_in_float(model: Any) -> set[str]:
    """Names of the nodes of an ONNX model that are never in 8 bits: see `Int8`."""
    return _left_in_float(model.graph, _rows(model.graph))


def _quantized(model: Any, left: set[str], images: Iterable[np.ndarray]) -> Any:
    onnx, quantization = need("onnx"), need("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns that nothing was folded, which is done here
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantization.quantize_static(
                copy.deepcopy(model),
                path,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=sorted(left),
            )
            quantized = onnx.load(path)
    finally:
        root.setLevel(level)
    onnx.helper.set_model_props(quantized, {p.key: p.value for p in model.metadata_props} | {"dtype": "int8"})
    return quantized


def _drop_unused(graph: Any) -> None:
    """Remove nodes and constants that nothing takes."""
    needed = {o.name for o in graph.output}
    for node in reversed(list(graph.node)):
        if needed.intersection(node.output):
            needed.update(node.input)
        else:
            graph.node.remove(node)
    for constant in list(graph.initializer):
        if constant.name not in needed:
            graph.initializer.remove(constant)
