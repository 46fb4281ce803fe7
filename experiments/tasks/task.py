"""What a search is about: data, the space's network, its evaluator, and how a plain network is judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from models.detector import Model
from models.errors import InputError
from models.grammar import Config, read_config
from models.network import Network
from models.plugins import load_plugins_of_run
from models.upstream import load_weights
from spaces import CostModel, Space, apply_policy, in_upstream_form
from spaces.kinds import RESOLUTION

from ..run import registry
from ..run.early import nothing_to_search
from ..run.lightning import accelerator_of, quiet_lightning
from .module import TaskModule

if TYPE_CHECKING:
    from spaces import NASBACKBONE, NASDETECTOR


class SearchTask(Protocol):
    """A task that architectures are searched for.

    Attributes
    ----------
    metric
        Name of what `measure` gives; larger is better.
    names
        Of the classes.
    result
        What a search leaves: ``detector``, or ``classifier`` where nothing gives a neck and a head.
    detector
        The detector whose neck and head the result gets; None where it is a classifier.
    is_whole
        Whether the networks that are searched are the results, not their backbones alone.
    """

    metric: str
    names: Any  # tuple[str, ...], a property
    result: str
    detector: Model | None
    is_whole: bool

    def space(self) -> NASBACKBONE | NASDETECTOR:
        """The space as a network with choices."""

    def evaluator(self, **trainer: Any) -> Any:
        """The evaluator that an NNI strategy trains with."""

    def module(self) -> TaskModule:
        """What gives the losses of a network that it is set to."""

    def loader(self, part: str = "weights", seed: int | None = None) -> Any:
        """Batches of the training images that a part of the search sees, this process's share of them.

        Parameters
        ----------
        part
            ``weights``, ``arch``, or ``all``: both of them.
        seed
            Of the order; the search's own by default.
        """

    def network(self, cfg: Mapping[str, Any]) -> Network:
        """The plain network of a frozen YAML."""

    def whole(self) -> Space:
        """The space of the results; its labels are those of the space that is searched."""

    def costs(self, imgsz: int, latency: Any = None) -> CostModel:
        """Costs of the results, at images of that side; see `CostModel`."""

    def hand_over(
        self, network: Network, folder: Path, arch: Mapping[str, Any], name: str | None = None, is_slice: bool = False
    ) -> Network:
        """Write the result that an arch's network gives, a plain YAML and its weights.

        Parameters
        ----------
        name
            Of the files, without suffix; `result` by default.
        is_slice
            Whether the weights are a trained supernet's, to be finetuned gently.
        """

    def measure(self, network: Network, calibrated: bool = True) -> float:
        """The metric on unseen data, after the batch norms' statistics were taken anew from the training data.

        A slice of a mixture has statistics of the mixture, and with YOLOv5's momentum of 0.03 a short training leaves
        the moving averages near their start, so every network of a comparison is measured like this.
        """

    def calibrated(self, network: Network, batches: int | None = None) -> Network:
        """A copy with batch norm statistics of so many batches of training data (all), at its resolution."""

    def sample(self) -> Tensor:
        """(N, C, H, W), images of the first training batches as a network takes them, the same in all processes."""

    def rate(self, network: Network) -> float:
        """The metric on the data of the architecture, for searches to go by; statistics from some training batches."""


def _with_anchors(config: Config, weights: str | None) -> Config:
    """A space whose anchors are those that the detector in a file has learnt with, if they are as many."""
    if weights is None or not Path(weights).is_file() or not config.has_head:
        return config
    try:
        anchors = load_weights(weights)[0].config.anchors
    except InputError:  # who takes the weights says why
        return config
    same = isinstance(anchors, list) and isinstance(config.anchors, list)
    same = same and [*map(len, anchors)] == [*map(len, config.anchors)]
    return read_config(config, anchors=anchors) if same else config


def open_task(options: Any) -> tuple[Space, SearchTask, str]:
    """The space, the task and Lightning's accelerator of a search's options.

    Raises
    ------
    InputError
        If there is nothing to search, or the task cannot search it.
    """
    quiet_lightning()
    accelerator = accelerator_of(options.device)
    load_plugins_of_run(options.plugin)
    policy = getattr(options, "space", None)
    cfg = read_config(options.cfg, scale=getattr(options, "scale", None))
    if policy is not None:
        cfg = read_config(apply_policy(cfg, policy), file=cfg.file)
    if getattr(options, "upstream_form", False):
        cfg = read_config(in_upstream_form(cfg), file=cfg.file)
    space = Space(_with_anchors(cfg, getattr(options, "weights", None)))
    task: SearchTask = registry.load("task", options.task)(options, space, accelerator)
    if not space.decisions:
        raise InputError(nothing_to_search(options))
    if options.detector is not None and RESOLUTION in space.decisions:
        raise InputError(
            f"{options.cfg}: resolution is a choice of the proxy's images, which are not those of --detector; "
            "right would be a YAML without it, or no --detector"
        )
    in_head = [label for label, row in space.row_of.items() if row >= space.config.num_backbone]
    if in_head and options.task in ("classify", "landmarks"):
        raise InputError(f"{options.cfg}: '{in_head[0]}' is a choice of the head: search it with --task detect")
    return space, task, accelerator
