"""`RetiariiExperiment`: the calls of NNI 2 over NNI 3's `NasExperiment`."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shlex
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import requests

from models.documents import read_json
from models.errors import InputError
from models.files import atomic, write_text
from models.plain_files import unpickle
from spaces.nni_compat import (
    Experiment,
    NasExperiment,
    NasExperimentConfig,
    Strategy,
    StrategyStatus,
    credentials,
    nni,
)

from ..run.console import say
from . import web
from .config import RetiariiExeConfig, config_for
from .engine import ArchEngine, Trial, recovered

DATABASE = Path("db/nni.sqlite")  # of NNI, in an experiment's folder
_STATE = "state"  # of strategy and engine, without suffix
_PICKLE_LIMIT = 1 << 30
_TIMEOUT_S = 20
_ROOT = Path(__file__).resolve().parents[2]


class RetiariiExperiment(NasExperiment):
    """A search as an NNI experiment: a one-shot one in this process, any other by NNI's training service.

    Parameters
    ----------
    base_model, evaluator
        A model space and an evaluator.
    applied_mutators
        NNI 2's third argument; model spaces of NNI 3 hold their own choices, so it must be empty.
    strategy
        A strategy, one-shot or multi-trial.
    config
        What `run` is not told; it may be changed as ``config`` of the experiment.
    id
        Of an earlier experiment, for `resume` and `view`.

    Attributes
    ----------
    on_trial_end
        Called with every `engine.Trial` that has ended, in a thread of its own; after a resume with earlier ones again.
    """

    config: RetiariiExeConfig

    def __init__(
        self,
        base_model: Any,
        evaluator: Any,
        applied_mutators: Sequence[Any] | None = None,
        strategy: Any = None,
        config: NasExperimentConfig | None = None,
        id: str | None = None,
    ) -> None:
        if strategy is None and applied_mutators is not None and not isinstance(applied_mutators, (list, tuple)):
            applied_mutators, strategy = None, applied_mutators  # NNI 3's order: space, evaluator, strategy
        if applied_mutators:
            raise InputError("applied_mutators must be empty: choices stand in the model space")
        if not isinstance(strategy, Strategy):
            raise InputError(
                "RetiariiExperiment runs one-shot strategies, such as strategy.DARTS(), and multi-trial ones, such as "
                "strategy.Random()"
            )
        self.on_trial_end: Callable[[Trial], None] = lambda trial: None
        self._saving = threading.Lock()
        super().__init__(base_model, evaluator, strategy, config_for(strategy, config), id=id)

    def run(  # type: ignore[override]
        self,
        config: NasExperimentConfig | None = None,
        port: int = 8080,
        debug: bool = False,
        host: str = web.LOOPBACK,
    ) -> None:
        """Search.

        Parameters
        ----------
        config
            What to do, in place of the experiment's own.
        port, host
            Where the web UI listens. What it is asked goes unencrypted: on another `host` than 127.0.0.1 who can listen
            in learns its token, and can run programs here. A one-shot search runs in this process, without a web UI
            and trials.

        Raises
        ------
        KeyboardInterrupt
            On Ctrl-C or SIGTERM, once the experiment has been stopped in order; `resume` goes on with it.
        """
        self.config = config_for(self.strategy, config or self.config)
        if not self._nni_manager_required():
            try:
                self.start(port, debug)
            finally:
                self.stop()
            return
        web.check(port, host, self.config)
        self._use_training_service()
        with web.sigterm_as_interrupt():
            try:
                self._start_manager(port, host, debug)
                self._search()
            finally:
                self.stop()

    def resume(  # type: ignore[override]
        self, port: int = 8080, debug: bool = False, host: str = web.LOOPBACK
    ) -> None:
        """Go on with the interrupted multi-trial experiment of this `id`.

        Space, evaluator, strategy and working directory have to be those of then; ``max_trial_number`` may be larger.
        """
        self.config = config_for(self.strategy, self.config)
        if not has_trials(self.folder):
            raise InputError(f"experiment {self.id}: there is none in {self.folder.parent}")
        self._action = "resume"
        self.run(None, port, debug, host)

    def view(self, port: int = 8080, host: str = web.LOOPBACK) -> None:  # type: ignore[override]
        """Show the experiment of this `id` in the web UI, until Ctrl-C."""
        view_experiment(self.folder, port, host)

    @property
    def folder(self) -> Path:
        """Everything that NNI keeps of the experiment."""
        return Path(self.config.canonical_copy().experiment_working_directory) / self.id

    @property
    def trials(self) -> list[Trial]:
        """The trials of a multi-trial search, in order."""
        engine = self._engine
        return [engine.trials[n] for n in sorted(engine.trials)] if isinstance(engine, ArchEngine) else []

    def stderr_of(self, trial_id: str) -> str:
        """What a trial wrote to its standard error; asked of the running manager, which asks the trial's machine."""
        url = f"http://{web.LOOPBACK}:{self.port}/api/v1/nni/trial-file/{trial_id}/stderr"
        try:
            answer = requests.get(url, auth=credentials(url), timeout=_TIMEOUT_S)
            answer.raise_for_status()
        except requests.RequestException as e:
            return f"could not be fetched: {e}\n"
        return answer.text

    def output_of(self, trial: Trial, name: str) -> Path:
        """A file of a trial that ran on this machine, below its ``NNI_OUTPUT_DIR``."""
        return self.folder / "environments" / "local-env" / "trials" / trial.id / name

    def fetch(self, trial: Trial, name: str, path: Path) -> None:
        """Bring a file of a trial, on whichever machine that ran, to `path`; what is there already stays."""
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.config.training_service.platform == "local":
            os.replace(self.output_of(trial, name), path)
        else:
            from .machines import fetch

            fetch(self.config.training_service.machine_list, self.id, trial.id, name, path)

    def stop(self) -> None:
        if not self._nni_manager_required():
            super().stop()
            return
        # In this order, so that no result comes after what is saved.
        self._stop_nni_manager()
        if self._engine is not None:
            self._engine.shutdown()
            self.save_checkpoint()
        self._stop_logging()

    def _start_without_nni_manager(self) -> None:
        """A one-shot search has no page to look at, so it has no place in NNI's list of all experiments.

        NNI reads and writes that list anew at every start and end, a second once it is long.
        """

    def _stop_without_nni_manager(self) -> None:
        pass

    def _use_training_service(self) -> None:
        """Write space and evaluator where trials find them, and the command that runs one."""
        self._exec_model_space = self.executable_model_factory(self.config.model_format)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._action != "resume":
            shutil.rmtree(self.folder / DATABASE.parent, ignore_errors=True)  # one in which nothing had begun
        write_text(self.folder / "space.json", nni.dump(self._exec_model_space, pickle_size_limit=_PICKLE_LIMIT))
        if self.config.training_service.platform == "local":
            path = [*dict.fromkeys([str(_ROOT), *filter(None, sys.path[:1]), *_python_path()])]
            command = [sys.executable, "-m", "experiments.nni_experiment.trial", str(self.folder / "space.json")]
            self.config.trial_command = f"PYTHONPATH={shlex.quote(os.pathsep.join(path))} {shlex.join(command)}"
        else:
            from .machines import stage

            self.config.trial_code_directory = stage(self.folder / "code", _ROOT, self.folder / "space.json")
            self.config.trial_command = "python3 -m experiments.nni_experiment.trial space.json"

    def _start_manager(self, port: int, host: str, debug: bool) -> None:
        if self._action == "resume":
            self._use_command_of_now()
        if pid := web.running_manager(self.id):
            raise InputError(f"the experiment {self.id} is running already: end process {pid} first")
        self._start_logging(debug)
        # One line of ours in place of NNI's, which lists every address of the machine.
        _quiet(logging.WARNING)
        web.warn(host)
        with web.manager_environment(port, host) as address:
            try:
                self._start_nni_manager(port, debug)
            except RuntimeError as e:  # ended, or does not answer
                log = self.folder / "log" / "nnimanager.log"
                raise InputError(f"{e}; why may stand in {log}, unless the disk is full") from None
        say(f"experiment {self.id}, web UI: {address}")

    def _use_command_of_now(self) -> None:
        """NNI goes on with the commands of then, but Python, this project and its modules may have moved since."""
        config = self.config.canonical_copy().json()
        now = {name: config[name] for name in ("trialCommand", "trialCodeDirectory", "trainingService")}
        with closing(sqlite3.connect(self.folder / DATABASE)) as database, database:
            for row, params in database.execute("SELECT rowid, params FROM ExperimentProfile").fetchall():
                told = json.dumps(json.loads(params) | now)
                database.execute("UPDATE ExperimentProfile SET params = ? WHERE rowid = ?", (told, row))

    def _search(self) -> None:
        config = self.config.canonical_copy()
        trials: list[Trial] = []
        state: dict[str, Any] = {}
        if self._action == "resume":
            self._update_budget(config)
            trials = recovered(self._exec_model_space, self.list_trial_jobs(), self.get_job_metrics())
            state = _load_state(self.folder / "checkpoint")
        heard = state["engine"]["heard"] if state else []
        self._engine = ArchEngine(self, config.max_trial_number, self._trial_ended, trials, heard, self.save_checkpoint)
        self.strategy.initialize(self._exec_model_space, self._engine)
        if state:
            self.strategy.load_state_dict(state["strategy"])
        for trial in trials:
            if trial.number in heard:
                self.on_trial_end(trial)  # once more: the process may have been killed before it took note
        self._send_space_to_nni_manager()
        self.save_checkpoint()
        self.strategy.run()
        self._engine.wait_models()

    def _update_budget(self, config: Any) -> None:
        profile = self.get_experiment_profile()["params"]
        if config.max_trial_number is not None and config.max_trial_number != profile.get("maxTrialNumber"):
            self.update_max_trial_number(config.max_trial_number)
        if config.trial_concurrency != profile["trialConcurrency"]:
            self.update_trial_concurrency(config.trial_concurrency)

    def _trial_ended(self, trial: Trial) -> None:
        self.save_checkpoint()
        self.on_trial_end(trial)

    def save_checkpoint(self) -> None:
        """Save what `resume` needs of strategy and engine; a resumed strategy hears of the rest from NNI's database."""
        if not self._nni_manager_required():
            super().save_checkpoint()
        elif self.strategy._status is not StrategyStatus.EMPTY:
            with self._saving:
                is_plain = getattr(self.strategy, "plain_state", False)
                _save_state(self.state_dict(), self.folder / "checkpoint", is_plain)

    def state_dict(self) -> dict[str, Any]:
        # First the engine's, so that the strategy knows of every trial that is said to have been heard of.
        engine = self._engine.state_dict() if self._engine is not None else {}
        return {"version": self._state_dict_version, "engine": engine, "strategy": self.strategy.state_dict()}


def _save_state(state: dict[str, Any], folder: Path, is_plain: bool) -> None:
    """As JSON, or, of a strategy of NNI's own, whose state holds objects, as a pickle."""
    path, pickled = folder / f"{_STATE}.json", folder / f"{_STATE}.pickle"
    if is_plain:
        write_text(path, json.dumps(state))
        pickled.unlink(missing_ok=True)  # of an earlier version, gone on with
        return
    with atomic(pickled) as temporary:
        temporary.write_bytes(pickle.dumps(state))


def _load_state(folder: Path) -> dict[str, Any]:
    """What `_save_state` left; empty without it: the search begins anew, on trials that are known.

    Raises
    ------
    InputError
        It cannot be read, or is a pickle that names what would have to be run.
    """
    path, pickled = folder / f"{_STATE}.json", folder / f"{_STATE}.pickle"
    if not path.exists():
        return dict(unpickle(pickled.read_bytes(), pickled)) if pickled.exists() else {}
    try:
        return dict(read_json(path))
    except (ValueError, TypeError):
        raise InputError(
            f"{path}: cannot be read; right would be to remove it: known trials are not run again"
        ) from None


def has_trials(folder: Path) -> bool:
    """Whether `folder` is that of an experiment under the training service, of which NNI has noted that it began."""
    if not (folder / DATABASE).is_file():
        return False
    try:
        with closing(sqlite3.connect(folder / DATABASE)) as database:
            return bool(database.execute("SELECT count(*) FROM ExperimentProfile").fetchone()[0])
    except sqlite3.Error:  # of a manager that ended while it made it, as on a full disk
        return False


def view_experiment(folder: Path, port: int = 8080, host: str = web.LOOPBACK) -> None:
    """Show an ended experiment, given its folder, in the web UI, until Ctrl-C.

    NNI's own `nnictl view` fails for experiments of a search.
    """
    id, directory = folder.name, folder.parent
    if not has_trials(folder):
        raise InputError(f"experiment {id}: there is none in {directory}")
    web.check(port, host)
    web.warn(host)
    config = NasExperimentConfig(
        "ts", "simplified", "local", trial_concurrency=1, experiment_working_directory=str(directory)
    )
    viewed = Experiment(config, id)
    viewed._action = "view"
    _quiet(logging.WARNING)
    with web.sigterm_as_interrupt():
        try:
            with web.manager_environment(port, host) as address:
                viewed._start_nni_manager(port, False)
            say(f"experiment {id}, web UI: {address} (Ctrl-C ends it)")
            while viewed._proc is not None and viewed._proc.poll() is None:  # type: ignore[union-attr]
                time.sleep(0.2)
        except KeyboardInterrupt:
            pass
        finally:
            viewed._stop_nni_manager()


def _python_path() -> list[str]:
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


def _quiet(level: int) -> None:
    for name in ("nni.experiment", "nni.nas.experiment", "nni.runtime"):
        logging.getLogger(name).setLevel(max(level, logging.getLogger(name).level))
