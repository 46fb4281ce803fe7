"""NNI's web manager: a Node process that starts trials and shows them in the browser.

Whoever may talk to it can run programs here. So every start has a random token of its own, which stands nowhere but in
the memory of the processes that need it and in the address that is printed; `web_guard.js` asks for it.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from rich.console import Console

from models.errors import InputError

LOOPBACK = "127.0.0.1"
_PATIENCE_S = 15
_SCRIPT = Path(__file__).with_name("web_manager.js")


def check(port: int, host: str = LOOPBACK, config: Any = None) -> None:
    """Raise `InputError` where the web UI could not start: NNI's Node part is missing, or the address is no good.

    With other machines, given the experiment's configuration, also where these could not reach it.
    """
    _check_manager()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InputError(f"--host {host}: right would be an IP address, such as {LOOPBACK} or 0.0.0.0") from None
    _check_port(port, host)
    if config is not None and config.training_service.platform == "remote":
        from .machines import check_host

        check_host(config, host)
        _check_port(port + 1, LOOPBACK)  # NNI's own, for commands to the machines


def warn(host: str) -> None:
    """Warn of every address but the loopback's."""
    if host != LOOPBACK:
        where = "every interface of this machine" if ipaddress.ip_address(host).is_unspecified else host
        Console(stderr=True).print(
            f"warning: the web UI listens on {where}, unencrypted. Who learns its address with the token can run "
            "programs here.",
            style="yellow",
            soft_wrap=True,
        )


def _check_manager() -> None:
    try:
        import nni_node
    except ImportError:
        found = None
    else:
        found = Path(next(iter(nni_node.__path__))) / "node"
    if found is None or not os.access(found, os.X_OK):
        raise InputError(
            "NNI's web manager is missing (package nni_node, file node): right would be an installed wheel, "
            "pip install --force-reinstall --no-deps nni==3.0"
        )


def _check_port(port: int, host: str) -> None:
    if not 0 < port < 65536:
        raise InputError(f"--port {port}: right would be 1 to 65535")
    for address in dict.fromkeys((LOOPBACK, host)):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except PermissionError:
                raise InputError(f"--port {port}: ports below 1024 are root's; right would be 8080") from None
            except OSError as e:
                if address != LOOPBACK and not _is_own(address):
                    raise InputError(f"--host {address}: not an address of this machine ({e.strerror})") from None
                raise InputError(f"--port {port} is taken{_holder(port)}; choose another") from None


def running_manager(experiment: str) -> int | None:
    """Process that manages an experiment, by its id; one whose experiment was killed is given the time to end."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(part.endswith("main.js") for part in command) and _experiment_of(command) == experiment:
            found.append(process)
    _, alive = psutil.wait_procs(found, timeout=_PATIENCE_S)
    return alive[0].pid if alive else None


@contextmanager
def manager_environment(port: int, host: str = LOOPBACK) -> Iterator[str]:
    """A manager started within listens on `host` only, answers who has its token, and ends with this process.

    Yields
    ------
    str
        The address that opens the web UI. Its token is new at every start: a page that is still open is opened anew.
    """
    from spaces.nni_compat import tokens  # with torch

    tokens[port] = secrets.token_urlsafe(32)
    # Node's own syntax for what has blanks or quotes in it.
    path = str(_SCRIPT).replace("\\", "\\\\").replace('"', '\\"')
    given = os.environ.get("NODE_OPTIONS")
    new = {
        "NODE_OPTIONS": f'{given + " " if given else ""}--require "{path}"',
        "NAS_WEB_HOST": host,
        "NAS_WEB_TOKEN": tokens[port],
    }
    old = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield f"http://{LOOPBACK}:{port}/?token={tokens[port]}"
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Within, SIGTERM ends things in order, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _is_own(address: str) -> bool:
    if ipaddress.ip_address(address).is_unspecified:
        return True
    return any(a.address == address for interface in psutil.net_if_addrs().values() for a in interface)


def _experiment_of(command: list[str]) -> str | None:
    if "--experiment-id" in command[:-1]:
        return command[command.index("--experiment-id") + 1]
    return None


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                command = psutil.Process(connection.pid).cmdline()
                experiment = _experiment_of(command)
                what = f"the experiment {experiment}" if experiment else Path(command[0]).name if command else "another"
                return f" by {what} (process {connection.pid})"
    except psutil.Error:
        pass
    return ""
