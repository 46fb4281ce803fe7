"""Choices of inputs, cells, and stages of cells in a supernet: what NNI's spaces have beyond those of this project.

NNI's own cells take no weights along when they are frozen. Those here do: a path computes what the frozen network does.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.errors import InputError

from .active import Active, Mixture
from .nni_compat import (
    NDS,
    Cell,
    ChosenInputs,
    InputChoice,
    MutableExpression,
    NDSStage,
    PathSamplingCell,
    model_context,
    recursive_freeze,
    subsets,
)
from .supernet_parts import MixedRepeat, Searchable, weighted


class MixedInput(InputChoice, Searchable):
    """`InputChoice` in a supernet; its values are subsets of the inputs."""

    def __init__(self, choice: InputChoice, active: Active) -> None:
        super().__init__(choice.n_candidates, choice.n_chosen, choice.reduction, label=choice.label)
        self.active = active
        self._subsets = subsets(choice.choice)

    def forward(self, candidate_inputs: list[Tensor]) -> Tensor:
        def reduced(i: int) -> Tensor:
            chosen = [candidate_inputs[k] for k in self._subsets[i]]
            return cast(Tensor, ChosenInputs._tensor_reduction(self.reduction, chosen))

        setting = self.active[self.label]
        return reduced(setting) if isinstance(setting, int) else weighted(setting, reduced)

    @classmethod
    def mutate(cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> Any:
        if type(module) is not InputChoice:
            return None
        if module.n_chosen is None or module.reduction == "none":
            raise InputError(
                f"'{name}' is a choice of any number of inputs, or a list of them, which supernets know not"
            )
        return cls(module, mutate_kwargs["active"])


class MixedCell(Searchable, PathSamplingCell):
    """`Cell` in a supernet, one whose operations depend on their inputs, or of whose nodes only loose ends are put out.

    An operator's share in a mixture is that of its input times its own, both being decisions. A node that others take
    as an input is zero among the outputs by loose ends, in a mixture by the share of paths that take it.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.active: Active = args[-2]["active"]
        self._factory, self.merge_op = args[0], "all"

    @classmethod
    def mutate(cls, module: Any, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> Any:
        cell = super().mutate(module, name, memo, mutate_kwargs)
        if cell is not None:
            cell.merge_op = module.merge_op
            if cell.merge_op == "loose_end" and not mutate_kwargs["is_nds"]:
                raise InputError(
                    f"'{name}' is a Cell with merge_op 'loose_end', on which widths behind it depend; right would be "
                    "merge_op 'all', or one of NNI's own spaces (NDS, NASNet, ENAS, …)"
                )
        return cell

    def forward(self, *inputs: Any) -> Any:
        given = list(inputs[0] if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)) else inputs)
        states: list[Tensor] = list(self.preprocessor(given))
        for node, edges in self._nodes():
            terms = []
            for source, shares in self._shares(node).items():
                operations = cast(Any, edges)[source]
                for k, share in shares.items():
                    out = operations[self.op_names[k]](states[source])
                    terms.append(out if share is None else share * out)
            states.append(cast(Tensor, sum(terms)))
        return self.postprocessor(torch.cat(self._outputs(states), self.concat_dim), given)

    def _nodes(self) -> Iterator[tuple[int, nn.Module]]:
        return enumerate(self.ops, start=self.num_predecessors)

    def _settings(self, node: int) -> list[tuple[int | Mixture, int | Mixture]]:
        """Of each of a node's operators: what its input is set to, and what itself."""
        slots = range(self.num_ops_per_node)
        named = [(f"{self.label}/input_{node}_{k}", f"{self.label}/op_{node}_{k}") for k in slots]
        return [(self.active[source], self.active[operation]) for source, operation in named]

    def _shares(self, node: int) -> dict[int, dict[int, Any]]:
        """Input to (operation to its share), of those that are computed; None is an operation that is there once."""
        found: dict[int, dict[int, Any]] = {}
        for source, operation in self._settings(node):
            for (i, a), (k, b) in itertools.product(_weights(source), _weights(operation)):
                share = b if a is None else a if b is None else a * b
                before = found.setdefault(i, {})
                if k in before:
                    share = (1.0 if before[k] is None else before[k]) + (1.0 if share is None else share)
                before[k] = share
        return found

    def _outputs(self, states: list[Tensor]) -> list[Tensor]:
        outputs = states[self.num_predecessors :]
        if self.merge_op == "all":
            return outputs
        unused: dict[int, Any] = dict.fromkeys(range(len(states)), 1.0)
        for node, _ in self._nodes():
            for source, _ in self._settings(node):
                for i, share in _weights(source):
                    unused[i] = unused[i] * (0.0 if share is None else 1.0 - share)
        return [unused[i] * x for i, x in enumerate(outputs, start=self.num_predecessors)]

    def loose_ends(self, sample: Mapping[str, Any]) -> list[int]:
        """The nodes that are put out at an arch, counted from 0."""
        nodes = range(self.num_nodes)
        if self.merge_op == "all":
            return list(nodes)
        slots = itertools.product(nodes, range(self.num_ops_per_node))
        used = {sample[f"{self.label}/input_{n + self.num_predecessors}_{k}"][0] for n, k in slots}
        return [n for n in nodes if n + self.num_predecessors not in used]

    def chosen(self, sample: Mapping[str, Any]) -> Iterator[tuple[int, int, nn.Module]]:
        """Node, operator and the plain module that it is at an arch."""
        for (node, edges), k in itertools.product(self._nodes(), range(self.num_ops_per_node)):
            (source,) = sample[f"{self.label}/input_{node}_{k}"]
            operation = cast(Any, edges)[source][sample[f"{self.label}/op_{node}_{k}"]]
            yield node - self.num_predecessors, k, frozen(operation, sample)

    def freeze(self, sample: Mapping[str, Any]) -> Any:
        around = [frozen(m, sample) if isinstance(m, nn.Module) else m for m in (self.preprocessor, self.postprocessor)]
        sizes = self.num_nodes, self.num_ops_per_node, self.num_predecessors
        with model_context(dict(sample)):
            cell = Cell(self._factory, *sizes, cast(Any, self.merge_op), *around, self.concat_dim, label=self.label)
        for node, k, operation in self.chosen(sample):
            cast(Any, cell.ops[node])[k] = operation
        return cell


class MixedStage(MixedRepeat):
    """`NDSStage` in a supernet: a stage of cells, whose state is what the last two put out.

    What a stage of one cell hands on has another shape than that of more, so that there is no slice of both.
    """

    def mix(self, states: Mapping[int, Any], depth: Mapping[int, Any]) -> Any:
        return [sum(depth[d] * state[i] for d, state in states.items()) for i in range(2)]

    @classmethod
    def mutate(cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> Any:
        if not isinstance(module, NDSStage) or not isinstance(module.depth_choice, MutableExpression):
            return None
        if module.min_depth < 2:
            raise InputError(
                f"'{name}' may have one cell or more, of which there is no common supernet; right would be a fixed "
                "num_cells, or num_cells of 6 and more, such as num_cells=(8, 12)"
            )
        return cls(module, mutate_kwargs["active"])


def frozen(module: nn.Module, sample: Mapping[str, Any]) -> nn.Module:
    """A copy of `module`, plain, as it is at an arch."""
    plain, is_new = recursive_freeze(module, dict(sample))
    return plain if is_new else copy.deepcopy(module)


def _weights(setting: int | Mixture) -> list[tuple[int, Any]]:
    """Index and weight of what is computed; None of a path, which is there once."""
    return [(setting, None)] if isinstance(setting, int) else [(i, setting.weights[i]) for i in setting.paths]


@torch.no_grad()
def carry_over(supernet: NDS, network: Any, sample: Mapping[str, Any]) -> None:
    """Give the network that `NDS` makes anew for an arch the weights that its supernet has at it.

    Behind a cell, inputs of what follows are those of its loose ends.
    """

    def take(target: nn.Module, source: nn.Module, ends: list[int] | None = None, nodes: int = 1) -> None:
        state = frozen(source, sample).state_dict()
        for key, own in target.state_dict().items():
            given = state[key]
            if ends is not None and given.ndim > 1 and given.shape[1] != own.shape[1]:
                given = torch.cat([given.chunk(nodes, 1)[n] for n in ends], 1)
            own.copy_(given)

    stems = ("stem",) if hasattr(supernet, "stem") else ("stem0", "stem1")
    for name in stems:
        take(getattr(network, name), getattr(supernet, name))
    ends: list[tuple[list[int] | None, int]] = [(None, 1), (None, 1)]  # of the last two outputs
    for stage, plain in zip(cast(Any, supernet.stages), network.stages, strict=True):
        for mixed, cell in zip(stage.blocks if hasattr(stage, "blocks") else stage, plain, strict=False):
            for before, name in zip(ends, ("pre0", "pre1"), strict=True):
                take(getattr(cell.preprocessor, name), getattr(mixed.preprocessor, name), *before)
            for node, k, operation in mixed.chosen(sample):
                cell.ops[node][k].load_state_dict(operation.state_dict())
            ends = [ends[1], (mixed.loose_ends(sample), mixed.num_nodes)]
    take(network.classifier, supernet.classifier, *ends[1])
