"""One-shot searches as the trials of an NNI experiment, over strategies and seeds, to be watched in its web UI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from models.documents import read_json
from models.errors import InputError
from models.schemas import Experiment
from spaces.nni_compat import Evaluator, ModelSpace, nni

from ..multi_trial.strategies import GridSearch
from ..multi_trial.trial_log import TrialLog, status_of, value_of
from ..nni_experiment import web
from ..nni_experiment.config import RetiariiExeConfig
from ..nni_experiment.engine import Trial
from ..nni_experiment.experiment import RetiariiExperiment, has_trials
from ..run import registry
from ..run.admission import admit_experiment
from ..run.console import say
from ..run.folder import RunFolder
from ..run.tables import read_csv, table
from ..tasks.task import open_task
from .measured import TABLE, measuring, with_table
from .options import Options
from .report import metric_of
from .search import cost_model

_SCRIPT = Path(__file__).resolve().parents[2] / "oneshot_nas.py"
_LOOKED_EVERY_S = 0.5
_KINDS = ("detector.yaml", "detector.pt", "classifier.yaml", "classifier.pt", "landmarks.yaml", "landmarks.pt")
_RESULTS = ("arch.json", "results.json", "alphas.png", *_KINDS)
# What an epoch is worth, the first that it has: on the architecture's data if the strategy has seen them.
_WATCHED = (("arch_acc", 1), ("train_acc", 1), ("arch_loss", -1), ("train_loss", -1))


class Runs(ModelSpace):
    """Strategies and seeds."""

    def __init__(self, names: list[str], seeds: list[int]) -> None:
        super().__init__()
        self.add_mutable(nni.choice("strategy", names))
        self.add_mutable(nni.choice("seed", seeds))


@nni.trace
class OneShotRun(Evaluator):
    """Runs `oneshot_nas.py` as a process of its own, and reports what it writes.

    Parameters
    ----------
    options
        Of the search, but for strategy and seed.
    folder
        Holds a run's folder for each trial, ``<strategy>-<seed>``. A run that is there already is gone on with.
    cwd
        Where relative paths begin.
    """

    def __init__(self, options: dict[str, Any], folder: str, cwd: str) -> None:
        self.options, self.folder, self.cwd = options, folder, cwd

    def _execute(self, model: Any) -> None:
        folder = run_of(Path(self.folder), model.sample)
        options = {**self.options, **model.sample}
        if not (folder / "config.yaml").exists() or RunFolder.resume(folder)[1] != options:
            RunFolder(folder.parent, folder.name, exist_ok=True).write_config(options, anew=True)
        # The search is an NNI experiment itself, and not to be taken for this trial.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NNI_")}
        command = [sys.executable, "-u", str(_SCRIPT), "--resume", str(folder)]
        if plugins := self.options["plugin"]:
            command += ["--plugin", *plugins]
        process = subprocess.Popen(command, cwd=self.cwd, env=environment)
        reported = 0
        try:
            while process.poll() is None:
                time.sleep(_LOOKED_EVERY_S)
                reported = _report(folder / "metrics.csv", reported)
        finally:
            process.terminate()
        if process.returncode:
            raise RuntimeError(f"oneshot_nas.py ended with status {process.returncode}")
        _report(folder / "metrics.csv", reported)
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        nni.report_final_result({"default": metric_of(results), results["metric"]: metric_of(results)})


def run_of(folder: Path, sample: Mapping[str, Any]) -> Path:
    """The folder of a trial's run."""
    return folder / f"{sample['strategy']}-{sample['seed']}"


def _report(path: Path, reported: int) -> int:
    """Report the epochs in ``metrics.csv`` beyond the first `reported`; how many there are now."""
    if not path.exists():
        return reported
    rows = read_csv(path)
    for row in rows[reported:]:
        name, sign = next((name, sign) for name, sign in _WATCHED if row.get(name))
        nni.report_intermediate_result(sign * float(row[name]))
    return len(rows)


def search(options: Options, run: RunFolder, resume: bool = False) -> None:
    """Search ``options.trials`` times, from as many seeds, with each of the strategies that ``options.strategy`` lists.

    The results of the best run, its supernet left out, become this run's.
    """
    names = options.strategy.split(",")
    seeds = [options.seed + i for i in range(options.trials)]
    if options.ui is None:
        raise InputError("--trials and several strategies need --ui PORT")
    told = with_table(options, run)
    if told is not options:  # once, and not while several searches run
        web.check(options.ui, web.LOOPBACK)
        run.write_config(asdict(options), anew=not resume)
        with measuring(told):
            cost_model(open_task(options)[1], told)
        told = replace(told, latency_table=str((run.path / TABLE).resolve()))
    common = asdict(replace(told, ui=None, trials=1))
    runs = (run.path / "runs").resolve()
    config = RetiariiExeConfig("local")
    config.experiment_name, config.experiment_working_directory = run.path.name, str((run.path / "nni").resolve())
    config.max_trial_number, config.trial_concurrency = len(names) * len(seeds), options.concurrency
    saved = run.path / "experiment.json"
    id = Experiment.of(read_json(saved), saved).id if resume and saved.exists() else None
    evaluator = OneShotRun(common, str(runs), os.getcwd())
    experiment = RetiariiExperiment(Runs(names, seeds), evaluator, [], GridSearch(), config, id)
    metric = registry.load("task", options.task).metric
    log = TrialLog(
        run.path, metric, ["strategy", "seed"], lambda: experiment.trials, experiment.stderr_of, lambda trial: None
    )
    experiment.on_trial_end = log.add
    going_on = resume and has_trials(experiment.folder)
    if going_on:
        admit_experiment(run)
    web.check(options.ui, web.LOOPBACK)
    run.write_config(asdict(options), anew=not resume)
    run.write_json("experiment.json", {"id": experiment.id})
    if going_on:
        experiment.resume(options.ui)
    else:
        experiment.run(None, options.ui)
    log.write()
    best = log.best
    if best is None:
        raise InputError(f"no search has a result, see {run.path / 'trials'}")
    for name in _RESULTS:
        if (run_of(runs, best.arch) / name).exists():
            shutil.copyfile(run_of(runs, best.arch) / name, run.path / name)
    _show(run, metric, experiment.trials)


def _show(run: RunFolder, metric: str, trials: list[Trial]) -> None:
    done = sorted((t for t in trials if status_of(t) == "done"), key=value_of, reverse=True)
    rows = [(f"{t.number}", t.arch["strategy"], f"{t.arch['seed']}", f"{value_of(t):.4f}") for t in done]
    say(table(["trial", "strategy", "seed", metric], rows, left=["strategy"]), f"results of the best in {run.path}")
