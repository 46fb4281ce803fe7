"""A detector in 8 bits for OpenVINO: by NNCF, which goes back to float layer by layer until enough accuracy is left."""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InputError

from .exporters import NUM_PRECISION, need, scratch
from .int8 import left_in_float

_WANTED = (
    "--int8 --format openvino: needs NNCF and OpenVINO, which are optional; right would be: pip install nncf openvino"
)


def nncf() -> Any:
    """The package, which reports nothing of its use; `InputError` says how to get it."""
    os.environ.setdefault("NNCF_CI", "1")
    try:
        found = importlib.import_module("nncf")
        importlib.import_module("openvino")
    except ImportError as e:
        raise InputError(f"{_WANTED} ({e})") from None
    found.set_log_level(logging.ERROR)
    return found


def quantize_with_nncf(
    plain: Path,
    image: Callable[[Any], np.ndarray],
    calibrates: Sequence[Any],
    validates: Sequence[Any],
    rate: Callable[[Any, Iterable[Any]], float],
    max_drop: float,
) -> Any:
    """An OpenVINO model in 8 bits, of an ONNX file without NMS.

    The last convolutions of the head, and the decoding of boxes, stay in float as they do in `optimizer.int8`. Of the
    others those go back to float that cost most, one by one, until no more than `max_drop` of the rating is lost, or
    until that gains nothing any more.

    Parameters
    ----------
    image
        Of an item, float32 as the model takes it.
    calibrates, validates
        Items: of training images, and of those that `rate` goes by.
    rate
        The metric of a compiled model on items; larger is better.
    """
    package, onnx, ov = nncf(), need("onnx"), need("openvino")
    written = onnx.load(plain)
    left = [f"^{re.escape(name)}(/.*)?$" for name in sorted(left_in_float(written))]
    try:
        quantized = package.quantize_with_accuracy_control(
            ov.convert_model(plain),
            package.Dataset(list(calibrates), image),
            package.Dataset(list(validates), image),
            rate,
            max_drop=max_drop,
            subset_size=len(calibrates),
            ignored_scope=package.IgnoredScope(patterns=left, validate=False),
        )
    except (RuntimeError, ValueError) as e:  # of NNCF and of OpenVINO's own
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"NNCF {package.__version__} does not quantize it: {first}") from e
    for key, value in {**{p.key: p.value for p in written.metadata_props}, "dtype": "int8"}.items():
        quantized.set_rt_info(value, ["framework", key])
    return quantized


def compiled(network: Any, threads: int) -> Any:
    """For the CPU and one image after the other; `network` is a model of OpenVINO or a file that it reads."""
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **NUM_PRECISION}
    return need("openvino").Core().compile_model(network, "CPU", options)


def save_openvino(network: Any, path: Path) -> None:
    """Write ``.xml`` and ``.bin``, both or none."""
    from models.files import atomic

    with scratch(path) as temporary:
        need("openvino").save_model(network, temporary, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            with atomic(path.with_suffix(suffix)) as target:
                temporary.with_suffix(suffix).replace(target)
