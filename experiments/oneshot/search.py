"""One-shot search from a space's YAML to a detector: what `oneshot_nas.py` calls."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console

from models.complexity import count_flops, count_params
from models.network import Network
from spaces import CostModel

from ..costs.base import CostProvider
from ..costs.budget import Budget, read_budget
from ..costs.config import composed, read_latency
from ..nni_experiment.experiment import RetiariiExeConfig, RetiariiExperiment
from ..run import registry
from ..run.callbacks import EpochLine, History, LastCheckpoint, OrderlyInterrupt
from ..run.folder import RunFolder
from ..run.lightning import interruptible
from ..supernets.rating import Rating
from ..supernets.subnets import SUPERNET, cut_out, save_supernet
from ..tasks.task import SearchTask, open_task
from .base import Context, OneShot
from .collapse import collapse
from .options import Options
from .report import plot_probabilities, report
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
    derived = cut_out(supernet, task, arch)
    raw, state = derived.config.raw, {k: v.clone() for k, v in derived.state_dict().items()}
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
    report(options, run, task.result, results)
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
