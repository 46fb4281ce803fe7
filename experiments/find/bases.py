"""The plain networks that a run begins with, and the spaces around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.detector import Model
from models.errors import InputError
from models.files import save_model_yaml
from models.grammar import read_config
from models.plugins import load_plugins_of_run
from models.upstream import load_weights
from spaces import Space, apply_policy

from .options import Options

_FROM_SCRATCH = ("yolov5n", "yolov5s")
# Spaces that are shipped, each around a plain network; around others choices are laid by this policy.
_SHIPPED = ("yolov5n_bignas", "yolov5s_bignas", "yolov8n_bignas", "yolo11n_bignas")
_POLICY = "elastic"


@dataclass(frozen=True)
class Base:
    """A plain network.

    Attributes
    ----------
    raw
        Its YAML, without choices and without a resolution.
    weights
        What it begins with; None: noise.
    space
        YAML of the space of which it is an arch.
    """

    name: str
    raw: dict[str, Any]
    weights: str | None
    space: dict[str, Any]


def read_bases(options: Options, nc: int) -> list[Base]:
    """The plain networks that the options name, the smallest first where none is named.

    Raises
    ------
    InputError
        A file is no detector's, or what it holds cannot be searched.
    """
    load_plugins_of_run(options.plugin)
    if options.cfg is not None:
        if len(options.weights) > 1:
            raise InputError("--cfg beside several --weights: right would be the weights of its plain network alone")
        return [_of_space(options.cfg, options.weights[0] if options.weights else None)]
    found: list[Base] = []
    for weights in options.weights:
        try:
            model, _ = load_weights(weights)
        except InputError as e:
            raise InputError(f"--weights {e}") from None
        if model.head.finds != "boxes":
            raise InputError(f"--weights {weights}: finds {model.head.finds}; right would be a detector of boxes")
        raw = dict(model.config.raw)
        name = _free(Path(weights).stem if Path(weights).stem != "detector" else Path(weights).parent.name, found)
        found.append(Base(name or "plain", _plain(raw), weights, space_around(raw, nc)))
    for name in _FROM_SCRATCH if not found else ():
        raw = dict(read_config(f"{name}.yaml").raw)
        found.append(Base(name, raw, None, space_around(raw, nc)))
    return found[:1] if options.quick else found


def _free(name: str, taken: Sequence[Base]) -> str:
    names, number, free = {b.name for b in taken}, 2, name
    while free in names:
        free, number = f"{name}{number}", number + 1
    return free


def _plain(raw: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in raw.items() if k not in ("resolution", "names")}


def _of_space(cfg: str, weights: str | None) -> Base:
    config = read_config(cfg)
    space = Space(config)
    raw = dict(config.raw) if space.decisions else apply_policy(config, _POLICY)
    plain = Space(raw)
    return Base(Path(cfg).stem, _plain(plain.freeze(plain.upstream())), weights, raw)


def space_around(raw: dict[str, Any], nc: int) -> dict[str, Any]:
    """The YAML of a space that a plain network is an arch of."""
    own = _shapes(raw, nc)
    for name in _SHIPPED:
        space = Space(f"{name}.yaml")
        if _shapes(space.freeze(space.upstream()), nc) == own:
            return dict(space.config.raw)
    return apply_policy(read_config(_plain(raw)), _POLICY)


def _shapes(raw: dict[str, Any], nc: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors, and so what it is, however its YAML is written."""
    state = Model(read_config(_plain(raw), nc=nc)).state_dict()
    return {name: tuple(t.shape) for name, t in state.items()}


def with_sizes(space: dict[str, Any], sizes: Sequence[int], plain: int) -> dict[str, Any]:
    """The space with the side of the images among its decisions; one that has it already stays as it is."""
    if "resolution" in space or len(sizes) < 2:
        return dict(space)
    return {**space, "resolution": {"choice": sorted(sizes), "plain": plain}}


def write_yaml(raw: dict[str, Any], path: Path) -> str:
    """Write a YAML; its path."""
    save_model_yaml(raw, path)
    return str(path)
