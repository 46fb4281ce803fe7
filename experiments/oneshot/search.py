"""One-shot search from a space's YAML to a detector: what `oneshot_nas.py` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from models.complexity import count_flops, count_params
from models.network import Network
from spaces import CostModel, load_into

from ..costs.base import CostProvider
from ..costs.budget import Budget, check_target, read_budget
from ..costs.config import composed, read_latency
from ..nni_experiment.experiment import RetiariiExeConfig, RetiariiExperiment
from ..run import registry
from ..run.callbacks import EpochLine, History, LastCheckpoint, OrderlyInterrupt
from ..run.console import say
from ..run.folder import RunFolder, is_first_process
from ..run.lightning import interruptible, restoring, trainer_options
from ..run.loggers import loggers_of
from ..run.pinned import has_bars
from ..run.processes import leave
from ..supernets.rating import Rating
from ..supernets.subnets import SUPERNET, cut_out, save_supernet
from ..supernets.warm import begun, read_weights
from ..tasks.task import SearchTask, open_task
from ..training.engine import Engine, check_checkpoint
from .base import Context, OneShot
from .collapse import collapse
from .measured import measuring, with_table
from .options import Options
from .report import plot_probabilities, report
from .retrain import Retraining, random_archs


def search(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Search, and write the result into the run's folder.

    Returns
    -------
    The content of ``results.json``: arch, and what the derived network and others of its cost reach.
    """
    if resume and (checkpoint := run.path / "last.ckpt").exists():
        check_checkpoint(checkpoint)
    strategy_class = registry.load("oneshot", options.strategy)
    space, task, accelerator = open_task(options)
    trainer_options(options, accelerator)  # what cannot be had is said before anything is trained
    strategy_class.check(options, space)
    check_target(options)
    told = with_table(options, run)
    if (measures := told is not options) and is_first_process():
        run.write_config(asdict(options), anew=not resume)  # so that measuring is gone on with
    with measuring(told) if measures else nullcontext():
        costs, latency = cost_model(task, told)
        budget = read_budget(options, costs, latency)
    start = None
    if options.weights is not None:
        start, begins = begun(task, read_weights(options.weights, task), options.seed)
        if is_first_process():
            say(f"weights: {begins}")
    if is_first_process() and not measures:
        run.write_config(asdict(options), anew=not resume)

    pl.seed_everything(options.seed, verbose=False)
    history = History(run.path / "metrics.csv")
    strategy, found = run_strategy(options, run, task, costs, budget, accelerator, history, start, resume)
    leave()
    if not is_first_process():  # what follows is done by one
        return {}
    if resume and len(history.rows) == history.before:
        print(f"the supernet was trained: the {len(history.rows)} epochs of {run.path} are done", flush=True)
    options = replace(options, devices=1, num_nodes=1, sync_bn=False)
    supernet = strategy.supernet
    arch = supernet.space.complete(found)
    run.write_json("arch.json", arch)
    save_supernet(supernet, run.path / SUPERNET)
    plot_probabilities(history.probabilities, run.path / "alphas.png", space, arch)
    for sign in collapse(space, costs, arch):
        print(f"warning: the search may have collapsed: {sign}", flush=True)

    pl.seed_everything(options.seed, verbose=False)  # a resumed search has drawn other numbers, or none
    derived = task.calibrated(cut_out(supernet, task, arch))
    is_slice, upstream, cost = strategy_class.leaves_slices, space.upstream(), costs.of(arch)
    results: dict[str, Any] = {
        "strategy": options.strategy,
        "task": options.task,
        "metric": task.metric,
        "steps": options.epochs * len(task.loader("weights")),
        "arch": arch,
        "derived": {**_cost(derived, options.imgsz), "inherited": task.measure(derived, calibrated=False)},
        "plain": _cost(task.network(space.freeze(upstream)), options.imgsz),
        task.result: {"params": cost["params"], f"flops_{options.cost_imgsz}": cost["flops"]},
    }
    if (decided := getattr(strategy.oneshot_module, "decided", None)) is not None:
        results["undecided"] = [*decided.undecided]

    def hand_over(network: Network) -> None:
        task.hand_over(network, run.path, arch, is_slice=is_slice)

    epochs = options.finetune if options.finetune is not None else options.epochs if options.baseline else 0
    starts = _starts(options, is_slice) if epochs else ()
    train = Retraining(task, run, options, epochs, accelerator, resume)
    if not starts or not train.has_done("derived", starts[-1]):
        hand_over(derived)
    if starts:
        compared = [("derived", arch, results["derived"])]
        if options.baseline:
            drawn = random_archs(space, costs, arch, options.random_archs, options.seed, budget)
            if len(drawn) < options.random_archs:
                print(f"warning: only {len(drawn)} random archs have its cost", flush=True)
            results["random"] = [{"arch": a, **_cost(task.network(space.freeze(a)), options.imgsz)} for a in drawn]
            compared.append(("plain", upstream, results["plain"]))
            compared += [(f"random{i}", r["arch"], r) for i, r in enumerate(results["random"], start=1)]
        results["retrained"] = {"epochs": epochs, "steps": epochs * len(task.loader("all")), "seeds": options.seeds}
        for kind in starts:
            whole = supernet if kind == "inherited" else start
            for name, other, found in compared:
                weights = None if whole is None else cut_out(whole, task, other).state_dict()
                then = {"then": hand_over} if name == "derived" else {}
                found[f"from_{kind}"] = train(name, kind, space.freeze(other), weights, **then)
    run.write_json("results.json", results)
    report(options, run, task.result, results)
    return results


def _starts(options: Options, is_slice: bool) -> tuple[str, ...]:
    """What all networks that are trained begin with; the result is what begins with the last."""
    if options.retrain == "both":
        return ("scratch", "inherited")
    return (options.retrain or ("inherited" if is_slice or options.weights else "scratch"),)


def cost_model(task: SearchTask, options: Options) -> tuple[CostModel, CostProvider | None]:
    """Costs of the results of a search, and what tells their latency where that is not composed of blocks."""
    told: Any = options.costs
    model = task.costs(options.cost_imgsz)
    if options.latency_table is not None:
        table = {"path": options.latency_table, "device": options.device, "make": True}
        told = {"costs": {"latency": {"provider": "table", "hw_config": table}}}
    if told is None:
        return model, None
    latency = read_latency(told)(model)
    whole = composed(latency)
    return (model, latency) if whole is None else (whole, None)


def _cost(network: Network, imgsz: int) -> dict[str, Any]:
    return {"params": count_params(network), "flops": count_flops(network, imgsz, network.config.ch)}


def run_strategy(
    options: Options,
    run: RunFolder,
    task: SearchTask,
    costs: CostModel,
    budget: Budget | None,
    accelerator: str,
    history: History,
    start: Any,
    resume: bool,
    cut: Callable[[Any, Any, Mapping[str, Any]], Any] = cut_out,
) -> tuple[OneShot, dict[str, Any]]:
    """Run the experiment; the strategy, whose supernet is on the CPU, and the arch that it exports.

    Parameters
    ----------
    costs, budget
        Or what has their methods.
    cut
        (supernet, task, arch) -> the arch's network, with weights of the supernet.
    """
    checkpoint = run.path / "last.ckpt"
    fit_kwargs: dict[str, Any] = {}
    if resume and checkpoint.exists():
        fit_kwargs = {"ckpt_path": str(checkpoint)}
    several = options.devices * options.num_nodes > 1
    evaluator = task.evaluator(
        max_epochs=options.epochs,
        logger=loggers_of(options.logger, run.path, asdict(options)),
        callbacks=[
            history,
            LastCheckpoint(checkpoint, task.names),
            EpochLine("search", lowest=(history, "arch_loss")),
            OrderlyInterrupt(),
            *([RichProgressBar()] if has_bars() else []),
        ],
        enable_progress_bar=has_bars(),
        fit_kwargs=fit_kwargs,
        strategy="ddp" if several else "auto",
        **trainer_options(options, accelerator),
    )
    space = task.space()
    rating = Rating(lambda: strategy.supernet, task, options.population * options.generations, cut)
    context = Context(task, costs, budget, rating, run.path)
    strategy = registry.load("oneshot", options.strategy).from_options(options, context)
    told: Any = {"say": say} if is_first_process() else {}
    sums_loss = task.module().sums_loss
    strategy.weights_engine = Engine(options, options.batch, sums_loss=sums_loss, seed=options.seed, **told)
    if start is not None:
        strategy.initialise = lambda supernet: load_into(supernet, start.state_dict())
    experiment = RetiariiExperiment(space, evaluator, [], strategy)
    config = RetiariiExeConfig("local")
    config.experiment_name = run.path.name
    config.experiment_working_directory = str(run.path / "nni")
    gone_on_with = checkpoint if fit_kwargs else None
    with interruptible(evaluator.trainer), restoring(evaluator.trainer, gone_on_with), rating:
        experiment.run(config)
    strategy.supernet.cpu()
    return strategy, experiment.export_top_models(formatter="dict")[0]
