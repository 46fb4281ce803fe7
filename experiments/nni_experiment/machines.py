"""Trials on other machines: NNI's remote training service, which reaches them by SSH."""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from models.documents import exists, read_yaml
from models.errors import InputError
from models.files import atomic
from spaces.nni_compat import RemoteConfig, config_utils

from .config import RetiariiExeConfig

_SOURCES = (".py", ".yaml", ".yml", ".js")
_MOST_SOURCES = 2000  # NNI's own limit
_NO_SOURCES = ("runs", "datasets", "node_modules", "__pycache__")


def read_config_file(path: str) -> RetiariiExeConfig:
    """The machines of a YAML in NNI's format, see docs/multi-trial.md.

    Raises
    ------
    InputError
        If it is none, or asks for what cannot be done.
    """
    if not exists(path):
        raise InputError(f"--config {path}: no such file")
    try:
        read_yaml(path)  # NNI's own reader has no end
        config = RetiariiExeConfig.load(path)
    except Exception as e:  # of NNI: AttributeError, TypeError, ValueError, YAMLError, AssertionError
        raise InputError(f"--config {path}: {str(e).splitlines()[0] if str(e) else type(e).__name__}") from None
    finally:
        config_utils.unset_base_path()  # after an error NNI forgets to, and reads no other file
    service = config.training_service
    if not isinstance(service, RemoteConfig):
        raise InputError(f"--config {path}: right would be trainingService: {{platform: remote, machineList: [...]}}")
    machines, texts = service.machine_list, ("host", "user", "ssh_key_file")
    if not isinstance(machines, list) or not all(isinstance(getattr(m, n, None), str) for m in machines for n in texts):
        raise InputError(f"--config {path}: machineList: right would be a list of {{host: …, user: …, sshKeyFile: …}}")
    for machine in machines:
        if machine.password is not None:
            raise InputError(f"--config {path}: {machine.host}: give an sshKeyFile; a password stands in the web UI")
        machine.ssh_key_file = config_utils.resolve_path(machine.ssh_key_file, machine._base_path)
        if not Path(machine.ssh_key_file).is_file():
            raise InputError(f"--config {path}: {machine.host}: sshKeyFile {machine.ssh_key_file}: no such file")
    if config.nni_manager_ip is None:
        raise InputError(
            f"--config {path}: nniManagerIp is missing: the address at which the machines reach this one, or 127.0.0.1 "
            "where an SSH tunnel leads back here"
        )
    return config


def check_host(config: RetiariiExeConfig, host: str) -> None:
    """Raise `InputError` where the machines could not reach a web manager that listens on `host`."""
    ip = config.nni_manager_ip
    try:
        ipaddress.ip_address(ip or host)
    except ValueError:
        raise InputError(f"nniManagerIp {ip}: right would be an IP address") from None
    if ip is not None and not ipaddress.ip_address(ip).is_loopback and ipaddress.ip_address(host).is_loopback:
        raise InputError(
            f"the machines are told to reach this one at {ip}, where nothing listens: right would be --host {ip}, "
            "or nniManagerIp: 127.0.0.1 and an SSH tunnel"
        )


def stage(folder: Path, root: Path, space_file: Path) -> Path:
    """Copy what a trial on another machine needs into `folder`: the sources of `root` and the current folder."""
    shutil.rmtree(folder, ignore_errors=True)
    rooms = [root / name for name in ("models", "data", "spaces", "optimizer", "experiments")]
    for base, start in [(root, room) for room in rooms] + [(Path.cwd(), Path.cwd())]:
        for source in _sources(start):
            target = folder / source.relative_to(base)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    if sum(path.is_file() for path in folder.rglob("*")) >= _MOST_SOURCES:
        raise InputError(f"{Path.cwd()}: more than {_MOST_SOURCES} source files to send; start in a smaller folder")
    shutil.copyfile(space_file, folder / space_file.name)
    return folder


def _sources(start: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(start):
        here = Path(where)
        folders[:] = [f for f in folders if f[0] != "." and f not in _NO_SOURCES]
        folders[:] = [f for f in folders if not (here / f / "pyvenv.cfg").exists()]
        yield from (here / f for f in files if f.endswith(_SOURCES) and f[0] != ".")


def fetch(machines: Sequence[Any], experiment: str, trial: str, name: str, path: Path) -> None:
    """Bring a file of a trial to `path`, from whichever machine has it.

    Raises
    ------
    InputError
        If none has it; says what SSH said.
    """
    parts = [shlex.quote(part) for part in (experiment, trial, name)]
    remote = "cat ~/nni-experiments/{}/environments/*/trials/{}/{}".format(*parts)
    said = []
    for machine in machines:
        command = ["ssh", "-p", str(machine.port), "-i", machine.ssh_key_file]
        # NNI's own connections check no host keys; here at least a changed one is noticed.
        known = f'UserKnownHostsFile="{path.parent / "known_hosts"}" ~/.ssh/known_hosts'
        for option in ("BatchMode=yes", "StrictHostKeyChecking=accept-new", known):
            command += ["-o", option]
        done = subprocess.run([*command, "--", f"{machine.user}@{machine.host}", remote], capture_output=True)
        if done.returncode == 0:
            with atomic(path) as temporary:
                temporary.write_bytes(done.stdout)
            return
        said.append(f"{machine.host}: {done.stderr.decode(errors='replace').strip() or done.returncode}")
    raise InputError(f"{name} of trial {trial} could not be fetched: {'; '.join(said)}")
