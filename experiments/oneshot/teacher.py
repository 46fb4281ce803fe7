"""A teacher from outside for a supernet's training: a detector's file, or what an earlier search found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.detector import Model
from models.errors import InputError
from models.files import is_classifier, load_classifier
from models.network import Network
from models.upstream import load_weights
from spaces import read_arch

from ..supernets.subnets import cut_out, open_supernet
from ..tasks.detect import DetectTask
from ..tasks.task import SearchTask


def read_teacher(path: str | Path, task: SearchTask) -> Network:
    """A plain network to learn from, in eval mode.

    Parameters
    ----------
    path
        ``detector.pt`` or a YOLOv5 checkpoint, for detection, ``classifier.pt`` for classification; or the folder of a
        run of `oneshot_nas.py`, whose arch is cut out of its supernet and calibrated on the training data of `task`.

    Raises
    ------
    InputError
        If its outputs cannot be compared with those of the task's networks.
    """
    if Path(path).is_dir():
        supernet, own, _ = open_supernet(path, option="--teacher")
        network: Network = cut_out(supernet, own, read_arch(Path(path) / "arch.json"))
        _check(path, network, task)
        return task.calibrated(network).eval()
    network = load_classifier(path)[0] if is_classifier(path) else load_weights(path)[0]
    _check(path, network, task)
    return network.eval()


def _check(path: str | Path, network: Network, task: Any) -> None:
    if isinstance(network, Model) is not isinstance(task, DetectTask):
        right = (
            "a detector.pt"
            if isinstance(task, DetectTask)
            else "a classifier.pt, or the folder of a run of --task classify"
        )
        raise InputError(f"--teacher {path}: does another task than this; right would be {right}")
    if network.config.nc != task.data.nc:
        raise InputError(f"--teacher {path}: knows {network.config.nc} classes, the data has {task.data.nc}")
    if isinstance(network, Model) and isinstance(task, DetectTask):
        own, head = task.detector.head, network.head
        if not own.is_like(head):
            raise InputError(
                f"--teacher {path}: has another head, or other anchors or strides, than the detectors of this space"
            )
