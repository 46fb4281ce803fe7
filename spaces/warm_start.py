"""A trained network's weights in a supernet of a space that has it, or has larger ones.

The subnet that is the network equals it. What is larger begins without changing what is computed, where that can be:

| | |
|---|---|
| larger kernels | zero around the trained one |
| more channels | fresh weights that make them, zero weights wherever a trained channel would read them |
| more blocks | the identity (`spaces.identity`); without a shortcut, that and constants which a batch norm takes away |
| other candidates of a layer choice | what of the trained layer fits: padded with zeros, or its centre |

So after Net2Net (Chen et al. 2016, arXiv:1511.05641), but that new channels are not copies of old ones, which would get
equal gradients: zero weights behind them keep the function as well, and let every one become its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.catalog import is_head
from models.classes import class_layers, difference, in_order, order_of, pairs, rows_by_class, unnamed
from models.classifier import Classifier
from models.detector import Model
from models.errors import InputError
from models.grammar import HEAD_KEYS, Config, Row, choices_in, read_config
from models.head import Head
from models.network import Network

from .elastic import repeated
from .elastic_plan import names_in
from .elastic_slices import Cut, MismatchError, cuts_of_layer
from .elastic_trace import Layout, Trace, layers, trace_network
from .elastic_wiring import fit
from .elements import Elements
from .holding import Holding, find_holding
from .identity import make_identity, statistics_of_batches
from .model_space import NASBACKBONE, NASDETECTOR, load_into
from .nas_rows import NAS_ROWS
from .nni_compat import LayerChoice
from .space import Arch, Space

# Of the largest value of a row's output: sums in another order; and behind constants that are large beside the rest.
_ROUNDING, _ROUNDING_SHIFTED = 1e-4, 1e-3
# Images of noise that statistics are taken from where there are no others: so many values a channel on a 2 x 2 map.
_NUM_NOISE = 64

Supernet = NASBACKBONE | NASDETECTOR
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class WarmStart:
    """What `warm_start` did.

    Attributes
    ----------
    arch
        Of the smallest subnet that holds the network; of another supernet's weights, None.
    is_exact
        Whether that subnet is the network; else it computes the same, and is larger.
    largest
        Arch of the largest subnet that differs from the network in size alone.
    loaded, grown, fresh
        Numbers of weights: the network's own; beside them in one tensor; in tensors that have none of its.
    classes
        Names of those whose weights were carried over.
    num_classes
        Of the supernet.
    inexact
        Rows in which the largest subnet does not compute what the network does: blocks more are no identity there, or
        channels are taken together otherwise than in the network (groups, attention).
    shifted
        Rows in which what is deeper computes what the network does with batch norm statistics of its own: in training,
        and calibrated.
    known
        (elements of the supernet,), as `Elements` numbers them: whether they are the network's own.
    """

    arch: Arch | None
    is_exact: bool
    largest: Arch | None
    loaded: int
    grown: int
    fresh: int
    classes: tuple[str, ...]
    num_classes: int
    inexact: tuple[str, ...]
    shifted: tuple[str, ...]
    known: Tensor = field(repr=False, compare=False)

    def __str__(self) -> str:
        total = self.loaded + self.grown + self.fresh
        if self.arch is None:
            return f"all {total:,} weights of a supernet of the same space"
        subnet = "a subnet is this network" if self.is_exact else "its subnets are larger"
        said = [
            f"{self.loaded:,} of {total:,} weights; {subnet}",
            f"{self.grown:,} grown around them, {self.fresh:,} initialised anew",
            f"{len(self.classes)} of {self.num_classes} classes by name",
        ]
        if self.shifted:
            said.append(f"the largest subnet needs batch norm statistics of its own in {', '.join(self.shifted)}")
        if self.inexact:
            said.append(f"the largest subnet begins otherwise in {', '.join(self.inexact)}")
        return "; ".join(said)


@torch.no_grad()
def warm_start(
    supernet: Supernet,
    cfg: str | Path | Mapping[str, Any] | Config,
    state: State,
    names: Mapping[int, str] | Sequence[str] | None = None,
    images: Tensor | None = None,
) -> WarmStart:
    """Put a plain network's weights, or another supernet's, into a supernet, in place.

    Parameters
    ----------
    supernet
        What `make_supernet` gives; a space of elastic rows alone is one already. Its `names` are its classes.
    cfg, state
        The plain network's YAML and state dict; or a space's YAML and the state dict of a supernet of it, which has to
        be of the same space and classes. A classifier's backbone may begin with a detector's weights.
    names
        The network's class names, in place of the YAML's own. Weights of classes go to the supernet's of the same name;
        if neither has names, by number. Other classes are as in a new head, as is all of a head that is of another
        kind. Anchors stay the supernet's.
    images
        (N, C, H, W), such as the network is trained with, from which batch norms of blocks more begin; noise if there
        are none.

    Raises
    ------
    InputError
        The network is of another family, or in some row larger than any subnet, or the supernet of another space.
    """
    config = read_config(cfg)
    if any(row.module in NAS_ROWS or any(choices_in(row)) for row in config.rows):
        return _continue(supernet, config, state, names)
    config, fresh = _with_head_of(supernet.space, config)
    with torch.random.fork_rng(devices=()):  # what is built for comparison draws no random numbers of the caller's
        return _Loading(supernet, config, state, names, images, fresh).run()


def _with_head_of(space: Space, config: Config) -> tuple[Config, bool]:
    """A detector's YAML with the space's head, where it has another on the same rows; whether it has."""
    own, theirs = config.rows[-1], space.config.rows[-1]
    alike = len(config.rows) == len(space.config.rows) and own.sources == theirs.sources
    if own.module == theirs.module or not (alike and is_head(own) and is_head(theirs)):
        return config, False
    frozen = space.freeze(space.upstream())
    raw = {k: v for k, v in config.raw.items() if k not in ("anchors", *HEAD_KEYS)}
    raw |= {k: frozen[k] for k in ("anchors", *HEAD_KEYS) if k in frozen}
    raw["head"] = [*raw["head"][:-1], frozen["head"][-1]]
    return read_config(raw, nc=config.nc, file=config.file), True


def _continue(supernet: Supernet, config: Config, state: State, names: Any) -> WarmStart:
    theirs, own = Space(config).decisions, supernet.space.decisions
    for label in [*own, *theirs]:
        if label not in own or label not in theirs or own[label].values != theirs[label].values:
            a, b = (list(d[label].values) if label in d else "no such decision" for d in (own, theirs))
            raise InputError(
                f"{config.file}: a supernet of another space: '{label}' is {b} there and {a} here; right would be a "
                "supernet of the same space, or a plain network's weights"
            )
    classes = tuple(_names_of(supernet).values())
    before = [*_named(names).values()] or classes
    if (order := order_of(before, classes)) is None:
        raise InputError(
            f"{config.file}: a supernet of other classes: the data {difference(before, classes)}; "
            "right would be a plain network's weights, whose classes are taken by name"
        )
    try:
        load_into(supernet, in_order(state, supernet, order))
    except RuntimeError as e:
        reason = (str(e).splitlines()[1:] or [str(e)])[0].strip().rstrip(".")
        raise InputError(f"{config.file}: a supernet of another space or task: {reason}") from None
    elements = Elements(supernet)
    total = sum(p.numel() for p in supernet.parameters())
    known = torch.ones(elements.total, dtype=torch.bool)
    return WarmStart(None, True, None, total, 0, 0, classes, len(classes), (), (), known)


def plain_network(supernet: Supernet, raw: Mapping[str, Any] | Config) -> Network:
    """A plain network as the supernet's subnets are; class names are none of its business."""
    written = dict(raw.raw if isinstance(raw, Config) else raw)
    written.pop("names", None)
    file = raw.file if isinstance(raw, Config) else supernet.space.config.file
    return (Model if isinstance(supernet, NASDETECTOR) else Classifier)(read_config(written, file=file))


def subnet_at(elements: Elements, arch: Arch, where: Mapping[str, Tensor]) -> Network:
    """The plain network of `arch`, with a copy of the supernet's weights, on the CPU."""
    subnet = plain_network(elements.supernet, elements.supernet.space.freeze(arch))
    subnet.load_state_dict(elements.read(where))
    return subnet


def image_size(network: Any) -> int:
    """Pixels a side of images that leave two cells a side of the coarsest map."""
    return max(64, 2 * int(network.imgsz_multiple))


def covering(elements: Elements, largest: Arch) -> Iterator[tuple[Arch, dict[str, Tensor]]]:
    """Archs, the largest first, that together have all of a supernet's weights; and where theirs are."""
    where = elements.of(largest)
    seen = torch.zeros(elements.total, dtype=torch.bool)

    def is_new(found: Mapping[str, Tensor]) -> bool:
        before = int(seen.sum())
        for numbers in found.values():
            seen[numbers.reshape(-1).cpu()] = True
        return int(seen.sum()) > before

    is_new(where)
    yield largest, where
    for changes in _candidates(elements.supernet):
        if is_new(where := elements.of({**largest, **changes})):
            yield {**largest, **changes}, where
    # Layers that some settings have and the largest has not.
    space = elements.supernet.space
    for label, decision in space.decisions.items():
        for value in decision.values:
            if not _is_complete(elements, seen, space.row_of.get(label)) and is_new(
                where := elements.of({**largest, label: value})
            ):
                yield {**largest, label: value}, where


def _is_complete(elements: Elements, seen: Tensor, row: int | None) -> bool:
    """Whether all weights of a row were seen."""
    if row is None:
        return True
    return all(bool(seen[a:b].all()) for name, (a, b) in elements.spans.items() if name.startswith(f"model.{row}."))


def _candidates(supernet: nn.Module) -> Iterator[dict[str, Any]]:
    """What to decide so that every candidate of every layer choice, and those within it, is there; few at a time."""
    paths: list[dict[str, Any]] = []
    chosen: dict[str, dict[str, Any]] = {}  # prefix of a candidate to what leads to it
    for name, module in supernet.named_modules():
        if isinstance(module, LayerChoice) and any(True for _ in module.parameters()):
            above = max((p for p in chosen if name.startswith(p)), key=len, default="")
            for candidate in module.names:
                path = {**chosen.get(above, {}), module.label: candidate}
                chosen[f"{name}.{candidate}."] = path
                paths.append(path)
    while paths:  # together, where they do not contradict one another
        together: dict[str, Any] = {}
        rest = []
        for path in paths:
            if all(together.get(label, value) == value for label, value in path.items()):
                together.update(path)
            else:
                rest.append(path)
        paths = rest
        yield together


class _Loading:
    """One call of `warm_start`."""

    def __init__(
        self, supernet: Supernet, config: Config, state: State, names: Any, images: Tensor | None, fresh: bool = False
    ) -> None:
        self.supernet, self.elements = supernet, Elements(supernet)
        self._fresh = f"model.{len(config.rows) - 1}." if fresh else None  # a head that is not the state's
        self.known = torch.zeros(self.elements.total, dtype=torch.bool)
        space: Space = supernet.space
        num_rows = len(supernet.model)
        theirs = _named(names) or _named(config.raw.get("names"))
        theirs = theirs or dict(enumerate(unnamed(config.nc or 0)))
        own = _names_of(supernet)
        self.classes = pairs([theirs[i] for i in sorted(theirs)], [*own.values()])
        self.num_classes, self.named = len(own), tuple(own[j] for _, j in self.classes)
        has_head = isinstance(supernet, NASDETECTOR)
        self.config = read_config(config, nc=len(own))
        if not has_head:
            self.config = self.config.first(num_rows)
        self.holding: Holding = find_holding(_first(space, num_rows), self.config)
        self.network = plain_network(supernet, self.config)
        self.state = self._checked(state)
        self.size = image_size(self.network)
        self.trace, _ = trace_network(self.network, self.size)
        self.images = _noise(_NUM_NOISE, self.network.config.ch, self.size) if images is None else images.cpu()
        self._prepared: set[int] = set()
        self._shifted: set[int] = set()  # rows

    def _checked(self, state: State) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Tensor to its value, and which of its elements are known, if not all; of as many classes as the supernet."""
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        own = {k: v for k, v in self.network.state_dict().items() if not k.endswith(".anchors")}
        heads = {name: m for name, m in self.network.named_modules() if isinstance(m, Head)}
        by_class = class_layers(self.network)
        widened = {f"{name}.{branch}" for name, m in heads.items() for branch in m.width_by_class}
        for key, tensor in own.items():
            if self._fresh is not None and key.startswith(self._fresh):
                found[key] = torch.zeros_like(tensor), torch.zeros(tensor.shape, dtype=torch.bool)
                continue
            value = state[key].detach().cpu() if key in state else None
            layer = key.rpartition(".")[0]
            if value is None and layer == "linear":
                continue
            if value is not None and layer in by_class:
                found[key] = rows_by_class(value, self.num_classes, by_class[layer], self.classes)
                if layer == "linear":
                    continue
            elif value is not None:
                found[key] = value, None
            if value is not None and found[key][0].shape != tensor.shape and key.startswith(tuple(widened)):
                # A branch as wide as it has classes: another number of them has another branch.
                found[key] = torch.zeros_like(tensor), torch.zeros(tensor.shape, dtype=torch.bool)
            if value is None or found[key][0].shape != tensor.shape:
                what = "is not there" if value is None else f"is {list(value.shape)}"
                raise InputError(
                    f"{self.config.file}: the state dict is of another network than the YAML: '{key}' {what}, and "
                    f"by the YAML {list(tensor.shape)}; right would be both of one network"
                )
        return found

    def run(self) -> WarmStart:
        self._load(self.holding.smallest, self.elements.of(self.holding.smallest))
        for arch, where in covering(self.elements, self.holding.largest):
            self._load(arch, where)
        counts = {"loaded": 0, "grown": 0, "fresh": 0}
        parameters = dict(self.supernet.named_parameters())
        for name, (a, b) in self.elements.spans.items():
            if name in parameters:
                known = int(self.known[a:b].sum())
                counts["loaded"] += known
                counts["grown" if known else "fresh"] += b - a - known
        return WarmStart(
            self.holding.smallest,
            self.holding.is_exact,
            self.holding.largest,
            **counts,
            classes=self.named,
            num_classes=self.num_classes,
            inexact=tuple(f"row {row.index} ({row.module})" for row in self._inexact()),
            shifted=tuple(f"row {row.index} ({row.module})" for row in self.config.rows if row.index in self._shifted),
            known=self.known,
        )

    def _load(self, arch: Arch, where: Mapping[str, Tensor]) -> None:
        """Put what the subnet of `arch` has of the network where it belongs, and let the rest of it begin well."""
        subnet = subnet_at(self.elements, arch, where)
        trace, _ = trace_network(subnet, self.size)
        names = self._names(subnet)
        theirs = layers(subnet)
        for name, layer in layers(self.network).items():
            other = theirs.get(names[name])
            if other is None or type(other) is not type(layer):
                continue
            for key, known in self._copied(subnet, trace, name, names[name], where).items():
                self.known[where[key].reshape(-1).cpu()] |= known.reshape(-1).cpu()
        for key, tensor in subnet.state_dict(keep_vars=True).items():
            known = self.known[where[key].cpu()].to(tensor.device)
            if tensor.ndim > 1 and tensor.is_floating_point() and not key.endswith(".anchors"):
                layer = theirs[key.rpartition(".")[0]]
                out = 1 if getattr(layer, "transposed", False) else 0
                reads = known.transpose(0, out).flatten(1).any(1)
                shape = [1] * tensor.ndim
                shape[out] = -1
                tensor.data[reads.view(shape) & ~known] = 0
        self._deepen(subnet, set(names.values()), where)
        self.elements.write(where, subnet.state_dict())

    def _inexact(self) -> list[Row]:
        """Rows of the largest subnet that, given what the network's own are given, give something else."""
        where = self.elements.of(self.holding.largest)
        largest, network = subnet_at(self.elements, self.holding.largest, where).eval(), self.network.eval()
        for key, (value, known) in self.state.items():
            tensor = network.get_parameter(key) if key in dict(network.named_parameters()) else network.get_buffer(key)
            tensor.copy_(value if known is None else torch.where(known, value, tensor))
        image = _noise(1, network.config.ch, self.size)
        outputs: dict[int, Any] = {-1: image}
        # Of every row, and last, as the network's input is called -1, of the image.
        runs, larger = ([*t.rows, (image.shape[1],)] for t in (self.trace, trace_network(largest, self.size)[0]))
        deeper = _outermost(largest, set(self._names(largest).values()))
        found = []
        for row, own, other in zip(network.config.rows, network.model, largest.model, strict=True):
            given = [outputs[j] for j in row.sources]
            listed = isinstance(row.source, tuple)
            outputs[row.index] = y = own(given if listed else given[0])
            alike = all(len(runs[j]) == len(larger[j]) for j in row.sources)
            if not alike or not all(isinstance(x, Tensor) for x in given):
                continue  # several maps at a time: nothing of them can be told
            new = [name for name in deeper if name.startswith(f"model.{row.index}.")]
            embedded = [_embedded(x, runs[j], larger[j]) for j, x in zip(row.sources, given, strict=True)]
            # Blocks that shift were compared as they were made.
            skipped = new if row.index in self._shifted else []
            with _bypassed([largest.get_submodule(name) for name in skipped]):
                z = other(embedded if listed else embedded[0])
            if isinstance(own, Head) and self._fresh is not None:
                continue
            if isinstance(own, Head):
                y, z = (own.of_classes(logits, [i for _, i in self.classes]) for _, logits in (y, z))
            elif isinstance(y, Tensor) and len(runs[row.index]) == len(larger[row.index]):
                z = fit(z, larger[row.index], runs[row.index])
            else:
                continue
            if _differ(z, y) > _ROUNDING:
                found.append(row)
        return found

    def _names(self, subnet: Network) -> dict[str, str]:
        """Modules of the network to what they are called in a subnet."""
        found = {name: name for name, _ in self.network.named_modules()}
        for own, row in zip(self.network.config.rows, subnet.config.rows, strict=False):
            if own.index < len(self.network.model):
                times = repeated(self.network.config, own), repeated(subnet.config, row)
                inner = names_in(self.network.model[own.index], *times)
                found.update({_join(own.index, a): _join(own.index, b) for a, b in inner.items()})
        return found

    def _copied(
        self, subnet: Network, trace: Trace, name: str, name_in_subnet: str, where: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Copy one layer. Returns tensor of the subnet to which of its elements are known now."""
        layer = subnet.get_submodule(name_in_subnet)
        keys = [k for k in (*layer._parameters, *layer._buffers) if f"{name}.{k}" in self.state]
        keys = [k for k in keys if not bool(self.known[where[f"{name_in_subnet}.{k}"].cpu()].any())]
        if not keys:
            return {}
        found: dict[str, Tensor] = {}
        try:
            cuts = cuts_of_layer(self.network, subnet, self.trace, trace, name, name_in_subnet)
            inward = True
        except MismatchError:
            try:
                cuts = cuts_of_layer(subnet, self.network, trace, self.trace, name_in_subnet, name)
                inward = False
            except MismatchError:
                return {}
        for key in keys:
            tensor, (value, partly) = getattr(layer, key), self.state[f"{name}.{key}"]
            known = torch.ones(value.shape, dtype=torch.bool) if partly is None else partly
            cut = cuts[key]
            if inward:
                found[f"{name_in_subnet}.{key}"] = _put(tensor.data, value, known, cut)
            else:
                value, known = (v if cut is None else cut.copy(v) for v in (value, known))
                found[f"{name_in_subnet}.{key}"] = _put(tensor.data, value, known, None)
        return found

    def _deepen(self, subnet: Network, named: set[str], where: Mapping[str, Tensor]) -> None:
        """Blocks that the network has not begin as the identity."""
        rows: dict[int, list[str]] = {}
        for block in _outermost(subnet, named):
            first = f"{block}.{next(iter(layers(subnet.get_submodule(block))))}".rstrip(".")
            key = next(k for k in where if k.startswith(f"{first}."))
            if (number := int(where[key].reshape(-1)[0])) not in self._prepared:
                self._prepared.add(number)
                rows.setdefault(int(block.split(".")[1]), []).append(block)
        if not rows:
            return

        def deepen(row: nn.Module, given: tuple[Any, ...], index: int) -> None:
            """With what the row is given in the network; the rows before it have been deepened."""
            hooks[index].remove()  # it is run several times
            if _deepened(row, [subnet.get_submodule(name) for name in rows[index]], *given):
                self._shifted.add(index)

        hooks = {i: subnet.model[i].register_forward_pre_hook(functools.partial(deepen, index=i)) for i in rows}
        with statistics_of_batches(subnet.eval()):
            subnet(self.images)


def _deepened(row: nn.Module, blocks: Sequence[nn.Module], given: Any) -> bool:
    """Make blocks of a row the identity.

    Returns
    -------
    Whether they add constants, which the row's own batch norms take away.
    """
    states = [{k: v.clone() for k, v in block.state_dict().items()} for block in blocks]

    def made(shifts: bool) -> tuple[Any, list[float]]:
        errors: list[float] = []

        def make(block: nn.Module, inputs: tuple[Any, ...]) -> None:
            hooks[block].remove()  # it is run several times
            if isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
                errors.append(make_identity(block, inputs[0], shifts))

        for block, state in zip(blocks, states, strict=True):
            block.load_state_dict(state)
        hooks = {block: block.register_forward_pre_hook(make) for block in blocks}
        return row(given), errors

    if not any(made(shifts=False)[1]):
        return False
    with _bypassed(blocks):
        expected = row(given)
    y, errors = made(shifts=True)
    if not any(errors) and isinstance(y, Tensor) and _differ(y, expected) < _ROUNDING_SHIFTED:
        return True
    made(shifts=False)
    return False


@contextmanager
def _bypassed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Within it, blocks give what they are given."""
    hooks = [block.register_forward_hook(lambda block, inputs, output: inputs[0]) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _differ(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).abs().max() / expected.abs().max())


def _noise(number: int, channels: int, size: int) -> Tensor:
    return torch.rand(number, channels, size, size, generator=torch.Generator().manual_seed(0))


def _put(tensor: Tensor, value: Tensor, known: Tensor, cut: Cut | None) -> Tensor:
    """Put what is known of `value` into a part of `tensor`, in place. Returns which of its elements are known."""
    value, known = value.to(tensor), known.to(tensor.device)
    part = torch.where(known, value, tensor if cut is None else cut.copy(tensor))
    mask = torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)
    if cut is None:
        tensor.copy_(part)
        return known
    cut.put(tensor, part)
    cut.put(mask, known)
    return mask


def _outermost(network: Network, named: set[str]) -> list[str]:
    """The outermost modules of the rows that hold none of the `named` layers."""
    all_layers = layers(network)
    holds = {name for name in named if name in all_layers}
    holds |= {".".join(parts[:i]) for parts in (n.split(".") for n in holds) for i in range(len(parts))}
    found: list[str] = []
    for name in all_layers:
        if not name.startswith("model.") or name in holds:
            continue
        parts = name.split(".")
        outer = next(".".join(parts[:i]) for i in range(1, len(parts) + 1) if ".".join(parts[:i]) not in holds)
        if outer not in found:
            found.append(outer)
    return found


def _embedded(x: Tensor, runs: Layout, larger: Layout) -> Tensor:
    """Channels `x` among those of a larger network, of which the others are anything."""
    noise = torch.randn(x.shape[0], sum(larger), *x.shape[2:])
    return torch.where(fit(torch.ones_like(x), runs, larger) > 0, fit(x, runs, larger), noise)


def _first(space: Space, num_rows: int) -> Space:
    return space if len(space.rows) == num_rows else Space(space.config.first(num_rows))


def _named(names: Any) -> dict[int, str]:
    if isinstance(names, Mapping):
        return {int(i): str(name) for i, name in names.items()}
    return {i: str(name) for i, name in enumerate(names or ())}


def _names_of(supernet: Supernet) -> dict[int, str]:
    own = _named(getattr(supernet, "names", None)) or _named(supernet.space.config.raw.get("names"))
    return own or dict(enumerate(unnamed(supernet.space.config.nc or 0)))


def _join(row: int, name: str) -> str:
    return f"model.{row}.{name}".rstrip(".")
