"""The engine that trains every arch as a trial of NNI's training service, and shows it in the web UI as labels."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from models.errors import InputError
from spaces.nni_compat import (
    Categorical,
    CategoricalMultiple,
    ExecutableModelSpace,
    MetricType,
    ModelStatus,
    TrainingEndEvent,
    TrainingServiceExecutionEngine,
    nni,
    subsets,
)
from spaces.space import Arch

_logger = logging.getLogger(__name__)
_STATUS_SECONDS = 2.0
_ENDED = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")


@dataclass
class Trial:
    """What is known of a trial.

    Attributes
    ----------
    number
        As the web UI counts, from 0.
    id
        NNI's name of the trial; empty until it has reported something.
    status
        NNI's, such as ``SUCCEEDED``; ``RUNNING`` until it has ended.
    metric, intermediates
        What it reported, last and before: numbers, or mappings with the number under ``default``.
    seconds
        From its submission to its end; NaN in a resumed experiment for those of before.
    """

    number: int
    arch: Arch
    model: ExecutableModelSpace
    id: str = ""
    status: str = "RUNNING"
    metric: Any = None
    intermediates: list[Any] = field(default_factory=list)
    begun: float = float("nan")
    seconds: float = float("nan")

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class ArchEngine(TrainingServiceExecutionEngine):
    """NNI's training service, with these differences.

    - The parameters of a trial are its arch, ``{label: value}``, not a pickled model.
    - After a resume a trial that NNI has run before, or runs again, answers for an arch that the strategy asks for once
      more, so that no trial is lost and none is run twice.
    - What is submitted beyond the budget ends at once as interrupted, so that nobody waits for it.

    Attributes
    ----------
    trials
        By number.
    heard
        Numbers of the trials whose end the strategy has heard of.
    on_end
        Called with every trial that has ended, in the thread of the channel.
    before_trial
        Called before a new trial is sent: what the strategy has decided is to be saved by then, so that it claims the
        trial even if this process is killed.
    """

    def __init__(
        self,
        experiment: Any,
        max_trials: int | None,
        on_end: Callable[[Trial], None],
        trials: Iterable[Trial] = (),
        heard: Iterable[int] = (),
        before_trial: Callable[[], None] = lambda: None,
    ) -> None:
        self.trials = {trial.number: trial for trial in trials}
        self.heard = set(heard)
        self.max_trials, self.on_end, self.before_trial = max_trials, on_end, before_trial
        self._known = [t for t in self.trials.values() if t.number not in self.heard]
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._status, self._status_at = "RUNNING", float("-inf")
        super().__init__(experiment)  # from here on the channel's thread reports

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        for model in models:
            self._check_running()
            self._submit(model)

    def _submit(self, model: ExecutableModelSpace) -> None:
        arch = {str(label): value for label, value in (model.sample or {}).items()}
        model.status = ModelStatus.Training
        over: list[Trial] = []
        with self._changed:
            known = next((t for t in self._known if t.arch == arch), None)
            number = None
            if known is not None:
                self._known.remove(known)
                known.model = model  # its events go to the strategy's model from now on
                if known.ended:
                    over = [known]
                else:
                    known.begun = time.monotonic()
                    self._workers -= 1
                    self._pass_on(known)  # under the lock, so that its end comes after
            elif self.max_trials is None or len(self.trials) < self.max_trials:
                number = max(self.trials, default=-1) + 1
                self.trials[number] = Trial(number, arch, model, begun=time.monotonic())
                self._workers -= 1
            else:
                # A strategy that asks for others does not know of them.
                over = [t for t in self._known if t.ended]
                self._known.clear()
        for trial in over:
            self._pass_on(trial)
            self._tell(trial)
        if known is None and number is None:
            self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Interrupted))
        elif known is None:
            self.before_trial()
            self._channel.send_trial(parameter_id=number, parameters=encode(arch))

    def _pass_on(self, trial: Trial) -> None:
        """Tell the strategy what was reported before it asked for the trial."""
        for kind, value in [*(("intermediate_metric", v) for v in trial.intermediates), ("final_metric", trial.metric)]:
            if value is not None:
                self.dispatch_model_event(kind, model=trial.model, metric=value)

    def _tell(self, trial: Trial) -> None:
        status = self._interpret_trial_job_status(trial.status)
        self.dispatch_model_event(TrainingEndEvent(trial.model, status))
        self.heard.add(trial.number)
        self.on_end(trial)
        with self._changed:
            self._changed.notify_all()

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        """Models of all trials, in order; also after the end."""
        for trial in list(self.trials.values()):
            if status is None or trial.model.status == status:
                yield trial.model

    def wait_models(self, *models: ExecutableModelSpace) -> None:
        """Wait for these models, or for all; returns early where the experiment's time is over."""
        with self._changed:
            while not self._all_ended(models):
                self._changed.wait(0.5)
                if self.manager_status() in ("DONE", "STOPPED", "ERROR"):
                    return

    def _all_ended(self, models: tuple[ExecutableModelSpace, ...]) -> bool:
        return all(m.status.completed() for m in models or [t.model for t in self.trials.values()])

    def idle_worker_available(self) -> bool:
        return self._workers > 0

    def budget_available(self) -> bool:
        self._check_running()
        if self._known:
            return True  # what has been run costs nothing more
        if self.max_trials is not None and len(self.trials) >= self.max_trials:
            return False
        return self.manager_status() in ("INITIALIZED", "RUNNING", "TUNER_NO_MORE_TRIAL")

    def manager_status(self) -> str:
        """NNI's status of the experiment, asked for every other second.

        Raises
        ------
        InputError
            If the manager has ended.
        Exception
            What went wrong in the thread of the channel.
        """
        if self._error is not None:
            raise self._error
        process = self.nodejs_binding._proc
        if process is not None and process.poll() is not None:
            raise InputError(f"NNI's web manager ended with status {process.returncode}; {self._log_hint()}")
        if time.monotonic() - self._status_at > _STATUS_SECONDS:
            self._status, self._status_at = self.nodejs_binding.get_status(), time.monotonic()
            if self._status == "ERROR":
                raise InputError(f"NNI's web manager failed; {self._log_hint()}")
        return self._status

    def _log_hint(self) -> str:
        return f"its log is {self.nodejs_binding.folder / 'log' / 'nnimanager.log'}"

    def state_dict(self) -> dict[str, Any]:
        return {"heard": sorted(self.heard)}

    def _find_reference_model(self, parameter_id: int) -> ExecutableModelSpace | None:
        with self._changed:
            trial = self.trials.get(parameter_id)
        return None if trial is None else trial.model

    def _report_metric_data_callback(self, command: Any) -> None:
        try:
            trial = self.trials.get(command.parameter_id)
            if trial is not None:
                trial.id = command.trial_job_id or trial.id
                if command.type == MetricType.FINAL:
                    trial.metric = command.value
                else:
                    trial.intermediates.append(command.value)
            super()._report_metric_data_callback(command)
        except Exception as e:
            self._fail(e)

    def _trial_end_callback(self, command: Any) -> None:
        try:
            with self._changed:
                trial = self.trials.get(command.parameter_ids[0])
                if trial is None:
                    return  # added by hand in the web UI
                trial.id, trial.status = command.trial_job_id, command.event
                trial.seconds = time.monotonic() - trial.begun
                if trial in self._known:
                    return  # told when the strategy asks for it
            self._tell(trial)
        except Exception as e:
            self._fail(e)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = self._error or error  # raised where the strategy waits: here it would end the thread
            self._changed.notify_all()


def recovered(space: ExecutableModelSpace, jobs: Iterable[Any], metrics: Mapping[str, Iterable[Any]]) -> list[Trial]:
    """The trials of an interrupted experiment, from NNI's jobs and what these reported, by id."""
    trials = []
    for job in jobs:
        given = job.hyperParameters[0] if job.hyperParameters else None
        if given is None or type(number := given.parameter_id) is not int:
            continue  # added by hand in the web UI
        try:
            arch = decode(space, given.parameters)
        except InputError as e:
            _logger.warning("trial %s is passed over: %s", job.trialJobId, e)
            continue
        trial = Trial(number, arch, space.freeze(arch), job.trialJobId, job.status)
        if trial.ended:
            # A trial that was run again has reported some of its results twice.
            reported = sorted(metrics.get(job.trialJobId, ()), key=lambda m: m.timestamp)
            by_sequence = {m.sequence: m.data for m in reported if m.type == "PERIODICAL"}
            trial.intermediates = [by_sequence[i] for i in sorted(by_sequence)]
            trial.metric = next((m.data for m in reversed(reported) if m.type == "FINAL"), None)
            if job.endTime > job.startTime > 0:
                trial.seconds = (job.endTime - job.startTime) / 1000
            with suppress(ValueError):  # what is no metric made a failed trial of it, and does again
                for value in trial.intermediates:
                    trial.model.metrics.add_intermediate(value)
                if trial.metric is not None:
                    trial.model.metrics.final = trial.metric
            trial.model.status = ModelStatus.Trained if trial.status == "SUCCEEDED" else ModelStatus.Failed
        trials.append(trial)
    return trials


def encode(arch: Mapping[str, Any]) -> Arch:
    """An arch as the web UI shows it: what JSON can say as it is, the rest in NNI's own writing."""
    return {label: _plain(value) for label, value in arch.items()}


def decode(space: ExecutableModelSpace, parameters: Any) -> Arch:
    """The arch of `space` that a trial's parameters mean.

    Whatever is more than a plain value is found among the choices of the space, and never made from the parameters.

    Raises
    ------
    InputError
        If they are no mapping of all labels to values, or a value is none of the label's choices.
    """
    if not isinstance(parameters, Mapping):
        raise InputError(f"parameters of a trial: {parameters!r:.80}: right would be {{label: value}}")
    arch = {}
    for label, mutable in space.simplify().items():
        if label not in parameters:
            raise InputError(f"parameters of a trial: {label} is missing")
        # NNI's label is a string of its own kind, which no plain file holds.
        arch[str(label)] = _chosen(label, mutable, parameters[label])
    return arch


def _chosen(label: str, mutable: Any, given: Any) -> Any:
    if isinstance(mutable, Categorical):
        for value in mutable.values:
            if _plain(value) == given:
                return value
        raise InputError(f"parameters of a trial: {label}: {given!r:.80} is none of its choices")
    if isinstance(mutable, CategoricalMultiple):
        for value in subsets(mutable):
            if _plain(value) == given:
                return value
        raise InputError(f"parameters of a trial: {label}: {given!r:.80} are none of its inputs")
    if not isinstance(given, (bool, int, float, str)):
        raise InputError(f"parameters of a trial: {label}: {given!r:.80}: right would be a plain value")
    return given


def _plain(value: Any) -> Any:
    return json.loads(nni.dump(value))
