"""What is done to a network after or around a search."""

from models.lazy import lazy_exports

_EXPORTS = {
    "NMS": "exporters",
    "calibrate_bn": "calibrate",
    "export_onnx": "exporters",
    "export_openvino": "exporters",
    "export_yolov5": "yolov5",
    "match_nas": "match",
    "yolov5_form": "yolov5",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
