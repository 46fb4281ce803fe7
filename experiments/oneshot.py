"""One-shot search from a space's YAML to a detector: what `oneshot_nas.py` calls."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

from spaces import nni_compat  # isort: skip

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from data import classification
from models.classifier import Classifier
from models.complexity import count_flops, count_params
from models.detector import Model, check_imgsz
from models.errors import InputError
from models.files import save_model_yaml
from models.grammar import read_config
from models.registry import load_plugin
from optimizer import match_nas
from spaces import NASBACKBONE, Space, slice_weights

from . import strategies
from .callbacks import EpochLine, History, LastCheckpoint
from .evaluator import DataLoader
from .experiment import RetiariiExeConfig, RetiariiExperiment
from .plots import plot_probabilities
from .proxy import interruptible, quiet_lightning, recalibrated_accuracy, train_loader, train_plain
from .run_folder import RunFolder
from .tasks.classify import Classification

assert nni_compat.nni is not None

STRATEGIES = {"darts": strategies.DARTS}


@dataclass(frozen=True)
class Options:
    """Options of a one-shot search; `oneshot_nas.py --help` explains them."""

    strategy: str
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


def accelerator_of(device: str) -> str:
    """Lightning's name of a device; `InputError` if it is asked for and not there."""
    if device == "cpu":
        return "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda: this PyTorch sees no CUDA device; right would be --device cpu")
        return "gpu"
    if device == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    raise InputError(f"--device {device}: right would be auto, cpu or cuda")


def search(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Search, and write the result into the run's folder (DESIGN §5).

    Returns
    -------
    The content of ``results.json``: arch, and accuracies, parameters and FLOPs of the derived backbone and the plain.
    """
    accelerator = accelerator_of(options.device)
    for plugin in options.plugin:
        load_plugin(plugin)
    space = Space(options.cfg)
    detector = _detector_of(space, options.detector)
    if not space.decisions:
        raise InputError(f"{options.cfg}: there is nothing to search, the YAML has no choices (try yolov5n_nas.yaml)")
    data = classification(options.data, options.imgsz, options.seed, options.data_root, space.config.ch)
    plain_cfg = space.freeze(_upstream(space))
    plain = Classifier(plain_cfg, data.nc)
    check_imgsz(options.imgsz, int(plain.reductions()[-1]))
    run.write_config(asdict(options))

    quiet_lightning()
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    pl.seed_everything(options.seed, verbose=False)
    history = History(run.path / "metrics.csv")
    supernet, arch = _run_strategy(options, run, space, data, accelerator, history, resume)
    run.write_json("arch.json", arch)
    plot_probabilities(history.probabilities, run.path / "alphas.png")

    model = match_nas(detector, supernet, save=run.path / "detector.pt", arch=arch)
    save_model_yaml(model.config.raw, run.path / "detector.yaml")
    raw, state = slice_weights(supernet, arch)
    derived = Classifier(raw, data.nc)
    derived.load_state_dict(state)
    results: dict[str, Any] = {
        "arch": arch,
        "val_acc_inherited": recalibrated_accuracy(derived, data, options.batch, options.seed),
        "derived": _cost(derived, options.imgsz),
        "detector": {"params": count_params(model), "flops_640": count_flops(model, 640, model.config.ch)},
        "steps": options.epochs * len(train_loader(data.train, options.batch, options.seed)),
    }
    if options.baseline:
        for name, cfg in (("derived", raw), ("plain", plain_cfg)):
            pl.seed_everything(options.seed, verbose=False)
            network = Classifier(cfg, data.nc)
            results[name] = _cost(network, options.imgsz)
            results[name]["val_acc"] = train_plain(
                network,
                data,
                epochs=options.epochs,
                batch=options.batch,
                lr=options.lr,
                seed=options.seed,
                accelerator=accelerator,
                callbacks=[History(run.path / f"metrics_{name}.csv"), EpochLine(f"{name:<7}")],
            )
    run.write_json("results.json", results)
    _report(options, run, results)
    return results


def _cost(network: Classifier, imgsz: int) -> dict[str, Any]:
    return {"params": count_params(network), "flops": count_flops(network, imgsz, network.config.ch)}


def _upstream(space: Space) -> dict[str, Any]:
    """The arch that upstream's plain network has; where a choice has no such value, its first."""
    return {k: d.values[0] for k, d in space.decisions.items() if not d.has_default}


def _detector_of(space: Space, detector: str | None) -> Model:
    """The detector whose neck and head the result gets; built now, so that an error comes before the search."""
    if detector is not None:
        return Model(detector)
    if len(space.config.rows) == space.config.num_backbone:
        raise InputError(f"{space.config.file}: has no head: say which detector it is for with --detector yolov5n.yaml")
    return Model(read_config(space.freeze(_upstream(space))))


def _run_strategy(
    options: Options, run: RunFolder, space: Space, data: Any, accelerator: str, history: History, resume: bool
) -> tuple[NASBACKBONE, dict[str, Any]]:
    """Run the experiment; the supernet on the CPU, and the arch that it exports."""
    loaders = {
        name: DataLoader(
            loader.dataset, batch_size=loader.batch_size, sampler=loader.sampler, drop_last=True, num_workers=0
        )
        for name, loader in (
            ("train_dataloaders", train_loader(data.train, options.batch, options.seed)),
            ("val_dataloaders", train_loader(data.arch, options.batch, options.seed)),
        )
    }
    checkpoint = run.path / "last.ckpt"
    fit_kwargs: dict[str, Any] = {}
    if resume and checkpoint.exists():
        # Our own file, in the run's own folder: it holds optimisers and loops, which weights_only refuses.
        fit_kwargs = {"ckpt_path": str(checkpoint), "weights_only": False}
    evaluator = Classification(
        learning_rate=options.lr,
        max_epochs=options.epochs,
        accelerator=accelerator,
        devices=1,
        logger=TensorBoardLogger(run.path, name="", version=""),
        callbacks=[history, LastCheckpoint(checkpoint), EpochLine("search")],
        enable_checkpointing=False,
        enable_progress_bar=Console().is_terminal,
        enable_model_summary=False,
        log_every_n_steps=1,
        fit_kwargs=fit_kwargs,
        **loaders,
    )
    strategy = STRATEGIES[options.strategy](arc_learning_rate=options.arch_lr)
    experiment = RetiariiExperiment(NASBACKBONE(options.cfg, data.nc), evaluator, [], strategy)
    config = RetiariiExeConfig("local")
    config.experiment_name = run.path.name
    config.experiment_working_directory = str(run.path / "nni")
    with interruptible(evaluator.trainer):
        experiment.run(config)
    supernet = strategy.supernet.cpu()
    return supernet, space.complete(experiment.export_top_models(formatter="dict")[0])


def _report(options: Options, run: RunFolder, results: dict[str, Any]) -> None:
    table = Table(title=f"{options.strategy} on {options.data}, {results['steps']} steps, validation accuracy")
    for column in ("backbone", "trained", "accuracy", "parameters", f"MFLOPs at {options.imgsz}"):
        table.add_column(column, justify="left" if column in ("backbone", "trained") else "right")

    def add(name: str, how: str, acc: float, cost: dict[str, Any]) -> None:
        table.add_row(name, how, f"{acc:.4f}", f"{cost['params']:,}", f"{cost['flops'] / 1e6:.1f}")

    add("searched", "in the supernet", results["val_acc_inherited"], results["derived"])
    if "plain" in results:
        add("searched", "from scratch", results["derived"]["val_acc"], results["derived"])
        add("plain", "from scratch", results["plain"]["val_acc"], results["plain"])
    console = Console(width=None if Console().is_terminal else 100)
    console.print(table)
    d = results["detector"]
    console.print(f"detector: {d['params']:,} parameters, {d['flops_640'] / 1e9:.2f} GFLOPs at 640", highlight=False)
    console.print(f"results in {run.path}", highlight=False, soft_wrap=True)
