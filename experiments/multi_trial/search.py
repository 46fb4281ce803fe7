"""Multi-trial search from a space's YAML to a detector: what `multi_trial_nas.py` calls."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from models.complexity import count_flops, count_params
from models.errors import InputError
from models.plain_files import load_plain
from spaces import Space
from spaces.space import Arch

from ..costs.budget import Budget
from ..costs.config import composed, read_latency
from ..costs.limits import Limits
from ..nni_experiment import web
from ..nni_experiment.config import RetiariiExeConfig
from ..nni_experiment.engine import Trial
from ..nni_experiment.experiment import RetiariiExperiment, has_trials, view_experiment
from ..run import registry
from ..run.admission import admit_experiment
from ..run.folder import RunFolder
from ..supernets.subnets import open_supernet
from ..supernets.warm import begun, read_weights
from ..tasks.resize import resolution_of
from ..tasks.task import SearchTask, open_task
from .candidate import Candidate, Decisions, training_of
from .options import Options
from .report import counted, plot_trials, report
from .runs import experiment_id, run_of
from .trial_log import TrialLog, status_of


def search(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Search, and write the result into the run's folder.

    Returns
    -------
    The content of ``results.json``.
    """
    space, task, _ = open_task(options)
    if options.inherit is not None:
        if options.config is not None:
            raise InputError("--inherit: runs are not sent to the machines of --config; right would be one of them")
        if options.weights is not None:
            raise InputError("--weights: candidates begin with --inherit or with it; right would be one of them")
        open_supernet(options.inherit, task=task, option="--inherit")  # its errors before the first trial, not in each
    if options.weights is not None:
        begun(task, read_weights(options.weights, task), options.seed)
    options = completed(options, run, resume)
    training = training_of(options, space)
    strategy = strategy_of(options, _budget(options, task))
    model_space, evaluator, id = (
        Decisions(training["cfg"]),
        Candidate(training),
        experiment_id(run) if resume else None,
    )
    experiment = RetiariiExperiment(model_space, evaluator, [], strategy, config_of(options, run), id)
    log = TrialLog(
        run.path,
        task.metric,
        list(space.decisions),
        lambda: experiment.trials,
        experiment.stderr_of,
        lambda trial: experiment.output_of(trial, "weights.pt").unlink(missing_ok=True),
    )
    run_trials(options, run, resume, experiment, log)
    return _finish(options, run, task, space, experiment, log)


def run_trials(options: Options, run: RunFolder, resume: bool, experiment: RetiariiExperiment, log: TrialLog) -> None:
    """Run the experiment, or go on with it, under the web UI."""
    experiment.on_trial_end = log.add
    going_on = resume and has_trials(experiment.folder)
    if going_on:
        admit_experiment(run)
    web.check(options.port, options.host, experiment.config)
    run.write_config(asdict(options), anew=not resume)
    run.write_json("experiment.json", {"id": experiment.id})
    if going_on:
        experiment.resume(options.port, host=options.host)
    else:
        experiment.run(None, options.port, host=options.host)
    log.write()


def completed(options: Options, run: RunFolder, resume: bool) -> Options:
    """With what follows from other options, and is saved for ``--resume``."""
    most = registry.KINDS["multi-trial"][options.strategy].defaults.get("population")
    if most is not None and options.population is None and not resume:
        # The most suits 200 trials; few trials are never to be all at random.
        options = replace(options, population=min(max(options.max_trials // 4, 2), most))
    if options.pruner != "none":
        if options.config is not None:
            raise InputError("--pruner: the machines of --config share no file; right would be one of them")
        options = replace(options, journal=str((run.path / "pruning.log").resolve()))
    return options


def view(run: str, project: str, port: int, host: str) -> None:
    """Show the experiment of a run in the web UI, until Ctrl-C."""
    folder, _ = RunFolder.resume(run_of(run, project))
    view_experiment((folder.path / "nni" / experiment_id(folder)).resolve(), port, host)


def strategy_of(options: Options, budget: Any) -> Any:
    """The strategy within a budget, or what has its methods."""
    settings: dict[str, Any] = {"seed": options.seed}
    if budget is not None:
        settings["feasible"] = lambda arch: budget.feasible([arch])[0]
    if options.population is not None:
        settings["population_size"] = options.population
    strategy = registry.load("multi-trial", options.strategy)(**settings)
    if budget is not None:
        strategy.start_from = budget.cheapest()
    return strategy


def _budget(options: Options, task: SearchTask) -> Budget | None:
    """What is known without a trial: parameters and FLOPs of the whole detector, and latency composed of blocks."""
    model, limits = task.costs(options.cost_imgsz), Limits(options.max_flops, options.max_params)
    whole = None if options.costs is None else composed(read_latency(options.costs)(model))
    if whole is not None:
        model, limits = whole, replace(limits, max_latency=options.max_latency)
    return Budget(model, limits) if limits.any else None


def config_of(options: Options, run: RunFolder) -> RetiariiExeConfig:
    if options.config is not None:
        from ..nni_experiment.machines import read_config_file

        config = read_config_file(options.config)
    else:
        config = RetiariiExeConfig("local")
        config.training_service.use_active_gpu = True
    config.experiment_name = run.path.name
    config.experiment_working_directory = str((run.path / "nni").resolve())
    config.max_trial_number, config.trial_concurrency = options.max_trials, options.concurrency
    config.trial_gpu_number = options.gpus or None
    return config


def _finish(
    options: Options, run: RunFolder, task: SearchTask, space: Space, experiment: RetiariiExperiment, log: TrialLog
) -> dict[str, Any]:
    best, results, weights = best_trial(run, task.metric, experiment, log)
    raw = space.freeze(best.arch)
    network = task.network(raw)
    network.load_state_dict(weights)
    run.write_json("arch.json", best.arch)
    model = task.hand_over(network, run.path, best.arch)
    cost = f"flops_{options.cost_imgsz}"
    flops = count_flops(model, resolution_of(model, options.cost_imgsz), model.config.ch)
    results = {"task": options.task, **results, task.result: {"params": count_params(model), cost: flops}}
    trials = experiment.trials
    if len(experiment.strategy.objectives) > 1:
        results["front"] = [_values_of(trials, t.arch) for t in experiment.strategy.pareto_front()]
    run.write_json("results.json", results)
    report(options, run, task.metric, trials, results)
    return results


def best_trial(
    run: RunFolder, metric: str, experiment: RetiariiExperiment, log: TrialLog
) -> tuple[Trial, dict[str, Any], dict[str, Any]]:
    """The best trial, what is to be said of all of them, and the state dict of the best; draws their picture.

    Raises
    ------
    InputError
        No trial has a result.
    """
    trials = experiment.trials
    plot_trials(trials, metric, run.path / "trials.png")
    counts = {
        s: sum(status_of(t) == s for t in trials) for s in ("done", "pruned", "failed", "infeasible", "cancelled")
    }
    best = log.best
    if best is None:
        raise InputError(f"no trial has a result ({counted(counts)}), see {run.path / 'trials'}")
    weights = run.path / "trials" / best.id / "weights.pt"
    experiment.fetch(best, "weights.pt", weights)
    results: dict[str, Any] = {
        "metric": metric,
        "trials": {"all": len(trials), **counts},
        "arch": best.arch,
        "best": {"number": best.number, "id": best.id, **_values(best)},
    }
    return best, results, load_plain(weights)["state_dict"]


def _values(trial: Trial) -> dict[str, Any]:
    return dict(trial.metric)


def _values_of(trials: list[Trial], arch: Arch) -> dict[str, Any]:
    trial = next(t for t in trials if t.arch == arch and status_of(t) in ("done", "pruned"))
    return {"number": trial.number, "id": trial.id, **_values(trial)}
