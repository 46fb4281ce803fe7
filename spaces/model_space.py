"""Spaces as NNI model spaces, and what becomes of a supernet at an arch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from models.classifier import Classifier, build_classifier, classify
from models.detector import Model
from models.errors import InputError
from models.grammar import Config, Row, choices_in, read_config
from models.head import Head
from models.network import Network
from models.registry import one_input

from .active import Active
from .blocks import BUILDERS, MixedBottleneck, MixedWidths
from .elastic import Builder, ElasticRow, ResolutionChoice
from .kernel_transform import is_transform
from .nni_compat import ModelSpace, is_supernet, model_context
from .rows import ChoiceRow
from .space import Space, read_arch


def _build_searchable(builder: Builder, config: Config, row: Row, c_in: Sequence[int]) -> tuple[nn.Module, int]:
    space_row = builder.space.rows[row.index]
    if isinstance(space_row, ChoiceRow):
        return builder.row(space_row, c_in)
    if builder.wiring.is_fed_elastic(row):
        raise row.error("its input has a width that is open, which NASConv and NASC3 cannot follow; Conv and C3 can")
    module, c_out = BUILDERS[type(space_row)](space_row, one_input(row, c_in))
    builder.plain(row, c_out)
    return module, c_out


class _Supernet:
    """What both kinds of spaces are once a strategy has made a supernet of them.

    Attributes
    ----------
    space
        The decisions.
    arch
        Of a network that NNI froze: what it was frozen to.
    active
        What a supernet is set to.
    """

    space: Space
    arch: dict[str, Any] | None = None
    active: Active
    input: nn.Module

    def _begin(self, config: Config) -> Builder:
        self.space, self.active = Space(config), Active()
        self.active.update(dict.fromkeys(self.space.decisions, 0))
        return Builder(self.space, self.active)

    @property
    def resolution(self) -> int | None:
        """Pixels a side of the images that what is active, or was frozen, is meant for; None if the YAML is silent."""
        if self.arch is not None:
            return cast("int | None", self.space.freeze_resolution(self.arch))
        if isinstance(self.input, ResolutionChoice):
            return self.input.side
        return cast("int | None", self.space.config.raw.get("resolution"))

    def activate(self, arch: Mapping[str, Any]) -> None:
        """Set a supernet to the path of `arch`; labels of searchable blocks that it lacks mean what upstream builds."""
        self.active.set(self.space.complete(arch), {k: d.values for k, d in self.space.decisions.items()})

    def freeze(self, sample: Mapping[str, Any]) -> nn.Module:
        full = self.space.complete(sample)
        frozen = super().freeze(full)  # type: ignore[misc]
        frozen.arch = full
        return frozen


class NASBACKBONE(_Supernet, ModelSpace, Network):
    """The backbone rows of a space as a searchable classifier. (N, ch, H, W) -> (N, nc) logits.

    Within `fixed_arch` the constructor returns the plain `models.Classifier` that the arch means.

    Parameters
    ----------
    cfg
        Path or mapping of a space's YAML; a head, if it has one, is left aside.
    nc, ch
        Classes and input channels in place of the YAML's own.
    """

    def __init__(self, cfg: str | Path | Mapping[str, Any], nc: int | None = None, ch: int | None = None) -> None:
        super().__init__()
        config = read_config(cfg, nc, ch)
        if any(any(choices_in(row)) for row in config.rows[config.num_backbone :]):
            config = config.backbone()  # what a head leaves open is no decision of the backbone's
        builder = self._begin(config)
        build_classifier(self, self.space.config, build=lambda *row: _build_searchable(builder, *row))
        self.linear: nn.Module = builder.linear(cast(nn.Linear, self.get_submodule("linear")))
        self.input = builder.resolution()

    @classmethod
    def create_fixed_module(  # type: ignore[override]
        cls, sample: Mapping[str, Any], cfg: Any, nc: int | None = None, ch: int | None = None
    ) -> nn.Module:
        return Classifier(Space(read_config(cfg, nc, ch)).freeze(sample))

    def extra_oneshot_hooks(self, strategy: Any) -> list[Any]:
        """The supernet operations of our own blocks; NNI asks every model space for them."""
        return [MixedWidths.mutate, MixedBottleneck.mutate]

    imgsz_multiple = Classifier.imgsz_multiple

    def forward(self, x: Tensor) -> Tensor:
        return classify(self, x)


class NASDETECTOR(_Supernet, ModelSpace, Model):
    """A whole space as a searchable detector; the output is `models.Model`'s.

    Within `fixed_arch` the constructor returns the plain `models.Model` that the arch means.
    """

    def __init__(
        self, cfg: str | Path | Mapping[str, Any], nc: int | None = None, ch: int | None = None, anchors: Any = None
    ) -> None:
        builder = self._begin(read_config(cfg, nc, ch, anchors))
        super().__init__(self.space.config, build=lambda *row: _build_searchable(builder, *row))
        self.input = builder.resolution()

    @classmethod
    def create_fixed_module(  # type: ignore[override]
        cls, sample: Mapping[str, Any], cfg: Any, nc: int | None = None, ch: int | None = None, anchors: Any = None
    ) -> nn.Module:
        return Model(Space(read_config(cfg, nc, ch, anchors)).freeze(sample))

    extra_oneshot_hooks = NASBACKBONE.extra_oneshot_hooks

    @property
    def head(self) -> Head:
        last = self.model[-1]
        return cast(Head, last.block if isinstance(last, ElasticRow) else last)


def transform_kernels(supernet: NASBACKBONE | NASDETECTOR) -> int:
    """Give a supernet's convolutions of open kernel the matrices of Once-for-All (`kernel_transform`).

    Nothing that it computes changes by it. Returns how many there are new.
    """
    return sum(module.transform_kernels() for module in supernet.modules() if isinstance(module, ElasticRow))


def load_into(supernet: NASBACKBONE | NASDETECTOR, state: Mapping[str, Tensor]) -> None:
    """`load_state_dict` of a supernet, which gets matrices of kernels where the state has them."""
    if any(map(is_transform, state)):
        transform_kernels(supernet)
    supernet.load_state_dict(state)


@contextmanager
def fixed_arch(arch: str | Path | Mapping[str, Any]) -> Iterator[None]:
    """Spaces built inside are the plain networks that `arch`, a JSON's path or a mapping, means."""
    with model_context(dict(arch) if isinstance(arch, Mapping) else read_arch(arch)):
        yield


def slice_weights(
    supernet: NASBACKBONE | NASDETECTOR, arch: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a supernet is at an arch; of a network that NNI froze, what it is.

    Returns
    -------
    The plain YAML, and the state dict that a plain network built from it takes.

    Raises
    ------
    InputError
        If `supernet` has not been through a one-shot strategy, or the arch is missing or of another space.
    """
    space: Space = supernet.space
    sliced: nn.Module = supernet
    if supernet.arch is None:
        if arch is None:
            raise InputError("a supernet holds many networks: say which arch is meant")
        if not all(isinstance(row, ChoiceRow) for row in space.rows) and not is_supernet(supernet):
            raise InputError("this is a model space without shared weights: run a one-shot strategy on it first")
        sliced = supernet.freeze(arch)
    raw = space.freeze(cast(Any, sliced).arch)
    return raw, {k: v.detach().clone() for k, v in sliced.state_dict().items()}
