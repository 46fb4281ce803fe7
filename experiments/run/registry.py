"""What there is by name: strategies, searchers, samplers, tasks, proxies and cost providers.

Nothing of it is imported before it is used, so that the scripts know the names without torch. A plug-in file
(``--plugin``) adds to them by `register`; `experiments.testing` has the contract that each kind keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from models.errors import InputError


@dataclass(frozen=True)
class Entry:
    """Something with a name.

    Attributes
    ----------
    target
        Where it is, ``module:name``, or it itself.
    options
        Of the command line, those that it takes and others of its kind may not.
    defaults
        Of options whose default depends on it; of a provider, arguments that the name stands for.
    """

    target: Any
    options: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """The thing itself."""
        if not isinstance(self.target, str):
            return self.target
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)


_GRADIENT = ("arch_lr", "target_flops", "target_params", "target_latency", "target_weight")
_EVOLUTION = ("population", "generations")
_TAUGHT = ("distill", "distill_rows", "distill_boxes", "teacher", "dropout", "drop_path")
_ALPHAS = (*_GRADIENT, "derive")
_LIMIT = {"max_flops": "plain"}
# Of the training images, for those that only rate archs by them.
_RATES = {"arch_share": 0.2}
KINDS: dict[str, dict[str, Entry]] = {
    # of `oneshot_nas.py --strategy`: subclasses of `experiments.oneshot.base.OneShot`
    "oneshot": {
        "darts": Entry("experiments.oneshot.darts:DARTS", (*_ALPHAS, "relax"), _LIMIT),
        "darts-2nd": Entry("experiments.oneshot.darts:SecondOrderDARTS", _ALPHAS, _LIMIT),
        "gumbel": Entry("experiments.oneshot.gumbel:GumbelDARTS", _ALPHAS, _LIMIT),
        "proxyless": Entry("experiments.oneshot.proxyless:Proxyless", (*_ALPHAS, "arch_update"), _LIMIT),
        "enas": Entry("experiments.oneshot.enas:ENAS", _GRADIENT, _LIMIT),
        "spos": Entry("experiments.oneshot.spos:SPOS", _EVOLUTION, _RATES | _LIMIT),
        "fairnas": Entry("experiments.oneshot.spos:FairNAS", _EVOLUTION, _RATES | _LIMIT),
        "cream": Entry("experiments.oneshot.cream:Cream", ("arch_lr", "board"), _RATES | _LIMIT),
        "bignas": Entry("experiments.oneshot.bignas:BigNAS", (*_EVOLUTION, *_TAUGHT, "subnets", "sampler"), _RATES),
        "ofa": Entry("experiments.oneshot.ofa:OFA", (*_EVOLUTION, *_TAUGHT, "phases"), _RATES),
    },
    # of `multi_trial_nas.py --strategy`
    "multi-trial": {
        "random": Entry("experiments.multi_trial.strategies:Random"),
        "grid": Entry("experiments.multi_trial.strategies:GridSearch"),
        "evolution": Entry(
            "experiments.multi_trial.strategies:RegularizedEvolution", ("population",), {"population": 50}
        ),
        "tpe": Entry("experiments.multi_trial.strategies:TPE"),
        "rl": Entry("experiments.multi_trial.strategies:PolicyBasedRL"),
        "nsga3": Entry("experiments.multi_trial.strategies:NSGA3", ("population",), {"population": 10}),
        "predictor": Entry("experiments.multi_trial.strategies:ModelBased", ("population",), {"population": 20}),
    },
    # of `search_subnets.py --searcher`: subclasses of `experiments.search.Searcher`
    "searcher": {
        "nsga3": Entry("experiments.search.optuna_searchers:NSGA3", ("population",)),
        "nsga2": Entry("experiments.search.optuna_searchers:NSGA2", ("population",)),
        "tpe": Entry("experiments.search.optuna_searchers:TPE"),
        "gp": Entry("experiments.search.optuna_searchers:GP"),
        "random": Entry("experiments.search.random:Random"),
        "grid": Entry("experiments.search.grid:Grid", ("stride",)),
        "evolution": Entry("experiments.search.evolution:Evolution", ("population",)),
        "attentive": Entry("experiments.search.attentive:Attentive", ("population",)),
        "coarse-to-fine": Entry("experiments.search.coarse_to_fine:CoarseToFine"),
        "predictor": Entry("experiments.search.model_based:ModelBased", ("population",)),
        "genetic": Entry("experiments.search.genetic:Genetic", ("population",)),
        "rl": Entry("experiments.search.rl:RL"),
    },
    # of `--sampler`, those that draw whole archs: subclasses of `experiments.oneshot.samplers.Sampler`
    "sampler": {
        "uniform": Entry("experiments.oneshot.samplers:Uniform"),
        "fair": Entry("experiments.oneshot.samplers:Fair"),
        "flops_bin": Entry("experiments.oneshot.samplers:FlopsBin"),
        "best_up": Entry("experiments.oneshot.samplers:BestUp"),
        "worst_up": Entry("experiments.oneshot.samplers:WorstUp"),
    },
    # of `--task`: (options, space, accelerator) -> `experiments.tasks.task.SearchTask`
    "task": {
        "classify": Entry(
            "experiments.tasks.classify:ClassifyTask",
            ("data_root",),
            {"data": "digits", "imgsz": 64, "batch": 64, "optimizer": "adamw"},
        ),
        "detect": Entry(
            "experiments.tasks.detect:DetectTask", (), {"data": "digits-detect", "imgsz": 320, "batch": 16}
        ),
        "landmarks": Entry(
            "experiments.tasks.landmarks:LandmarksTask",
            ("point_loss", "pose"),
            {"data": "digits-landmarks", "imgsz": 112, "batch": 64, "optimizer": "adamw"},
        ),
    },
    # of `search_subnets.py --objectives` and `--screen`: `experiments.proxies.base.Proxy`
    "proxy": {
        "naswot": Entry("experiments.proxies.naswot:naswot"),
        "grad-norm": Entry("experiments.proxies.grad_norm:grad_norm"),
        "synflow": Entry("experiments.proxies.synflow:synflow"),
        "zen": Entry("experiments.proxies.zen:zen"),
        "mae-det": Entry("experiments.proxies.mae_det:mae_det"),
        **{name: Entry(f"experiments.proxies.counted:{name}") for name in ("blocks", "params", "flops")},
    },
    # of `provider` in the YAML of --costs: (space, imgsz, **hw_config) -> `experiments.costs.CostProvider`
    "provider": {
        **{
            name: Entry("experiments.costs.make:counted", defaults={"name": name})
            for name in ("params", "flops", "activations")
        },
        **{
            name: Entry("experiments.costs.latency:Latency", defaults={"backend": name})
            for name in ("torch", "compile", "onnxruntime", "openvino")
        },
        "command": Entry("experiments.costs.command:CommandLatency"),
        "table": Entry("experiments.costs.table:TableLatency"),
        "roofline": Entry("experiments.costs.make:roofline"),
    },
}


def register(
    kind: str, name: str, target: Any, options: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None
) -> None:
    """Give `target` a name among those of `kind`, for scripts to take; see `Entry`.

    Raises
    ------
    InputError
        There is no such kind, or another one has the name.
    """
    if kind not in KINDS:
        raise InputError(f"register('{kind}', '{name}', …): right would be one of {', '.join(KINDS)}")
    if kind == "task" and not {"data", "imgsz", "batch"} <= {*(defaults or {})}:
        raise InputError(f"register('task', '{name}', …): right would be defaults of data, imgsz and batch")
    if KINDS[kind].setdefault(name, entry := Entry(target, tuple(options), dict(defaults or {}))) != entry:
        raise InputError(f"register('{kind}', '{name}', …): another {kind} is called so; right would be another name")


def names(kind: str, option: str | None = None) -> list[str]:
    """All names of a kind, or those that take an option of the command line."""
    return [name for name, entry in KINDS[kind].items() if option is None or option in entry.options]


def load(kind: str, name: str) -> Any:
    """What is called so; `InputError` with the names there are otherwise."""
    if name not in KINDS[kind]:
        raise InputError(f"no {kind} is called '{name}'; there are {', '.join(names(kind))}")
    return KINDS[kind][name].load()
