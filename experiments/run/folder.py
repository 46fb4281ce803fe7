"""The folder that a run leaves behind, ``runs/<script>/<name>/``."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from models.documents import is_file, read_json, read_yaml
from models.errors import InputError
from models.files import FORMAT, check_format, write_text
from models.trust import Note, noted, own_note, seal

from .lock import locked
from .recorded import from_recorded

_GONE_ON_WITH = ("last.ckpt", "retrained.json", "experiment.json")
# Options whose files run code: modules, commands that tell a latency, machines that trials are sent to.
CODE = ("plugin", "costs", "config")
_RUN = "NAS_TRAIN_RUN"  # tells the other processes of a distributed training the run's folder
# What `atomic` calls its files until they are whole.
_TEMPORARY = re.compile(r"\.[^.]+\.[^.]+\.(ckpt|pt|png|json|yaml|csv|txt|html|pickle)")
_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "nni", "numpy")


class RunFolder:
    """A run's folder; every file in it is written whole or not at all.

    Attributes
    ----------
    path
        ``project/name``, or name2, name3, … where that is taken and `exist_ok` is not set. Made by `claim`, or by the
        first file that is written.
    note
        Of an existing run that this user began at this place: its files that run code, see `models.trust`.
    """

    note: Note | None = None

    def __init__(self, project: str | Path, name: str, exist_ok: bool = False) -> None:
        self._first, self._is_new, self._made = Path(project) / name, not exist_ok, list[Path]()
        self.path = next((p for p in self._names() if not p.exists()), self._first) if self._is_new else self._first

    def _names(self) -> Iterator[Path]:
        yield self._first
        yield from (self._first.with_name(f"{self._first.name}{number}") for number in itertools.count(2))

    def claim(self) -> None:
        """Make the folder; a new one under the first name that nobody had before, or at the same time."""
        if self._made:
            return
        missing = [p for p in self._first.parents if not p.exists()]
        self._first.parent.mkdir(parents=True, exist_ok=True)
        for path in self._names():
            try:
                path.mkdir()
                missing.insert(0, path)
            except FileExistsError:
                if self._is_new:
                    continue
            self.path, self._made = path, missing
            return

    @contextmanager
    def held(self, needs: str | None = None) -> Iterator[RunFolder]:
        """Within, the folder is there, and this process' alone; what a killed one left half-written is gone.

        At the end a folder that was made for this and has nothing in it goes again, so that bad input leaves none.

        Parameters
        ----------
        needs
            A file without which a new folder is none, whatever else is in it.

        Raises
        ------
        InputError
            Another process works in it.
        """
        if not is_first_process():  # one that helps another one, which holds it
            yield self
            return
        self.claim()
        try:
            with locked(self.path):
                self._sweep()
                yield self
        finally:
            is_begun = needs is None or (self.path / needs).exists()
            if not is_begun and self._is_new and self.path in self._made:
                shutil.rmtree(self.path, ignore_errors=True)
            for path in self._made:
                with suppress(OSError):  # not empty
                    path.rmdir()
            self._made = []

    def _sweep(self) -> None:
        for folder, _, names in os.walk(self.path):
            for name in filter(_TEMPORARY.fullmatch, names):
                (Path(folder) / name).unlink(missing_ok=True)

    @classmethod
    def resume(cls, path: str | Path) -> tuple[RunFolder, dict[str, Any]]:
        """An existing run's folder, given it or a file in it, and the options that it was started with."""
        from models.schemas import RunConfig  # loads pydantic, which --help need not

        path = Path(path).expanduser()
        if path.is_file():  # RUN/last.ckpt
            path = path.parent
        config = path / "config.yaml"
        if not is_file(config):
            raise InputError(f"{path}: not the folder of a run (it has no config.yaml)")
        content = read_yaml(config)
        if not isinstance(content, dict) or not isinstance(content.get("options"), dict):
            raise InputError(f"{path}: not the folder of a run (its config.yaml has no options)")
        check_format(content, config)
        RunConfig.of(content, config)
        run = cls(path.parent, path.name, exist_ok=True)
        run.note = own_note(path, content)
        return run, from_recorded(content["options"], content.get("folder"))

    def write_config(self, options: Mapping[str, Any], anew: bool = False) -> None:
        """``config.yaml``: options after defaults, versions, git commit, command line.

        Parameters
        ----------
        anew
            Remove what an earlier run in this folder would be gone on with.
        """
        for name in _GONE_ON_WITH if anew else ():
            (self.path / name).unlink(missing_ok=True)
        content = {
            "format": FORMAT,
            "options": dict(options),
            "folder": os.getcwd(),  # where paths among the options begin
            "command": sys.argv,
            "python": sys.version.split()[0],
            "versions": {p: version for p in _PACKAGES if (version := _version(p)) is not None},
            "git_commit": _git_commit(),
            "code": (note := noted(code_of(options))),
            "seal": seal(self.path, note),
        }
        write_text(self.path / "config.yaml", yaml.safe_dump(content, sort_keys=False))

    def read_json(self, name: str) -> Any:
        """The content of one of the run's JSON files; `InputError` if it is none."""
        return read_json(self.path / name)

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")


def code_of(options: Mapping[str, Any], of: Sequence[str] = CODE) -> list[str]:
    """The files that a run's options name and that run code."""
    found: list[str] = []
    for name in of:
        value = options.get(name)
        found += [value] if isinstance(value, str) else [v for v in value or () if isinstance(v, str)]
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # plain detectors are trained and used without NNI
        return None


def is_first_process() -> bool:
    """Whether this is not a process that Lightning started to help the one at the keyboard."""
    # LOCAL_RANK and NODE_RANK are Lightning's and torchrun's, RANK is torchrun's, SLURM_PROCID is SLURM's.
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def new_run(project: str, name: str, exist_ok: bool) -> RunFolder:
    """A new run's folder, the same in all processes of a distributed training."""
    if not is_first_process() and _RUN in os.environ:
        path = Path(os.environ[_RUN])
        return RunFolder(path.parent, path.name, exist_ok=True)
    if not exist_ok and int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1:
        raise InputError(
            f"--name {name}: processes that torchrun or SLURM starts have to agree on a folder; right would be "
            "--exist-ok, which gives them this one"
        )
    run = RunFolder(project, name, exist_ok)
    run.claim()
    os.environ[_RUN] = str(run.path)
    return run


def _git_commit() -> str | None:
    try:
        root = Path(__file__).resolve().parents[2]
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
