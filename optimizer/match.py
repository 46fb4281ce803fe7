"""`match_nas`: a searched backbone, with its weights, in a full detector.

Two ways lead from the searched rows to the detector's YAML, and both read everything from the YAMLs:

1. *Overlay.* If the searched rows run in step with the detector's first rows (same inputs, same strides), they take
   their places; rows of the detector's backbone beyond them, such as an SPPF that was not searched, stay.
2. *Splice.* Otherwise the searched rows replace the detector's whole backbone, and what the head takes from it is found
   by stride: the last searched row of the same stride (the idea of timm's `FeatureInfo`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.catalog import is_head, lookup
from models.detector import Model
from models.errors import InputError
from models.files import load_detector, save_detector
from models.grammar import Call, Config, Row, read_config
from models.network import Network
from models.registry import scaled
from spaces import Space

State = Mapping[str, Tensor]
SILU = Call("nn.SiLU")
MULTIPLES = ("depth_multiple", "width_multiple", "channel_multiple", "max_channels")


def match_nas(
    detector: Model | str | Path | Mapping[str, Any],
    searched: nn.Module | str | Path,
    save: str | Path | None = None,
    arch: Mapping[str, Any] | None = None,
) -> Model:
    """Build the detector that a search found and copy the searched weights into it.

    Parameters
    ----------
    detector
        What gives neck, head and classes: a `Model`, a YAML's path or its mapping. A `Model` gives its YAML and class
        names, not its weights.
    searched
        A network whose arch is fixed, a supernet (then with `arch`), or the folder or ``detector.pt`` of a run.
    save
        Where to write the detector; see `models.save_detector`.
    arch
        Label to value, for a supernet.

    Returns
    -------
    Model
        Every tensor that the arch selects is carried over; only what has no source is initialised. Both counts are
        printed, and stand in ``carried`` and ``initialised`` of the model.

    Raises
    ------
    InputError
        If the backbone cannot feed the head, or the arch is of another space.
    """
    if isinstance(detector, nn.Module) and not isinstance(detector, Model):
        raise InputError(f"match_nas takes a Model, a YAML or a mapping as detector, got {type(detector).__name__}")
    source, state, arch = _searched(searched, arch)
    target = detector.config if isinstance(detector, Model) else _plain(read_config(detector))
    if source.has_head and not _in_step(target, source):
        # A whole detector was searched, and its neck is another than this detector's.
        source = _without_head(source.backbone())
    model = Model(read_config(join(target, source), file=target.file))
    if isinstance(detector, Model):
        model.names = dict(detector.names)

    own = model.state_dict()
    rows = tuple(f"model.{row.index}." for row in source.rows)
    carried = {k: v for k, v in state.items() if k.startswith(rows) and k in own}
    for key in (k for k in state if k.startswith(rows)):
        if key not in own or own[key].shape != state[key].shape:
            expected = tuple(own[key].shape) if key in own else "nothing"
            raise InputError(f"{key}: the search has {tuple(state[key].shape)}, the detector {expected}")
    carried |= _of_head(model, source, state)
    model.load_state_dict({**own, **carried})
    model.carried, model.initialised = sorted(carried), sorted(set(own) - set(carried))
    counts = [
        f"{len(keys)} tensors ({sum(own[k].numel() for k in keys):,} values)"
        for keys in (model.carried, model.initialised)
    ]
    print(f"match_nas: {counts[0]} carried over from the search, {counts[1]} initialised")
    if save is not None:
        save_detector(model, save, arch=dict(arch or {}), num_searched=len(source.rows))
    return model


def _plain(config: Config) -> Config:
    """A space given for a detector stands for the network that upstream builds."""
    space = Space(config)
    return read_config(space.freeze(space.upstream()), file=config.file)


def _of_head(model: Model, source: Config, state: State) -> dict[str, Tensor]:
    """Weights of the head, where it was searched on as well and has as many classes and anchors as the detector's."""
    if len(model.config.rows) != len(source.rows) + 1:
        return {}
    prefix = f"model.{len(source.rows)}."
    own = {k: v for k, v in model.state_dict().items() if k.startswith(prefix) and not k.endswith(".anchors")}
    fits = all(k in state and state[k].shape == v.shape for k, v in own.items())
    return {k: state[k] for k in own} if fits else {}


def _searched(searched: Any, arch: Mapping[str, Any] | None) -> tuple[Config, State, Mapping[str, Any] | None]:
    """(plain YAML of the searched rows, state dict, arch)."""
    if isinstance(searched, (str, Path)):
        path = Path(searched)
        model, content = load_detector(path / "detector.pt" if path.is_dir() else path)
        num_rows = content.get("num_searched", model.config.num_backbone)
        return _without_head(model.config.first(num_rows)), model.state_dict(), content.get("arch")
    if hasattr(searched, "space"):
        from spaces import slice_weights  # loads NNI, which plain networks and run folders do without

        raw, state = slice_weights(searched, arch)
        config = _without_head(read_config(raw).first(len(searched.config.rows)))
        return config, state, searched.space.complete(searched.arch or arch)
    if isinstance(searched, Network):
        return _without_head(searched.config), searched.state_dict(), arch
    raise InputError(f"match_nas takes a network, a supernet or a run folder, got {type(searched).__name__}")


def _without_head(config: Config) -> Config:
    """Without a closing head: classes and anchors are the detector's."""
    return config.first(len(config.rows) - is_head(config.rows[-1]))


def join(target: Config, source: Config) -> dict[str, Any]:
    """The YAML of the detector `target` with the rows of `source` for a backbone; rows only, no weights."""
    if str(target.activation or SILU) != str(source.activation or SILU):
        raise InputError(
            f"{target.file} and the searched {source.file} differ in 'activation' ({target.activation} and "
            f"{source.activation}): give both the same"
        )
    if target.ch != source.ch:
        raise InputError(f"the search took images of {source.ch} channels, {target.file} takes {target.ch}")
    raw = {k: v for k, v in target.raw.items() if k not in ("backbone", "head")}
    scaled_rows = [r for r in source.rows if lookup(r).channels is scaled]
    if all(getattr(target, m) == getattr(source, m) for m in MULTIPLES) and all(
        target.width(r.args[0], r) == source.width(r.args[0], r) for r in scaled_rows
    ):
        written, rows = ([r.written for r in config.rows] for config in (target, source))
    else:
        # What a nominal width means depends on the multiples (and on the head's output count): write both out.
        raw.update(dict.fromkeys(MULTIPLES, 1))
        del raw["max_channels"]
        written, rows = written_out(target), written_out(source)
    if not _in_step(target, source):
        return {**raw, **_splice(target, source, written, rows)}
    written = rows + written[len(rows) :]
    return {**raw, "backbone": written[: target.num_backbone], "head": written[target.num_backbone :]}


def written_out(config: Config) -> list[list[Any]]:
    """Rows as they are with every multiple at 1."""
    rows = []
    for row in config.rows:
        source, _, module, args = row.written
        if row.args and (built := _own_widths(config, row)) is not None:
            args = [built, *args[1:]]
        rows.append([source, config.depth(row), module, args])
    return rows


def _own_widths(config: Config, row: Row) -> Any:
    """What a row's first argument is at its multiples, a width or a list of them; None where it is something else."""
    first, rule = row.args[0], lookup(row).channels
    if rule is scaled or row.module == "SharedTowers":
        return config.width(first, row)
    return [config.width(c, row) for c in first] if row.module == "CBLinear" else None


def _measure(config: Config) -> list[float]:
    network = Network()
    network.build(config)
    return network.reductions()


def _in_step(target: Config, source: Config) -> bool:
    """Whether the searched rows can take the places of the detector's first rows."""
    if len(source.rows) >= len(target.rows):
        return False

    def same(a: Row, b: Row) -> bool:
        # Within the backbone a block may have become another; a head's row is replaced by its like only.
        return a.sources == b.sources and (a.section == "backbone" or a.module == b.module)

    first = target.first(len(source.rows))
    alike = all(same(a, b) for a, b in zip(first.rows, source.rows, strict=True))
    return alike and _measure(first) == _measure(source)


def _splice(
    target: Config, source: Config, written: list[list[Any]], rows: list[list[Any]]
) -> dict[str, list[list[Any]]]:
    """Searched rows as the backbone; what the head takes from the old one by stride."""
    old, new = target.num_backbone, len(rows)
    old_strides, new_strides = _measure(target.backbone()), _measure(source)
    if old_strides[-1] != new_strides[-1]:
        raise InputError(
            f"the searched backbone ends at stride {new_strides[-1]:g}, but the head of {target.file} continues from "
            f"stride {old_strides[-1]:g}"
        )
    last_of = {stride: index for index, stride in enumerate(new_strides)}

    def moved(row: Row, j: int) -> int:
        if j >= old:
            return j + new - old
        if old_strides[j] not in last_of:
            raise row.error(f"takes a map of stride {old_strides[j]:g}, which the searched backbone does not have")
        return last_of[old_strides[j]]

    head = []
    for row, (_, number, module, args) in zip(target.rows[old:], written[old:], strict=True):
        index = row.index + new - old
        sources = [moved(row, j) for j in row.sources]
        sources = [-1 if j == index - 1 else j for j in sources]
        head.append([sources if isinstance(row.source, tuple) else sources[0], number, module, args])
    return {"backbone": rows, "head": head}
