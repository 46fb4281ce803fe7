"""Estimator servers: ``python -m experiments.costs.pool.server --port 50051 50052 --provider torch``.

A process a port, on 127.0.0.1 unless told otherwise. Whoever can reach a port can have networks built and run on this
machine; beyond it belongs TLS with certificates of the clients (``--tls-ca``), or a tunnel.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from ...run import registry
from ...run.cli import add_plugin_option, positive_float, run_script
from .protocol import DEFAULT_PORT, MAX_MESSAGE_MB

_LOOKED_EVERY_S = 0.5


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.costs.pool.server",
        description="Tell costs of archs to others, over gRPC.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=_port, nargs="+", default=[DEFAULT_PORT], help="a process each; 0 is any that is free")
    add("--host", default="127.0.0.1", help="address to listen on")
    add(
        "--provider",
        default="torch",
        help=f"{', '.join(registry.names('provider'))}, or FILE.py:NAME: "
        "a function of your own (space, imgsz, **hw_config) that gives a provider",
    )
    add(
        "--hw-config",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="what the provider is told, such as threads=2, where a client says nothing else; of a table the path is "
        "the server's alone: path=FILE, or path=[FILE,FILE] of which clients name one",
    )
    add("--longest", type=positive_float, default=600, metavar="S", help="seconds that a request may take")
    add("--patience", type=positive_float, default=30, metavar="S", help="the same, once nobody waits for it any more")
    add("--max-message-mb", type=positive_float, default=MAX_MESSAGE_MB, help="larger messages are refused")
    add_plugin_option(parser)
    group = parser.add_argument_group("TLS, by PEM files")
    group.add_argument("--tls-cert", metavar="FILE", help="certificate of this server")
    group.add_argument("--tls-key", metavar="FILE", help="its private key")
    group.add_argument("--tls-ca", metavar="FILE", help="authority that clients have to show a certificate of")
    args = parser.parse_args(argv)
    if bool(args.tls_cert) != bool(args.tls_key) or (args.tls_ca and not args.tls_cert):
        parser.error("--tls-cert and --tls-key go together, and --tls-ca with them")
    return args


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, got {value}")
    return value


def main(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from models.errors import InputError

    if args.provider == "command":
        raise InputError(
            "--provider command: clients could have any command run here; right would be FILE.py:NAME, a function of "
            "your own that gives an experiments.costs.CommandLatency"
        )
    args.told, args.fixed = _told(args.hw_config, args.provider)
    # As Ctrl-C, so that no process of a port stays behind.
    signal.signal(signal.SIGTERM, _interrupt)
    if args.host not in ("127.0.0.1", "::1", "localhost") and not args.tls_ca:
        print(f"note: everybody who reaches {args.host} can use this server (--tls-ca)", file=sys.stderr, flush=True)
    ports = [_Port(args, port) for port in args.port]
    try:
        while ports:
            wait([port.process.sentinel for port in ports])
            ports = [port for port in ports if port.process.is_alive() or port.begun_anew()]
    finally:
        for port in ports:
            port.end()
    sys.exit(2)  # each has said why


def _told(pairs: Sequence[str], provider: str) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """What a provider is told where a client says nothing else, and what clients may not change."""
    from models.documents import parse_yaml
    from models.errors import InputError

    told: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--hw-config {pair}: right would be KEY=VALUE")
        told[key] = parse_yaml(value, f"--hw-config {key}")
    if provider != "table":
        return told, {}
    # Files of this machine, which are read and written.
    paths = told.pop("path", None)
    paths = paths if isinstance(paths, list) else [paths]
    if not paths or not all(isinstance(path, str) for path in paths):
        raise InputError("--provider table: right would be --hw-config path=TABLE.json, or path=[A.json,B.json]")
    return told, {"path": paths, "make": [told.pop("make", False)]}


class _Port:
    """The process of a port.

    What a provider computes cannot be ended but with its process. So a process that computes for nobody, or was ended
    by what it computed, is followed by another one.
    """

    def __init__(self, args: argparse.Namespace, port: int) -> None:
        self.args, self.number = args, port
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._served, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_process, args=(self.args, self.number, sender))
        self.process.start()
        sender.close()

    def begun_anew(self) -> bool:
        """Whether the next process is under way; not after one that never came to serve."""
        try:
            self.number = self._served.recv()
        except EOFError:
            return False
        finally:
            self._served.close()
        self.end()
        print(
            f"port {self.number}: its process ended ({self.process.exitcode}); begun anew", file=sys.stderr, flush=True
        )
        self._start()
        return True

    def end(self) -> None:
        """Without waiting for what is computed; commands that a provider runs end too."""
        assert self.process.pid is not None
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:  # it has ended, or has not come to have a group
                self.process.terminate()
            self.process.join(1)


def _process(args: argparse.Namespace, port: int, served: Connection) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    status = run_script(lambda a: _serve(a, port, served), args)
    sys.stderr.flush()
    os._exit(status)  # without waiting for threads that compute


def _serve(args: argparse.Namespace, port: int, served: Connection) -> None:
    from ..make import make_provider
    from .service import Estimator, Identity, serve

    tls = Identity(args.tls_cert, args.tls_key, args.tls_ca) if args.tls_cert else None
    make = functools.partial(make_provider, args.provider)
    estimator = Estimator(make, args.told, args.fixed)
    _, bound = serve(estimator, port, args.host, tls, args.max_message_mb)
    print(f"serving {args.provider} on {args.host}:{bound}{' with TLS' if tls else ''}", flush=True)
    served.send(bound)
    parent = multiprocessing.parent_process()
    assert parent is not None
    why = None
    while why is None and not wait([parent.sentinel], _LOOKED_EVERY_S):  # also of a parent that was killed
        why = estimator.overdue(args.patience, args.longest)
    if why is not None:
        print(f"port {bound}: a request is given up: {why}", file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGKILL)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
