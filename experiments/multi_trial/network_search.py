"""Multi-trial search of a model space of NNI: what ``multi_trial_nas.py --space nni:…`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.plugins import load_plugins_of_run
from spaces.hub import NetworkSpace, load_file

from ..costs.frozen import FrozenBudget, FrozenCosts
from ..costs.limits import Limits
from ..nni_experiment.experiment import RetiariiExperiment
from ..run.folder import RunFolder
from ..run.lightning import accelerator_of, quiet_lightning
from ..tasks.network import NetworkTask
from .network_candidate import NetworkCandidate, WrittenDecisions, check, training_of
from .options import Options
from .report import report
from .runs import experiment_id
from .search import best_trial, completed, config_of, run_trials, strategy_of
from .trial_log import TrialLog


class _Written:
    """A budget on archs as trials are told them; without limits, the space's own constraints."""

    def __init__(self, space: NetworkSpace, budget: FrozenBudget | None) -> None:
        self.space, self.budget, self.values = space, budget, space.written()

    def feasible(self, archs: Sequence[Mapping[str, Any]]) -> list[bool]:
        read = [self.space.read(arch) for arch in archs]
        return [self.space.is_valid(a) for a in read] if self.budget is None else self.budget.feasible(read)

    def cheapest(self) -> dict[str, Any]:
        arch = self.space.first() if self.budget is None else self.budget.cheapest()
        return {k: self.values[k][d.values.index(arch[k])] for k, d in self.space.decisions.items()}


def search(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Search, and write the result into the run's folder.

    Returns
    -------
    The content of ``results.json``.
    """
    quiet_lightning()
    load_plugins_of_run(options.plugin)
    check(options)
    load_file(options.space or "")
    task = NetworkTask(options, accelerator_of(options.device))
    options = completed(options, run, resume)
    costs, limits = FrozenCosts(task.searched), Limits(options.max_flops, options.max_params)
    budget = FrozenBudget(costs, limits) if limits.any else None
    written = _Written(task.searched, budget)
    id = experiment_id(run) if resume else None
    space, evaluator = WrittenDecisions(written.values), NetworkCandidate(training_of(options))
    config = config_of(options, run)
    experiment = RetiariiExperiment(space, evaluator, [], strategy_of(options, written), config, id)
    log = TrialLog(
        run.path,
        task.metric,
        list(task.searched.decisions),
        lambda: experiment.trials,
        experiment.stderr_of,
        lambda trial: experiment.output_of(trial, "weights.pt").unlink(missing_ok=True),
    )
    run_trials(options, run, resume, experiment, log)
    best, results, weights = best_trial(run, task.metric, experiment, log)
    arch = task.searched.read(best.arch)
    network = task.network(arch)
    network.load_state_dict(weights)
    run.write_json("arch.json", task.searched.lists(arch))
    task.hand_over(network, run.path, arch)
    results = {"space": options.space, **results, "arch": task.searched.lists(arch), task.result: costs.of(arch)}
    run.write_json("results.json", results)
    report(options, run, task.metric, experiment.trials, results)
    return results
