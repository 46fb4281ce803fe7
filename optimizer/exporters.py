"""A detector or classifier as an ONNX or OpenVINO file, compared with it before the file is there."""

from __future__ import annotations

import copy
import importlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.classifier import Classifier
from models.detector import Model
from models.errors import InputError
from models.files import atomic, disk_error, dump_model_yaml
from models.head import Head
from models.postprocess import non_max_suppression, scores_of
from models.strides import check_imgsz

from .difference import Difference

TOLERANCE = 1e-4
LOWEST_OPSET = 11  # NonMaxSuppression, TopK and CumSum as they are used here
_DYNAMO_OPSET = 18  # PyTorch's newer exporter writes this one and later ones; the older exporter the earlier ones
_CHECKED_BATCHES = (1, 2, 5)  # of a file with dynamic batch
_PREDICTIONS, _DETECTIONS, _PROTOTYPES = "predictions", "detections", "prototypes"
_LOGITS, _POINTS = "logits", "points"
NUM_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}  # OpenVINO computes in bfloat16 where the CPU can


@dataclass(frozen=True)
class NMS:
    """Thresholds of the non-maximum suppression in the graph, as `models.postprocess` has them."""

    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300


@dataclass(frozen=True)
class Exported:
    """A file that was written and found equal.

    Attributes
    ----------
    opset
        As read from the ONNX file.
    difference
        Of predictions (pixels, or probability) from the detector's.
    batches
        Batch sizes that were compared.
    num_detections
        Detections that were compared, of images and of random predictions; None without NMS in the graph.
    """

    path: Path
    opset: int
    difference: Difference
    batches: tuple[int, ...]
    num_detections: int | None


def export_onnx(
    model: Model | Classifier,
    path: str | Path,
    imgsz: int = 640,
    opset: int = 17,
    batch: int | None = None,
    nms: NMS | None = None,
    images: Tensor | None = None,
    arch: Any = None,
) -> Exported:
    """Write a network as ONNX, and compare it in ONNX Runtime with the network before the file is there.

    The graph takes ``images``, float32 (N, ch, imgsz, imgsz), RGB from 0 to 1. It gives

    - ``predictions``, float32 (N, A, …) in the form that `models.head.Form` describes, as `Model` in eval mode; or
    - with `nms`, ``detections``, float32 (K, 7): index of the image in the batch, x1, y1, x2, y2 in pixels of the
      input, confidence, class; images in order, in each the most confident first. As `non_max_suppression` does
      with one class a box; by the operator NonMaxSuppression;
    - with either, of a head that finds masks, their coefficients at each row's end and, as a second output,
      ``prototypes``, float32 (N, k, H, W);
    - of a head that finds labels ``logits``, float32 (N, nc, H, W), at its first level's stride;
    - of a classifier ``logits``, float32 (N, nc);
    - of landmarks ``points``, float32 (N, 2 K): x0, y0, x1, … in shares of the side.

    Its metadata hold, as text: ``names`` (JSON, {index: name}), ``stride``, ``imgsz``, ``batch`` (dynamic, or a
    number), ``arch`` (JSON; null for a network of no search), ``yaml``, ``nms`` (JSON of `NMS`, or null), ``task``
    (detect, classify or landmarks), ``form`` (of the predictions; empty for a classifier) and ``coefficients`` (how
    many).

    Parameters
    ----------
    batch
        Images at a time; None for any number.
    images
        float32 (n, ch, imgsz, imgsz) from 0 to 1 to compare with; random ones without.
    arch
        What a search chose.

    Raises
    ------
    InputError
        The options do not fit, or the file does not compute what the detector does; no file is written then.
    """
    onnx, ort = need("onnx"), need("onnxruntime")
    model = copy.deepcopy(model).cpu().float().eval()
    graphs = _graphs(onnx, model, imgsz, opset, batch, nms, arch)

    def runner(content: bytes) -> _Run:
        session = _session(ort, content)
        name = session.get_inputs()[0].name
        return lambda x: session.run(None, {name: x})

    with atomic(path) as temporary:
        temporary.write_bytes(graphs.whole.SerializeToString())
        _check_file(onnx, onnx.load(temporary), opset, path)
        runners = _Runners(
            predict=runner(graphs.raw.SerializeToString()),
            suppress=None if graphs.tail is None else runner(graphs.tail.SerializeToString()),
            run=runner(temporary.read_bytes()),
        )
        report = _compare(model, runners, _inputs(model, imgsz, batch, images), nms, f"{path}: ONNX Runtime")
    return Exported(Path(path), opset, *report)


def export_openvino(
    model: Model | Classifier,
    path: str | Path,
    imgsz: int = 640,
    opset: int = 17,
    batch: int | None = None,
    nms: NMS | None = None,
    images: Tensor | None = None,
    arch: Any = None,
) -> Exported:
    """Write a network as OpenVINO, ``path`` (.xml) and the weights beside it (.bin), by way of ONNX.

    Inputs, outputs and options are `export_onnx`'s, the metadata below ``rt_info/framework``; compared as there.
    """
    onnx, ov = need("onnx"), need("openvino")
    path = Path(path)
    model = copy.deepcopy(model).cpu().float().eval()
    graphs = _graphs(onnx, model, imgsz, opset, batch, nms, arch)
    core = ov.Core()

    def runner(network: Any) -> _Run:
        compiled = core.compile_model(network, "CPU", NUM_PRECISION)
        return lambda x: [*compiled([x]).values()]

    with scratch(path) as temporary:

        def converted(graph: Any) -> Any:
            onnx.save(graph, temporary.with_suffix(".onnx"))
            return ov.convert_model(temporary.with_suffix(".onnx"))

        whole = converted(graphs.whole)
        for key, value in metadata(model, imgsz, batch, nms, arch).items():
            whole.set_rt_info(value, ["framework", key])
        ov.save_model(whole, temporary, compress_to_fp16=False)
        runners = _Runners(
            predict=runner(converted(graphs.raw)),
            suppress=None if graphs.tail is None else runner(converted(graphs.tail)),
            run=runner(core.read_model(temporary)),
        )
        report = _compare(model, runners, _inputs(model, imgsz, batch, images), nms, f"{path}: OpenVINO")
        for suffix in (".bin", ".xml"):
            with atomic(path.with_suffix(suffix)) as target:
                temporary.with_suffix(suffix).replace(target)
    return Exported(path, opset, *report)


def metadata(model: Model | Classifier, imgsz: int, batch: int | None, nms: NMS | None, arch: Any) -> dict[str, str]:
    """What an exported file says of itself; see `export_onnx`."""
    return {
        "names": json.dumps({str(k): v for k, v in model.names.items()}, ensure_ascii=False),
        "stride": str(_stride(model)),
        "imgsz": str(imgsz),
        "batch": "dynamic" if batch is None else str(batch),
        "arch": json.dumps(arch),
        "yaml": dump_model_yaml(model.config.raw),
        "nms": json.dumps(None if nms is None else asdict(nms)),
        "task": "detect" if isinstance(model, Model) else "landmarks" if model.landmarks else "classify",
        "form": model.head.form if isinstance(model, Model) else "",
        "coefficients": str(model.head.num_coefficients if isinstance(model, Model) else 0),
    }


def _stride(model: Model | Classifier) -> int:
    return int(model.stride.max()) if isinstance(model, Model) else model.imgsz_multiple


def _computed(model: Model | Classifier, images: Tensor) -> tuple[Tensor, ...]:
    """A detector's predictions, and prototypes where it has any, without the other logits; or a classifier's logits."""
    output: Any = model(images)
    if not isinstance(model, Model):
        return (output,)
    decoded, logits = output
    return (decoded, model.head.prototypes(logits)) if model.head.num_coefficients else (decoded,)


def _names(model: Model | Classifier) -> list[str]:
    """What is given, in the order of `_computed`."""
    if not isinstance(model, Model):
        return [_POINTS if model.landmarks else _LOGITS]
    if model.head.finds == "labels":
        return [_LOGITS]
    return [_PREDICTIONS, _PROTOTYPES] if model.head.num_coefficients else [_PREDICTIONS]


_Run = Callable[[np.ndarray], list[np.ndarray]]


class _Graphs(NamedTuple):
    """ONNX models: images to predictions, those to detections, and what is to be written."""

    raw: Any
    tail: Any | None
    whole: Any


class _Runners(NamedTuple):
    """What computes `_Graphs`."""

    predict: _Run
    suppress: _Run | None
    run: _Run


def _graphs(
    onnx: Any, model: Model | Classifier, imgsz: int, opset: int, batch: int | None, nms: NMS | None, arch: Any
) -> _Graphs:
    check_imgsz(imgsz, model.imgsz_multiple)
    latest = onnx.defs.onnx_opset_version()
    if not LOWEST_OPSET <= opset <= latest:
        raise InputError(f"--opset {opset}: right would be {LOWEST_OPSET} to {latest}")
    raw = _onnx_of(onnx, model, imgsz, opset, batch)
    tail = None
    if nms is not None:
        if not isinstance(model, Model):
            raise InputError("--nms is of detectors; a classifier has no boxes")
        if model.head.form == "labels":
            raise InputError("--nms is of boxes, and this network gives classes of pixels")
        if model.head.form == "detections":
            raise InputError("--nms: this detector gives each object once; right would be a file without NMS")
        tail = _nms_graph(onnx, raw, model.head, nms)
    whole = copy.deepcopy(raw)
    if tail is not None:
        whole = _merged(onnx, raw, tail)
    onnx.helper.set_model_props(whole, metadata(model, imgsz, batch, nms, arch))
    return _Graphs(raw, tail, whole)


def with_nms(predicts: Any, head: Head, nms: NMS) -> Any:
    """An ONNX model of `export_onnx` without `nms`, or what was made of it, as one with it."""
    onnx = need("onnx")
    tail = _nms_graph(onnx, predicts, head, nms)
    tail.opset_import.extend(o for o in predicts.opset_import if o.domain)
    whole = _merged(onnx, predicts, tail)
    said = {p.key: p.value for p in predicts.metadata_props}
    onnx.helper.set_model_props(whole, {**said, "nms": json.dumps(asdict(nms))})
    return whole


def _merged(onnx: Any, predicts: Any, tail: Any) -> Any:
    """Detections first, then what `predicts` gives besides."""
    outputs = [o.name for graph in (tail, predicts) for o in graph.graph.output if o.name != _PREDICTIONS]
    whole = onnx.compose.merge_models(predicts, tail, [(_PREDICTIONS, _PREDICTIONS)], outputs=outputs)
    by_name = {o.name: copy.deepcopy(o) for o in whole.graph.output}
    del whole.graph.output[:]
    whole.graph.output.extend(by_name[name] for name in outputs)
    return whole


class _Computed(nn.Module):
    """What is exported of a network."""

    def __init__(self, model: Model | Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        found = _computed(self.model, images)
        return found if len(found) > 1 else found[0]


def _onnx_of(onnx: Any, model: Model | Classifier, imgsz: int, opset: int, batch: int | None) -> Any:
    """The network, fused, as an ONNX model."""
    network = _Computed(copy.deepcopy(model).fuse()).eval()
    given = _names(model)
    example = torch.zeros(batch or 2, model.config.ch, imgsz, imgsz)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": given, "opset_version": opset}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            if opset >= _DYNAMO_OPSET:
                need("onnxscript")
                shapes = {"images": {0: torch.export.Dim("N")}} if batch is None else None
                program = torch.onnx.export(
                    network, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names
                )
                assert program is not None
                graph = program.model_proto
            else:
                axes = {name: {0: "N"} for name in ("images", *given)} if batch is None else None
                buffer = io.BytesIO()
                torch.onnx.export(network, (example,), buffer, dynamo=False, dynamic_axes=axes, **names)  # type: ignore[arg-type]
                graph = onnx.load_from_string(buffer.getvalue())
        except InputError:
            raise
        # The exporters raise what comes to them from torch, onnx and onnxscript.
        except Exception as e:
            reason = (str(e).splitlines() or [type(e).__name__])[0]
            raise InputError(f"--opset {opset}: PyTorch {torch.__version__} cannot export to it: {reason}") from e
    for node in graph.graph.node:
        del node.metadata_props[:]  # stack traces, with this machine's paths
        node.doc_string = ""
    with torch.no_grad():
        computed = _computed(network.model, example)
    for name, tensor, output in zip(given, computed, graph.graph.output, strict=True):
        shape = [batch or "N", *tensor.shape[1:]]
        output.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    return graph


# In ONNX's text form. Only operators that are the same in every opset from 11 on: no Squeeze, Split or ReduceMax.
_NMS_TEXT = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
nms (float[{n}, {a}, {no}] predictions) => (float[K, {columns}] detections)
<
  int64[1] nms_0 = {{0}}, int64[1] nms_1 = {{1}}, int64[1] nms_2 = {{2}}, int64[1] nms_4 = {{4}},
  {constants}int64[1] nms_end = {{{end}}}, int64[1] nms_all = {{-1}}, int64[2] nms_column = {{-1, 1}},
  int64[2] nms_image_box = {{0, 2}},
  int64[{nc}] nms_class_range = {{{class_range}}}, int64 nms_axis = {{0}}, float[2] nms_off_on = {{0.0, 1.0}},
  float nms_half = {{0.5}}, float nms_zero = {{0.0}},
  int64[1] nms_max = {{{max_det}}}, float[1] nms_iou = {{{iou!r}}}, float[1] nms_conf = {{{conf!r}}},
  float nms_max_float = {{{max_det}.5}}
>
{{
  nms_centre = Slice (predictions, nms_0, nms_2, nms_2)
  nms_size = Slice (predictions, nms_2, nms_4, nms_2)
  nms_half_size = Mul (nms_size, nms_half)
  nms_low = Sub (nms_centre, nms_half_size)
  nms_high = Add (nms_centre, nms_half_size)
  nms_boxes = Concat <axis = 2> (nms_low, nms_high)

{scores}
  nms_label = ArgMax <axis = 2, keepdims = 1> (nms_scores)
  nms_best = GatherElements <axis = 2> (nms_scores, nms_label)
  nms_is_best = Equal (nms_label, nms_class_range)
  nms_one_class = Where (nms_is_best, nms_scores, nms_zero)
  nms_by_class = Transpose <perm = [0, 2, 1]> (nms_one_class)
  nms_picked = NonMaxSuppression (nms_boxes, nms_by_class, nms_max, nms_iou, nms_conf)

  nms_at = Gather <axis = 1> (nms_picked, nms_image_box)
  nms_image = Gather <axis = 1> (nms_picked, nms_0)
  nms_class = Gather <axis = 1> (nms_picked, nms_1)
  nms_image_float = Cast <to = 1> (nms_image)
  nms_class_float = Cast <to = 1> (nms_class)
  nms_xyxy = GatherND (nms_boxes, nms_at)
  nms_score = GatherND (nms_best, nms_at)
{coefficients}
  nms_rows = Concat <axis = 1> (nms_image_float, nms_xyxy, nms_score, nms_class_float{more})

  nms_shape = Shape (nms_picked)
  nms_count = Slice (nms_shape, nms_0, nms_1)
  nms_confidence = Reshape (nms_score, nms_all)
  nms_sorted_confidence, nms_by_confidence = TopK (nms_confidence, nms_count)
  nms_confident_first = Gather <axis = 0> (nms_rows, nms_by_confidence)
  nms_their_image = Gather <axis = 1> (nms_confident_first, nms_0)
  nms_their_images = Reshape (nms_their_image, nms_all)
  nms_their_index = Cast <to = 7> (nms_their_images)
  nms_ones = ConstantOfShape <value = int64[1] {{1}}> (nms_count)
  nms_place = CumSum (nms_ones, nms_axis)
  nms_base = Mul (nms_their_index, nms_count)
  nms_key = Add (nms_base, nms_place)
  nms_sorted_key, nms_by_image = TopK <largest = 0> (nms_key, nms_count)
  nms_ordered = Gather <axis = 0> (nms_confident_first, nms_by_image)

  nms_image_index = Gather <axis = 0> (nms_their_index, nms_by_image)
  nms_input_shape = Shape (predictions)
  nms_num_images = Slice (nms_input_shape, nms_0, nms_1)
  nms_is_of_image = OneHot (nms_image_index, nms_num_images, nms_off_on)
  nms_seen = CumSum (nms_is_of_image, nms_axis)
  nms_image_column = Reshape (nms_image_index, nms_column)
  nms_rank_column = GatherElements <axis = 1> (nms_seen, nms_image_column)
  nms_rank = Reshape (nms_rank_column, nms_all)
  nms_kept = Less (nms_rank, nms_max_float)
  detections = Compress <axis = 0> (nms_ordered, nms_kept)
}}
"""


_COEFFICIENTS_TEXT = """  nms_coefficients = Slice (predictions, nms_end, nms_no, nms_2)
  nms_coefficient = GatherND (nms_coefficients, nms_at)"""


def _nms_graph(onnx: Any, raw: Any, head: Head, nms: NMS) -> Any:
    """Non-maximum suppression of what `raw` gives.

    The operator suppresses within a class of an image and keeps `max_det` of each class. Sorted by confidence, then
    by image and place (not every runtime's TopK is stable), a row's rank among those of its image is the count of
    them so far, and the first `max_det` stay.
    """
    if not (0 <= nms.conf < 1 and 0 <= nms.iou <= 1 and nms.max_det > 0):
        raise InputError(f"--conf {nms.conf} --iou {nms.iou} --max-det {nms.max_det}: right: 0 to 1, 0 to 1, 1 or more")
    n, a, no = (d.dim_param or d.dim_value for d in raw.graph.output[0].type.tensor_type.shape.dim)
    text = _NMS_TEXT.format(
        ir_version=raw.ir_version,
        opset=raw.opset_import[0].version,
        **{"n": n, "a": a, "no": no, "nc": head.nc, "class_range": ", ".join(map(str, range(head.nc)))},
        scores=_scores_text(head),
        # An unused constant is warned of.
        constants=("" if head.form == "classes" else "int64[1] nms_5 = {5}, ")
        + (f"int64[1] nms_no = {{{no}}}, " if head.num_coefficients else ""),
        coefficients=_COEFFICIENTS_TEXT if head.num_coefficients else "",
        **{"more": ", nms_coefficient" if head.num_coefficients else "", "columns": 7 + head.num_coefficients},
        end=no - head.num_coefficients,
        **{"max_det": nms.max_det, "iou": float(nms.iou), "conf": float(nms.conf)},
    )
    return onnx.parser.parse_model(text)


def _scores_text(head: Head) -> str:
    """As `models.postprocess.scores_of`."""
    if head.form == "classes":
        return "  nms_scores = Slice (predictions, nms_4, nms_end, nms_2)"
    objectness = "  {} = Slice (predictions, nms_4, nms_5, nms_2)"
    if head.nc == 1:
        return objectness.format("nms_scores")
    return f"""{objectness.format("nms_objectness")}
  nms_probability = Slice (predictions, nms_5, nms_end, nms_2)
  nms_scores = Mul (nms_objectness, nms_probability)"""


def _check_file(onnx: Any, written: Any, opset: int, path: str | Path) -> None:
    found = {o.domain or "ai.onnx": o.version for o in written.opset_import}
    if found != {"ai.onnx": opset}:
        said = ", ".join(f"{domain} {version}" for domain, version in found.items())
        raise InputError(f"{path}: asked for opset {opset}, but PyTorch {torch.__version__} wrote {said}")
    onnx.checker.check_model(written, full_check=True)


def _session(ort: Any, content: bytes) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its exceptions have no public base class
        reason = str(e).splitlines()[0]
        raise InputError(f"ONNX Runtime {ort.__version__} cannot run it; an older --opset may help: {reason}") from e


def _inputs(model: Model | Classifier, imgsz: int, batch: int | None, images: Tensor | None) -> Iterator[Tensor]:
    """What to compare with: batches of every size that is to be checked."""
    generator = torch.Generator().manual_seed(0)
    for n in (batch,) if batch else _CHECKED_BATCHES:
        if images is None:
            # Smooth for the most part, as images are: noise alone is further from them than a network need endure.
            coarse = torch.rand(n, model.config.ch, imgsz // 8, imgsz // 8, generator=generator)
            smooth = nn.functional.interpolate(coarse, size=(imgsz, imgsz), mode="bilinear")
            yield 0.9 * smooth + 0.1 * torch.rand(smooth.shape, generator=generator)
        else:
            yield images.float()[torch.arange(n) % len(images)]


@torch.no_grad()
def _compare(
    model: Model | Classifier, runners: _Runners, inputs: Iterator[Tensor], nms: NMS | None, what: str
) -> tuple[Difference, tuple[int, ...], int | None]:
    """Compare predictions with the detector's and, with `nms`, detections with those of the same predictions.

    The two are told apart since predictions that differ by rounding may well lie on two sides of a threshold. NMS is
    compared on random predictions besides: an untrained detector finds nothing in random images.
    """
    difference, batches, num_detections = Difference(), [], 0
    for x in inputs:
        n = len(x)
        batches.append(n)
        expected, *others = _computed(model, x)
        predicted = [torch.from_numpy(y) for y in runners.predict(x.numpy())]
        got = predicted[0]
        compared = _difference
        if isinstance(model, Model) and model.head.form == "detections":
            compared = _difference_of_sets
        difference |= compared(expected, got, f"{what}, batch of {n}")
        for other, theirs in zip(others, predicted[1:], strict=True):
            difference |= _difference(other, theirs, f"{what}, prototypes in a batch of {n}")
        if nms is not None and runners.suppress is not None:
            head = cast(Model, model).head
            where = f"{what}, detections in a batch of {n}"
            whole, parts = runners.run(x.numpy())[0], runners.suppress(got.numpy())[0]
            _difference(torch.from_numpy(parts), torch.from_numpy(whole), where)
            for z in (got, _random_predictions(expected, x.shape[-1])):
                z = _without_ties(z, head)
                wanted = _class_by_class(z, nms, head)
                _difference(wanted, torch.from_numpy(runners.suppress(z.numpy())[0]), where)
                num_detections += len(wanted)
    return difference, tuple(batches), None if nms is None else num_detections


def _random_predictions(like: Tensor, imgsz: int) -> Tensor:
    """(N, A, nc + 5), many of whose boxes overlap."""
    z = torch.rand(like.shape, generator=torch.Generator().manual_seed(0))
    z[..., :2] *= imgsz
    z[..., 2:4] *= imgsz / 2
    return z


def _without_ties(z: Tensor, head: Head) -> Tensor:
    """Predictions in the same order of confidence, but no two confidences are equal, nor two classes of a box.

    Which of two equals stays is nobody's law. About one box in six has more confidence than 0.25.
    """
    z, form, end = z.clone(), head.form, z.shape[2] - head.num_coefficients
    confidence, label = scores_of(z[..., :end], form).max(2, keepdim=True)
    rank = confidence.squeeze(2).argsort(1).argsort(1)
    best = ((rank + 0.5) / z.shape[1])[..., None] ** 8
    if form == "classes":
        z[..., 4:end] *= best / 2
        return z.scatter(2, label + 4, best)
    z[..., 4:5] = best
    z[..., 5:end] /= 2
    return z.scatter(2, label + 5, 1.0)


def _difference(expected: Tensor, got: Tensor, what: str) -> Difference:
    """The difference; `InputError` if one is larger than `TOLERANCE` and `TOLERANCE` times the expected."""
    if expected.shape != got.shape:
        raise InputError(f"{what}: gives {list(got.shape)}, the network {list(expected.shape)}")
    found = Difference.between(expected, got, TOLERANCE)
    if not found.used <= 1:
        raise InputError(
            f"{what}: differs from the network by {found.largest:.2g}, more than {TOLERANCE} + {TOLERANCE} times the "
            "value; if random images are to blame, compare on real ones (--source)"
        )
    return found


def _difference_of_sets(expected: Tensor, got: Tensor, what: str) -> Difference:
    """As `_difference`, of detections (N, K, 6) in any order: rounding decides that of equal confidences.

    It decides as well which of those as confident as the last are among the K, and these are not compared.
    """
    if expected.shape != got.shape:
        return _difference(expected, got, what)
    worst = _difference(expected[..., 4].sort(1).values, got[..., 4].sort(1).values, what)
    for one, other in ((expected, got), (got, expected)):
        for own, theirs in zip(one, other, strict=True):
            own = own[own[:, 4] > own[:, 4].min() + TOLERANCE]
            if len(own):
                nearest = torch.cdist(own, theirs, p=torch.inf, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
                worst |= _difference(own, theirs[nearest], what)
    return worst


def _class_by_class(z: Tensor, nms: NMS, head: Head) -> Tensor:
    """`non_max_suppression` as rows of `detections`.

    One class after the other: torchvision's NMS of several classes at once moves boxes apart by large offsets, which
    round them. The operator does not, and a pair may overlap by a hair more or less than the threshold.
    """
    more = head.num_coefficients
    rows = [torch.zeros(0, 7 + more)]
    for i, image in enumerate(z):
        found = [
            non_max_suppression(
                image[None], nms.conf, nms.iou, nms.max_det, False, [c], True, form=head.form, num_coefficients=more
            )[0]
            for c in range(head.nc)
        ]
        detections = torch.cat(found)
        best = detections[:, 4].argsort(descending=True, stable=True)[: nms.max_det]
        rows.append(torch.cat((torch.full((len(best), 1), float(i)), detections[best]), 1))
    return torch.cat(rows)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside `path`."""
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        try:
            yield Path(folder) / path.name
        except Exception as e:
            if (why := disk_error(e, path)) is None:
                raise
            raise why from None


def need(package: str) -> Any:
    """Import a package that only some need; `InputError` says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as e:
        name = package.partition(".")[0]
        raise InputError(f"this needs the package {name} ({e}); right would be: pip install {name}") from None
