"""A teacher from outside for a supernet's training: a detector's file, or what an earlier search found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.classes import difference, in_order, names_of, order_of, unnamed
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
        _check(path, network, own.names, task)
        return task.calibrated(network).eval()
    network = load_classifier(path)[0] if is_classifier(path) else load_weights(path)[0]
    _check(path, network, names_of(network), task)
    return network.eval()


def _check(path: str | Path, network: Network, names: Sequence[str] | None, task: Any) -> None:
    """Compare with the task's networks, and bring the outputs of classes into their order."""
    if isinstance(network, Model) is not isinstance(task, DetectTask):
        right = (
            "a detector.pt"
            if isinstance(task, DetectTask)
            else "a classifier.pt, or the folder of a run of --task classify"
        )
        raise InputError(f"--teacher {path}: does another task than this; right would be {right}")
    classes = names or unnamed(network.config.nc or 0)
    if (order := order_of(classes, task.names)) is None:
        raise InputError(f"--teacher {path}: knows other classes: the data {difference(classes, task.names)}")
    network.load_state_dict(in_order(network.state_dict(), network, order))
    network.names = dict(enumerate(task.names))
    if isinstance(network, Model) and isinstance(task, DetectTask):
        own, head = task.detector.head, network.head
        if not own.is_like(head):
            raise InputError(
                f"--teacher {path}: has another head, or other anchors or strides, than the detectors of this space"
            )
