"""What people who come from YOLOv5 type, and what it is called here; docs/from-yolov5.md has it. Loads no torch.

An option of YOLOv5 that has another name here works by its own as well; one that has no counterpart is refused with a
line that says what is there instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import InputError

# Its name there: the name here. They take the same values.
ALIASES = {
    "--batch-size": "--batch",
    "--img": "--imgsz",
    "--img-size": "--imgsz",
    "--conf-thres": "--conf",
    "--iou-thres": "--iou",
    "--task": "--split",
    "--cos-lr": "--cosine",
    "--nosave": "--no-save",
    "--noautoanchor": "--no-autoanchor",
    "--include": "--format",
    "--topk-all": "--max-det",
}
# Its name there: what is there instead.
INSTEAD = {
    "--adam": "right would be --optimizer adamw",
    "--agnostic-nms": "NMS goes by class",
    "--artifact_alias": "checkpoints are not sent to a service; figures are, by --logger",
    "--bbox_interval": "pictures are not sent to a service; figures are, by --logger",
    "--bucket": "nothing is uploaded; the run's folder can be copied",
    "--cache": "images that fit in 2 GiB are kept in memory anyway",
    "--dnn": "right would be --weights with the .onnx file, which ONNX Runtime runs",
    "--dynamic": "that is so by default (--batch dynamic)",
    "--entity": "right would be --logger wandb, which is set up by its own environment variables",
    "--evolve": "hyper-parameters are not searched; architectures are, by oneshot_nas.py",
    "--freeze": "all layers are trained; --lr0 0.001 is gentle to trained ones",
    "--half": "precision is --precision of the trainings; what is exported is float32, or --int8",
    "--hide-conf": "names and confidences are drawn",
    "--hide-labels": "names and confidences are drawn",
    "--image-weights": "images are drawn evenly",
    "--inplace": "there is no such choice here",
    "--keras": "formats are onnx, openvino and yolov5",
    "--label-smoothing": "targets are not smoothed",
    "--line-thickness": "lines are as wide as the picture asks for",
    "--linear-lr": "that is so by default; a cosine is --cosine",
    "--noplots": "pictures are drawn at the end, which takes a second",
    "--noval": "every epoch is validated, since the best one is kept",
    "--optimize": "formats are onnx, openvino and yolov5",
    "--quad": "there is no such loader here",
    "--rect": "it is of detect.py; the images of a training are squares",
    "--save-hybrid": "labels are not mixed into detections",
    "--save-period": "the best epoch (detector.pt) and the last one (last.ckpt) are kept",
    "--simplify": "the file is written without what a simplifier would take out",
    "--topk-per-class": "right would be --max-det, of an image",
    "--update": "checkpoints of YOLOv5 are read as they are",
    "--upload_dataset": "data are not sent to a service; figures are, by --logger",
    "--verbose": "each class is always listed",
    "--vid-stride": "every frame is looked at",
    "--view-img": "pictures are written into the run's folder",
    "--visualize": "maps of features are not drawn",
}
# Of a --hyp FILE.yaml, those that are options of their own here.
OF_LEARNING = {"lr0": "lr0", "lrf": "lrf", "momentum": "momentum", "weight_decay": "weight_decay"}
# `data.augment.Hyp`, which would load more than the names of options may.
AUGMENTATION = ("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "flipud", "mosaic", "mixup")


def translated(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """The command line by the names that options have here.

    Raises
    ------
    SystemExit
        An option of YOLOv5 has no counterpart.
    """
    known = set(parser._option_string_actions)
    words: list[str] = []
    for number, word in enumerate(argv):
        if word == "--":
            return [*words, *argv[number:]]
        name, equals, value = word.partition("=")
        if name in known or not name.startswith("--"):
            words.append(word)
        elif (ours := ALIASES.get(name)) in known:
            words.append(f"{ours}{equals}{value}")
        elif name in INSTEAD:
            parser.error(f"{name} is an option of YOLOv5: {INSTEAD[name]}")
        else:
            words.append(word)
    return words


def read_hyp(path: str) -> dict[str, float]:
    """The numbers of a file of hyper-parameters.

    Raises
    ------
    InputError
        It is no mapping of names to numbers.
    """
    import yaml

    from models.text import read_text

    try:
        content = yaml.safe_load(read_text(Path(path).expanduser()))
    except (OSError, ValueError, yaml.YAMLError) as e:
        problem = e.strerror if isinstance(e, OSError) else " ".join(str(e).split())
        raise InputError(f"--hyp {path}: cannot be read as YAML: {problem}") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"--hyp {path}: should be a mapping such as {{mosaic: 1.0, mixup: 0.1}}")
    found = {}
    for name, value in content.items():
        try:
            # YAML 1.1 takes 1e-4 for text.
            found[str(name)] = float(value) if not isinstance(value, bool) else value
        except (TypeError, ValueError):
            found[str(name)] = value
    return found


def take_hyp(args: argparse.Namespace) -> None:
    """Files among ``--hyp`` become what they say: names known here are taken, the others listed.

    What else is on the command line comes before a file.
    """
    files: dict[str, Any] = {name: given for name, given in (getattr(args, "hyp", None) or {}).items() if given is None}
    if not files:
        return
    hyp, left = {}, {}
    for path in files:
        for name, value in read_hyp(path).items():
            is_number = isinstance(value, float) and not isinstance(value, bool)
            if name in AUGMENTATION:
                if not is_number:
                    raise InputError(f"--hyp {path}: {name} is {value!r}, should be a number")
                hyp[name] = value
            elif name in OF_LEARNING and hasattr(args, OF_LEARNING[name]):
                if not is_number:
                    raise InputError(f"--hyp {path}: {name} is {value!r}, should be a number")
                if OF_LEARNING[name] not in args.given:
                    setattr(args, OF_LEARNING[name], value)
            else:
                left[name] = value
    args.hyp = hyp | {name: value for name, value in args.hyp.items() if value is not None}
    if left:
        said = ", ".join(f"{name} {value:g}" if isinstance(value, float) else name for name, value in left.items())
        print(f"--hyp {', '.join(files)}: not known here, and left out: {said}", flush=True)
