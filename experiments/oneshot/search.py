"""One-shot search from a space's YAML to a detector: what `oneshot_nas.py` calls."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from models.complexity import count_flops, count_params
from models.network import Network
from spaces import CostModel, slice_weights

from ..costs.base import CostProvider
from ..costs.budget import Budget, read_budget
from ..costs.config import composed, read_latency
from ..nni_experiment.experiment import RetiariiExeConfig, RetiariiExperiment
from ..run import registry
from ..run.callbacks import EpochLine, History, LastCheckpoint, OrderlyInterrupt
from ..run.console import console
from ..run.folder import RunFolder
from ..run.lightning import interruptible
from ..supernets.rating import Rating
from ..supernets.subnets import SUPERNET, save_supernet
from ..tasks.task import SearchTask, open_task
from .base import Context, OneShot
from .collapse import collapse
from .options import Options
from .plots import plot_probabilities
from .retrain import Retraining, random_archs


def search(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Search, and write the result into the run's folder.

    Returns
    -------
    The content of ``results.json``: arch, and what the derived network and the plain one reach and cost.
    """
    space, task, accelerator = open_task(options)
    costs, latency = cost_model(task, options)
    budget = read_budget(options, costs, latency)
    others = random_archs(space, options.random_archs, options.seed, budget) if options.baseline else []
    run.write_config(asdict(options), anew=not resume)

    pl.seed_everything(options.seed, verbose=False)
    history = History(run.path / "metrics.csv")
    strategy, arch = _run_strategy(options, run, task, costs, budget, accelerator, history, resume)
    supernet = strategy.supernet
    run.write_json("arch.json", arch)
    save_supernet(supernet, run.path / SUPERNET)
    plot_probabilities(history.probabilities, run.path / "alphas.png", space)
    for sign in collapse(space, costs, arch):
        print(f"warning: the search may have collapsed: {sign}", flush=True)

    pl.seed_everything(options.seed, verbose=False)  # a resumed search has drawn other numbers, or none
    raw, state = slice_weights(supernet, arch)
    derived = task.network(raw)
    derived.load_state_dict(state)
    calibrated = task.calibrated(derived)
    handed_over = task.hand_over(calibrated, run.path, arch, is_slice=strategy.leaves_slices)
    plain = space.freeze(space.upstream())
    results: dict[str, Any] = {
        "strategy": options.strategy,
        "task": options.task,
        "metric": task.metric,
        "steps": options.epochs * task.num_batches,
        "arch": arch,
        "derived": {**_cost(derived, options.imgsz), "inherited": task.measure(calibrated, calibrated=False)},
        "plain": _cost(task.network(plain), options.imgsz),
        task.result: {"params": count_params(handed_over), f"flops_{options.cost_imgsz}": costs.of(arch)["flops"]},
    }
    if options.baseline:
        train = Retraining(task, run, options.epochs, options.seed, resume)
        if options.retrain in ("scratch", "both"):
            results["derived"]["from_scratch"] = train("derived", raw)
        if options.retrain in ("inherited", "both"):
            results["derived"]["from_inherited"] = train("inherited", raw, state)
        results["plain"]["from_scratch"] = train("plain", plain)
        results["random"] = []
        for i, other in enumerate(others, start=1):
            cfg = space.freeze(other)
            trained = {"arch": other, "from_scratch": train(f"random{i}", cfg)}
            results["random"].append({**trained, **_cost(task.network(cfg), options.imgsz)})
    run.write_json("results.json", results)
    _report(options, run, task, results)
    return results


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


def _run_strategy(
    options: Options,
    run: RunFolder,
    task: SearchTask,
    costs: CostModel,
    budget: Budget | None,
    accelerator: str,
    history: History,
    resume: bool,
) -> tuple[OneShot, dict[str, Any]]:
    """Run the experiment; the strategy, whose supernet is on the CPU, and the arch that it exports."""
    checkpoint = run.path / "last.ckpt"
    fit_kwargs: dict[str, Any] = {}
    if resume and checkpoint.exists():
        # Our own file, in the run's own folder: it holds optimisers and loops, which weights_only refuses.
        fit_kwargs = {"ckpt_path": str(checkpoint), "weights_only": False}
    evaluator = task.evaluator(
        max_epochs=options.epochs,
        accelerator=accelerator,
        devices=1,
        logger=TensorBoardLogger(run.path, name="", version=""),
        callbacks=[
            history,
            LastCheckpoint(checkpoint),
            EpochLine("search", lowest=(history, "arch_loss")),
            OrderlyInterrupt(),
            *([RichProgressBar()] if Console().is_terminal else []),
        ],
        enable_checkpointing=False,
        enable_progress_bar=Console().is_terminal,
        enable_model_summary=False,
        log_every_n_steps=1,
        fit_kwargs=fit_kwargs,
    )
    space = task.space()
    rating = Rating(lambda: strategy.supernet, task, options.population * options.generations)
    context = Context(task, costs, budget, rating, run.path)
    strategy = registry.load("oneshot", options.strategy).from_options(options, context)
    experiment = RetiariiExperiment(space, evaluator, [], strategy)
    config = RetiariiExeConfig("local")
    config.experiment_name = run.path.name
    config.experiment_working_directory = str(run.path / "nni")
    with interruptible(evaluator.trainer), rating:
        experiment.run(config)
    whole = strategy.supernet.cpu().space
    return strategy, whole.complete(experiment.export_top_models(formatter="dict")[0])


def _report(options: Options, run: RunFolder, task: SearchTask, results: dict[str, Any]) -> None:
    table = Table(title=f"{options.strategy} on {options.data}, {results['steps']} steps")
    for column in ("network", "trained", results["metric"], "parameters", f"MFLOPs at {options.imgsz}"):
        table.add_column(column, justify="left" if column in ("network", "trained") else "right")
    derived, plain, others = results["derived"], results["plain"], results.get("random", [])
    rows = [
        ("derived", "in the supernet", derived, derived["inherited"]),
        ("derived", "from inherited weights", derived, derived.get("from_inherited")),
        ("derived", "from scratch", derived, derived.get("from_scratch")),
        ("plain", "from scratch", plain, plain.get("from_scratch")),
        *((f"random {i}", "from scratch", other, other["from_scratch"]) for i, other in enumerate(others, start=1)),
    ]
    for name, how, row, metric in rows:
        if metric is not None:
            table.add_row(name, how, f"{metric:.4f}", f"{row['params']:,}", f"{row['flops'] / 1e6:.1f}")
    say = console().print
    say(table)
    if line := verdict(results):
        say(line, soft_wrap=True)
    d, flops = results[task.result], f"flops_{options.cost_imgsz}"
    cost = f"{d['params']:,} parameters, {d[flops] / 1e9:.2f} GFLOPs at {options.cost_imgsz}"
    say(f"{task.result}: {cost}")
    say(f"results in {run.path}", soft_wrap=True)


def metric_of(results: dict[str, Any]) -> float:
    """What a search is worth beside others: its result trained from scratch, where it was, or as it is."""
    derived = results["derived"]
    return float(derived.get("from_scratch", derived.get("from_inherited", derived["inherited"])))


def verdict(results: dict[str, Any]) -> str:
    """Whether the search beat random archs trained for the same steps; empty where there is nothing to compare."""
    others = [r["from_scratch"] for r in results.get("random", [])]
    if not others or "from_scratch" not in results["derived"]:
        return ""
    found, mean, best = results["derived"]["from_scratch"], sum(others) / len(others), max(others)
    says = "beats" if found > best else "beats the mean of, but not the best of," if found > mean else "does not beat"
    return (
        f"the search {says} {len(others)} random archs trained for the same steps: "
        f"{found:.4f} against {mean:.4f} on average and {best:.4f} at best"
    )
