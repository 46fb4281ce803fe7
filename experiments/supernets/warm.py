"""What a supernet begins with: a detector's weights, or another supernet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from torch import Tensor

from models.classes import names_of
from models.detector import Model
from models.errors import InputError
from models.files import is_classifier, load_classifier
from models.grammar import read_config
from models.network import Network
from models.upstream import load_weights
from spaces import make_supernet
from spaces.channel_order import order_channels
from spaces.warm_start import warm_start

from ..tasks.task import SearchTask
from .subnets import SUPERNET, load_supernet

# Of the images together that statistics of what is new are taken from: five of 640 x 640, or 50 of 200 x 200.
_PIXELS = 2_000_000


class Weights(NamedTuple):
    """A plain network's, or a supernet's, as found in a file; `names` of its classes where it knows them."""

    cfg: dict[str, Any]
    state: dict[str, Tensor]
    file: str
    names: tuple[str, ...] | None
    is_supernet: bool


def read_weights(path: str | Path, task: SearchTask) -> Weights:
    """Read ``detector.pt``, an upstream checkpoint, ``classifier.pt``, or the supernet in the folder of a run.

    Raises
    ------
    InputError
        The file is missing or none of them, or does another task than this.
    """
    path = Path(path)
    if path.is_dir() or path.name == SUPERNET:
        file = path / SUPERNET if path.is_dir() else path
        if not file.is_file():
            raise InputError(f"--weights {path}: has no {SUPERNET}; right would be the folder of a search that ended")
        space, state, names = load_supernet(file)
        return Weights(space.config.raw, state, str(file), names, True)
    try:
        network, _ = (load_classifier if is_classifier(path) else load_weights)(path)
    except InputError as e:
        raise InputError(f"--weights {e}") from None
    _check(path, network, task)
    return Weights(dict(network.config.raw), network.state_dict(), str(path), names_of(network), False)


def _check(path: Path, network: Network, task: SearchTask) -> None:
    detects = task.detector is not None and task.is_whole
    if detects and not isinstance(network, Model):
        raise InputError(f"--weights {path}: a classifier; right would be a detector.pt or a YOLOv5 checkpoint")


def begun(task: SearchTask, weights: Weights, seed: int) -> tuple[Any, str]:
    """A new supernet that begins with the weights, its channels in the order of their importance.

    Parameters
    ----------
    seed
        Of what the weights leave open.

    Returns
    -------
    The supernet, and in a line what was done.

    Raises
    ------
    InputError
        The weights are of another family, or larger than the space.
    """
    pl.seed_everything(seed, verbose=False)
    supernet, images = make_supernet(task.space()), task.sample()
    images = images[: max(_PIXELS // images[0, 0].numel(), 2)]
    try:
        start = warm_start(supernet, read_config(weights.cfg, file=weights.file), weights.state, weights.names, images)
        if not weights.is_supernet:  # which has learnt in its own order
            order_channels(supernet, start)
    except InputError as e:
        raise InputError(f"--weights {e}") from None
    return supernet, str(start)
