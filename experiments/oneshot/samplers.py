"""Which subnets of a supernet are trained: distributions over the archs of a space.

A draw is a pure function of (seed, number of the draw), so that all processes of a distributed run train the same
subnets, and a resumed run those of the uninterrupted one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from models.errors import InputError
from spaces import Sizes, Space
from spaces.kinds import DEPTH, depth_of, kind_of
from spaces.space import Arch

from ..run import registry
from .sampling_rules import RULES, Group, Rule, StageWise


class Sampler:
    """Archs by number. Subclasses draw one from a generator of its own, or several that `pick` chooses from."""

    def __init__(self, sizes: Sizes, seed: int = 0) -> None:
        self.sizes, self.seed = sizes, seed
        self.space: Space = sizes.cost.space

    def __call__(self, number: int) -> Arch:
        """The arch of a draw."""
        return self.draw(self.rng(number), number)

    def rng(self, number: int) -> random.Random:
        return random.Random(f"{self.seed} {number}")

    def draw(self, rng: random.Random, number: int) -> Arch:
        raise NotImplementedError

    def candidates(self, number: int) -> list[Arch]:
        """The archs of a draw, of which one is trained."""
        return [self(number)]

    def pick(self, losses: Sequence[float]) -> int:
        """Which of the candidates is trained, given the current loss of each."""
        return 0


class Uniform(Sampler):
    """Every decision uniformly, and alone."""

    def draw(self, rng: random.Random, number: int) -> Arch:
        return self.space.sample(rng)


class Fair(Sampler):
    """Every value of a decision equally often: once in as many draws as it has values (FairNAS, arXiv:1907.01845)."""

    def draw(self, rng: random.Random, number: int) -> Arch:
        arch = {}
        for label, decision in self.space.decisions.items():
            turn, place = divmod(number, len(decision.values))
            order = random.Random(f"{self.seed} {label} {turn}").sample(decision.values, len(decision.values))
            arch[label] = order[place]
        return arch


class FlopsBin(Sampler):
    """A range of FLOPs uniformly, then an arch within it (AttentiveNAS, Wang et al. 2021, arXiv:2011.09011, section 3).

    As there (equation 6), an arch of a range is drawn decision by decision from the frequencies among its archs, and
    drawn anew where it is of another range.

    Parameters
    ----------
    bins
        Ranges of equal width between the cheapest and the dearest arch; those without archs do not count.
    """

    _POOL, _TRIES = 4096, 16

    def __init__(self, sizes: Sizes, seed: int = 0, bins: int = 16) -> None:
        super().__init__(sizes, seed)
        if bins < 1:
            raise InputError(f"flops_bin:{bins}: the number of bins is 1 or more")
        cost, rng = sizes.cost, np.random.default_rng(seed)
        low, high = (cost.of(arch)["flops"] for arch in (sizes.smallest, sizes.largest))
        self._edges = np.linspace(low, high, bins + 1)[1:-1]
        counts = np.array([len(cost.values[label]) for label in cost.labels])
        uniform = rng.integers(0, counts, (self._POOL, len(counts)))
        # Uniform archs are all of middling size; these lean to one side, each by another degree.
        shares = (rng.random((self._POOL, 1)) + rng.normal(0, 0.15, (self._POOL, len(counts)))).clip(0, 1 - 1e-9)
        ranks = [[cost.values[k].index(v) for v in sizes.ranked[k]] for k in cost.labels]
        leaning = np.stack([np.array(r)[(shares[:, i] * len(r)).astype(int)] for i, r in enumerate(ranks)], 1)
        pool = np.concatenate([uniform, leaning, cost.indices([sizes.smallest, sizes.largest])])
        which = self._bin_of(pool)
        self._members = [pool[which == b] for b in range(bins) if (which == b).any()]

    def _bin_of(self, indices: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._edges, self.sizes.cost.batch(indices)["flops"], side="right")

    def draw(self, rng: random.Random, number: int) -> Arch:
        return self._of_bin(rng, 1)[0]

    def _of_bin(self, rng: random.Random, count: int) -> list[Arch]:
        """Archs of one range."""
        members = rng.choice(self._members)
        wanted = self._bin_of(members[:1])[0]
        draws = np.random.default_rng(rng.getrandbits(64))
        sources = draws.integers(0, len(members), (self._TRIES * count, members.shape[1]))
        drawn = np.take_along_axis(members, sources, 0)
        fit = drawn[self._bin_of(drawn) == wanted][:count]
        known = members[draws.integers(0, len(members), count - len(fit))]
        cost = self.sizes.cost
        return [
            {label: cost.values[label][i] for label, i in zip(cost.labels, row.tolist(), strict=True)}
            for row in np.concatenate([fit, known])
        ]


class BestUp(FlopsBin):
    """Of `k` archs of one range of FLOPs the one whose loss is lowest at present (AttentiveNAS, section 3.3)."""

    def __init__(self, sizes: Sizes, seed: int = 0, k: int = 3, bins: int = 16) -> None:
        super().__init__(sizes, seed, bins)
        if type(k) is not int or k < 1:
            raise InputError(f"best_up and worst_up choose from 1 arch or more, not {k:g}")
        self.k = k

    def candidates(self, number: int) -> list[Arch]:
        return self._of_bin(self.rng(number), self.k)

    def pick(self, losses: Sequence[float]) -> int:
        return int(np.nan_to_num(np.array(losses), nan=np.inf).argmin())


class WorstUp(BestUp):
    """The one whose loss is highest: the worst Pareto front is pushed up."""

    def pick(self, losses: Sequence[float]) -> int:
        return int(np.nan_to_num(np.array(losses), nan=-np.inf).argmax())


class ByKind(Sampler):
    """Every kind of decisions by a rule of its own: depths first, which others may follow.

    Parameters
    ----------
    rules
        Kind (``number``, ``c2``, ``k``, ``e``, …) to rule.
    default
        Rule of the kinds that `rules` leaves out.
    """

    def __init__(self, sizes: Sizes, seed: int, rules: Mapping[str, Rule], default: Rule) -> None:
        super().__init__(sizes, seed)
        kinds = kind_of(self.space)
        if unknown := sorted(set(rules) - set(kinds.values())):
            known = ", ".join(dict.fromkeys(kinds.values()))
            raise InputError(f"--sampler: this space has no decisions on '{unknown[0]}'; it has {known}")
        self._depths = depth_of(self.space)
        self._parts: list[tuple[Rule, list[Group]]] = []
        for kind in sorted(set(kinds.values()), key=lambda k: (k != DEPTH, k)):
            groups = self._groups([label for label in kinds if kinds[label] == kind])
            rule = rules.get(kind, default)
            in_neck = [g for g in groups if rule.of_backbone and (g.row or 0) >= self.space.config.num_backbone]
            ruled = [g for g in groups if g not in in_neck]
            rule.check(kind, ruled)
            self._parts += [(rule, ruled), (StageWise(), in_neck)]

    def _groups(self, labels: Sequence[str]) -> list[Group]:
        """By row and values."""
        found: dict[tuple[int | None, tuple[Any, ...]], list[str]] = {}
        for label in labels:
            found.setdefault((self.space.row_of.get(label), self.sizes.ranked[label]), []).append(label)
        return [Group(row, tuple(members), values) for (row, values), members in found.items()]

    def draw(self, rng: random.Random, number: int) -> Arch:
        arch: Arch = {}
        depth: dict[int | None, tuple[int, int]] = {}
        for rule, groups in self._parts:
            arch |= rule(rng, groups, depth)
            depth = {row: self._index(label, arch) for row, label in self._depths.items() if label in arch}
        return {label: arch[label] for label in self.space.decisions}

    def _index(self, label: str, arch: Arch) -> tuple[int, int]:
        values = self.sizes.ranked[label]
        return values.index(arch[label]), len(values)


# Names of rules for several kinds: (kind to rule, rule of the others).
PRESETS: dict[str, tuple[dict[str, str], str]] = {
    "ordered_stage_wise": ({"c2": "ordered_stage_wise"}, "stage_wise"),
    "ordered_stage_wise_depth": ({DEPTH: "ordered_stage_wise"}, "stage_wise_depth"),
    # Kernels have no part in the coupling (CompOFA, section 3.1).
    "compofa": ({DEPTH: "stage_wise", "k": "block_wise", "act": "block_wise"}, "coupled"),
}


def make_sampler(text: str, sizes: Sizes, seed: int = 0) -> Sampler:
    """The sampler that is meant by `text`.

    A name, with numbers behind it where it takes some (``best_up:3``, ``ordered_stage_wise:1:2``); for single kinds of
    decisions another rule: ``stage_wise,c2=ordered_stage_wise:1:2,k=net_wise``.

    Raises
    ------
    InputError
        Says what would be right.
    """
    first, *others = (part.strip() for part in text.split(","))
    if "=" in first:
        first, others = "stage_wise", [first, *others]
    name, *numbers = first.split(":")
    if name in registry.names("sampler"):
        if others:
            raise InputError(f"--sampler {text}: {name} draws whole archs, and takes no rules for kinds")
        return _called({name: registry.load("sampler", name)}, name, numbers, sizes, seed)
    if name in PRESETS and numbers and "ordered_stage_wise" not in PRESETS[name][0].values():
        raise InputError(f"--sampler {text}: {name} takes no numbers")
    given, default = PRESETS.get(name, ({}, first))
    rules = {kind: ":".join([rule, *numbers]) if rule == "ordered_stage_wise" else rule for kind, rule in given.items()}
    present = set(kind_of(sizes.cost.space).values())
    rules = {kind: rule for kind, rule in rules.items() if kind in present}
    for part in others:
        kind, _, rule = part.partition("=")
        rules[kind] = rule
    read = {kind: _rule(rule) for kind, rule in rules.items()}
    return ByKind(sizes, seed, read, _rule(default))


def _rule(text: str) -> Rule:
    name, *numbers = text.split(":")
    return _called(RULES, name, numbers)


def _called(known: Mapping[str, Callable[..., Any]], name: str, numbers: Sequence[str], *given: Any) -> Any:
    if name not in known:
        names = dict.fromkeys([*registry.names("sampler"), *RULES, *PRESETS])
        raise InputError(f"--sampler {name or '(nothing)'}: right would be one of {', '.join(names)}")
    try:
        return known[name](*given, *(float(n) if "." in n or n == "inf" else int(n) for n in numbers))
    except InputError:
        raise
    except (TypeError, ValueError):
        raise InputError(f"--sampler {':'.join([name, *numbers])}: these numbers are not what {name} takes") from None
