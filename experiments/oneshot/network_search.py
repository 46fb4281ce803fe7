"""One-shot search of a model space of NNI, which no YAML describes: what ``--space nni:…`` does.

The result is the class's name, an arch and weights (``network.pt``); what it costs is counted on the network itself.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import pytorch_lightning as pl

from models.errors import InputError
from models.plugins import load_plugins_of_run
from spaces import make_supernet
from spaces.hub import load_file

from ..costs.frozen import FrozenBudget, FrozenCosts
from ..costs.limits import Limits
from ..run import registry
from ..run.callbacks import History
from ..run.console import say
from ..run.folder import RunFolder, is_first_process
from ..run.lightning import accelerator_of, quiet_lightning, trainer_options
from ..run.processes import leave
from ..run.tables import table
from ..tasks.network import NetworkTask
from ..training.engine import check_checkpoint
from .options import Options
from .report import plot_probabilities
from .retrain import Retraining
from .search import run_strategy

# What belongs to a YAML, to its detector or to its cost model.
_OF_YAMLS = (
    *("cfg", "scale", "upstream_form", "detector", "weights", "teacher", "distill_rows", "ui", "trials"),
    *("max_latency", "target_flops", "target_params", "target_latency", "costs", "latency_table", "cost_imgsz"),
)


def fitting() -> list[str]:
    """Names of the strategies that need no YAML."""
    return [name for name in registry.names("oneshot") if not registry.load("oneshot", name).of_yamls]


def search(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Search, and write the result into the run's folder.

    Returns
    -------
    The content of ``results.json``.
    """
    quiet_lightning()
    if resume and (checkpoint := run.path / "last.ckpt").exists():
        check_checkpoint(checkpoint)
    accelerator = accelerator_of(options.device)
    load_plugins_of_run(options.plugin)
    _check(options)
    task = NetworkTask(options, accelerator)
    trainer_options(options, accelerator)
    try:
        make_supernet(task.space())  # what there is no supernet of is said before anything is written
    except InputError as e:
        raise InputError(f"--space {options.space}: {e}; multi_trial_nas.py takes it") from None
    costs = FrozenCosts(task.searched)
    limits = Limits(_limit(options.max_flops), _limit(options.max_params))
    budget = FrozenBudget(costs, limits) if limits.any else None
    if is_first_process():
        run.write_config(asdict(options), anew=not resume)
        say(f"{options.space}: {len(task.searched.decisions)} decisions; costs are counted on the networks of archs")

    pl.seed_everything(options.seed, verbose=False)
    history = History(run.path / "metrics.csv")
    given: Any = options, run, task, costs, budget, accelerator, history, None, resume, _cut_out
    strategy, found = run_strategy(*given)
    leave()
    if not is_first_process():
        return {}
    options = replace(options, devices=1, num_nodes=1, sync_bn=False)
    arch = task.searched.complete(found)
    run.write_json("arch.json", task.searched.lists(arch))
    shown = cast(Any, SimpleNamespace(decisions=task.searched.decisions))
    plot_probabilities(history.probabilities, run.path / "alphas.png", shown, arch)

    pl.seed_everything(options.seed, verbose=False)  # a resumed search has drawn other numbers, or none
    derived = task.calibrated(task.cut_out(strategy.supernet, arch))
    results: dict[str, Any] = {
        "space": options.space,
        "strategy": options.strategy,
        "metric": task.metric,
        "steps": options.epochs * len(task.loader("weights")),
        "arch": task.searched.lists(arch),
        "derived": {**costs.of(arch), "inherited": task.measure(derived, calibrated=False)},
    }
    epochs = options.finetune if options.finetune is not None else options.epochs if options.baseline else 0
    starts = ("scratch", "inherited") if options.retrain == "both" else (options.retrain or "scratch",)
    train = Retraining(cast(Any, task), run, options, epochs, accelerator, resume)
    if not epochs or not train.has_done("derived", starts[-1]):
        task.hand_over(derived, run.path, arch)
    if epochs:
        others = _random_archs(task, budget, options) if options.baseline else []
        results["random"] = [{"arch": task.searched.lists(a), **costs.of(a)} for a in others]
        results["retrained"] = {"epochs": epochs, "steps": epochs * len(task.loader("all")), "seeds": options.seeds}
        compared = [("derived", arch, results["derived"])]
        compared += [(f"random{i}", a, results["random"][i - 1]) for i, a in enumerate(others, start=1)]
        for kind in starts:
            for name, other, into in compared:
                weights = task.cut_out(strategy.supernet, other).state_dict() if kind == "inherited" else None
                then = {"then": lambda n: task.hand_over(n, run.path, arch)} if name == "derived" else {}
                into[f"from_{kind}"] = train(name, kind, other, weights, **then)
    run.write_json("results.json", results)
    _report(options, run, results)
    return results


def _cut_out(supernet: Any, task: NetworkTask, arch: Mapping[str, Any]) -> Any:
    return task.cut_out(supernet, arch)


def _check(options: Options) -> None:
    if registry.load("oneshot", options.strategy).of_yamls:
        raise InputError(
            f"--strategy {options.strategy}: slices of a YAML's rows, which {options.space} has not; right would be "
            f"one of {', '.join(fitting())}"
        )
    for name in _OF_YAMLS:
        blank = Options.__dataclass_fields__[name]
        default = blank.default_factory() if callable(blank.default_factory) else blank.default
        if getattr(options, name) != default:
            raise InputError(f"--{name.replace('_', '-')}: is of a YAML's space, which {options.space} is not")
    load_file(options.space or "")


def _limit(told: float | str | None) -> float | None:
    if told == "plain":
        raise InputError("--max-…: plain is the network that a YAML's space was made of; right would be a number")
    return None if isinstance(told, str) else told


def _random_archs(task: NetworkTask, budget: FrozenBudget | None, options: Options) -> list[dict[str, Any]]:
    """Random archs within the limits, of whatever cost; fewer where no more are found."""
    rng, found = random.Random(options.seed), list[dict[str, Any]]()
    for _ in range(50 * options.random_archs):
        arch = task.searched.sample(rng)
        if arch not in found and (budget is None or budget.feasible([arch])[0]):
            found.append(arch)
        if len(found) >= options.random_archs:
            break
    return found[: options.random_archs]


def _report(options: Options, run: RunFolder, results: dict[str, Any]) -> None:
    networks = [("derived", results["derived"])]
    networks += [(f"random {i}", other) for i, other in enumerate(results.get("random", []), start=1)]
    trained = [("derived", "in the supernet", results["derived"], [results["derived"]["inherited"]])]
    for kind, how in (("inherited", "from the supernet"), ("scratch", "from scratch")):
        trained += [(name, how, n, n[f"from_{kind}"]) for name, n in networks if f"from_{kind}" in n]
    rows = [
        (name, how, f"{statistics.fmean(metrics):.4f}", f"{n['params']:,}", f"{n['flops'] / 1e6:.1f}")
        for name, how, n, metrics in trained
    ]
    columns = ("network", "trained", results["metric"], "parameters", f"MFLOPs at {options.imgsz}")
    title = f"{options.strategy} on {options.data}, {results['steps']} steps"
    say(
        table(columns, rows, title, left=columns[:2]),
        f"network: {options.space} at arch.json, weights in network.pt (docs/nni-spaces.md)",
        f"results in {run.path}",
    )
