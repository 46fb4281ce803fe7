"""One-shot search from a space's YAML to a detector: what `oneshot_nas.py` calls."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spaces import nni_compat  # isort: skip

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from models.complexity import count_flops, count_params
from models.errors import InputError
from models.files import save_model_yaml
from models.network import Network
from models.registry import load_plugin
from optimizer import match_nas
from spaces import NASBACKBONE, NASDETECTOR, Space, slice_weights

from . import strategies
from .callbacks import EpochLine, History, LastCheckpoint, OrderlyInterrupt
from .experiment import RetiariiExeConfig, RetiariiExperiment
from .plots import plot_probabilities
from .run_folder import RunFolder
from .search_tasks import SEARCH_TASKS, SearchTask
from .trainer import accelerator_of, interruptible, quiet_lightning

assert nni_compat.nni is not None

STRATEGIES = {"darts": strategies.DARTS}


@dataclass(frozen=True)
class Options:
    """Options of a one-shot search; `oneshot_nas.py --help` explains them."""

    strategy: str
    task: str
    cfg: str
    data: str
    detector: str | None
    epochs: int
    batch: int
    imgsz: int
    lr: float
    arch_lr: float
    seed: int
    device: str
    data_root: str | None
    baseline: bool
    plugin: list[str]


def search(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Search, and write the result into the run's folder (DESIGN §5).

    Returns
    -------
    The content of ``results.json``: arch, and what the derived network and the plain one reach and cost.
    """
    quiet_lightning()
    accelerator = accelerator_of(options.device)
    for plugin in options.plugin:
        load_plugin(plugin)
    space = Space(options.cfg)
    task: SearchTask = SEARCH_TASKS[options.task](options, space, accelerator)
    if not space.decisions:
        raise InputError(f"{options.cfg}: there is nothing to search, the YAML has no choices (try yolov5n_nas.yaml)")
    run.write_config(asdict(options))

    pl.seed_everything(options.seed, verbose=False)
    history = History(run.path / "metrics.csv")
    supernet, arch = _run_strategy(options, run, task, accelerator, history, resume)
    run.write_json("arch.json", arch)
    plot_probabilities(history.probabilities, run.path / "alphas.png")

    model = match_nas(task.detector, supernet, save=run.path / "detector.pt", arch=arch)
    save_model_yaml(model.config.raw, run.path / "detector.yaml")
    raw, state = slice_weights(supernet, arch)
    derived = task.network(raw)
    derived.load_state_dict(state)
    results: dict[str, Any] = {
        "task": options.task,
        "metric": task.metric,
        "steps": options.epochs * task.num_batches,
        "arch": arch,
        "derived": {**_cost(derived, options.imgsz), "inherited": task.measure(derived)},
        "plain": _cost(task.network(space.freeze(space.upstream())), options.imgsz),
        "detector": {"params": count_params(model), "flops_640": count_flops(model, 640, model.config.ch)},
    }
    if options.baseline:
        for name, cfg in (("derived", raw), ("plain", space.freeze(space.upstream()))):
            pl.seed_everything(options.seed, verbose=False)
            callbacks = [History(run.path / f"metrics_{name}.csv"), EpochLine(f"{name:<7}")]
            results[name]["from_scratch"] = task.train(task.network(cfg), options.epochs, callbacks)
    run.write_json("results.json", results)
    _report(options, run, results)
    return results


def _cost(network: Network, imgsz: int) -> dict[str, Any]:
    return {"params": count_params(network), "flops": count_flops(network, imgsz, network.config.ch)}


def _run_strategy(
    options: Options, run: RunFolder, task: SearchTask, accelerator: str, history: History, resume: bool
) -> tuple[NASBACKBONE | NASDETECTOR, dict[str, Any]]:
    """Run the experiment; the supernet on the CPU, and the arch that it exports."""
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
        callbacks=[history, LastCheckpoint(checkpoint), EpochLine("search"), OrderlyInterrupt()],
        enable_checkpointing=False,
        enable_progress_bar=Console().is_terminal,
        enable_model_summary=False,
        log_every_n_steps=1,
        fit_kwargs=fit_kwargs,
    )
    strategy = STRATEGIES[options.strategy](arc_learning_rate=options.arch_lr)
    experiment = RetiariiExperiment(task.space(), evaluator, [], strategy)
    config = RetiariiExeConfig("local")
    config.experiment_name = run.path.name
    config.experiment_working_directory = str(run.path / "nni")
    with interruptible(evaluator.trainer):
        experiment.run(config)
    supernet = strategy.supernet.cpu()
    return supernet, supernet.space.complete(experiment.export_top_models(formatter="dict")[0])


def _report(options: Options, run: RunFolder, results: dict[str, Any]) -> None:
    table = Table(title=f"{options.strategy} on {options.data}, {results['steps']} steps")
    for column in ("network", "trained", results["metric"], "parameters", f"MFLOPs at {options.imgsz}"):
        table.add_column(column, justify="left" if column in ("network", "trained") else "right")
    for name, key, how in (
        ("derived", "inherited", "in the supernet"),
        ("derived", "from_scratch", "from scratch"),
        ("plain", "from_scratch", "from scratch"),
    ):
        if key in (row := results[name]):
            table.add_row(name, how, f"{row[key]:.4f}", f"{row['params']:,}", f"{row['flops'] / 1e6:.1f}")
    console = Console(width=None if Console().is_terminal else 100)
    console.print(table)
    d = results["detector"]
    console.print(f"detector: {d['params']:,} parameters, {d['flops_640'] / 1e9:.2f} GFLOPs at 640", highlight=False)
    console.print(f"results in {run.path}", highlight=False, soft_wrap=True)
