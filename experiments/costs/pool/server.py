"""Estimator servers: ``python -m experiments.costs.pool.server --port 50051 50052 --provider torch``.

A process a port, on 127.0.0.1 unless told otherwise. Whoever can reach a port can have networks built and run on this
machine; beyond it belongs TLS with certificates of the clients (``--tls-ca``), or a tunnel.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
from multiprocessing.connection import wait
from typing import Any, NoReturn

from ...run import registry
from ...run.cli import add_plugin_option, positive_float, run_script
from .protocol import DEFAULT_PORT, MAX_MESSAGE_MB


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
        help="what the provider is told, such as threads=2, where a client says nothing else",
    )
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

    # As Ctrl-C, so that no process of a port stays behind.
    signal.signal(signal.SIGTERM, _interrupt)
    if args.host not in ("127.0.0.1", "::1", "localhost") and not args.tls_ca:
        print(f"note: everybody who reaches {args.host} can use this server (--tls-ca)", file=sys.stderr, flush=True)
    if len(args.port) == 1:
        _serve(args, args.port[0])
        return
    context = multiprocessing.get_context("spawn")
    processes = [(port, context.Process(target=_process, args=(args, port))) for port in args.port]
    for _, process in processes:
        process.start()
    try:
        while processes:
            wait([process.sentinel for _, process in processes])
            for port, process in processes:
                if not process.is_alive():
                    print(f"port {port}: its process ended ({process.exitcode})", file=sys.stderr, flush=True)
            processes = [(port, process) for port, process in processes if process.is_alive()]
    finally:
        for _, process in processes:
            process.terminate()
        for _, process in processes:
            process.join()
    raise InputError("no port is served any more")


def _process(args: argparse.Namespace, port: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    sys.exit(run_script(lambda a: _serve(a, port), args))


def _serve(args: argparse.Namespace, port: int) -> None:
    from models.documents import parse_yaml
    from models.errors import InputError

    from ..make import make_provider
    from .service import Estimator, Identity, serve

    if args.provider == "command":
        raise InputError(
            "--provider command: clients could have any command run here; right would be FILE.py:NAME, a function of "
            "your own that gives an experiments.costs.CommandLatency"
        )
    told: dict[str, Any] = {}
    for pair in args.hw_config:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--hw-config {pair}: right would be KEY=VALUE")
        told[key] = parse_yaml(value, f"--hw-config {pair}")
    tls = Identity(args.tls_cert, args.tls_key, args.tls_ca) if args.tls_cert else None
    estimator = Estimator(lambda space, imgsz, hw: make_provider(args.provider, space, imgsz, hw), told)
    server, bound = serve(estimator, port, args.host, tls, args.max_message_mb)
    print(f"serving {args.provider} on {args.host}:{bound}{' with TLS' if tls else ''}", flush=True)
    parent = multiprocessing.parent_process()
    if parent is None:
        server.wait_for_termination()
    else:
        wait([parent.sentinel])  # also of a parent that was killed
    server.stop(None)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run_script(main, parse()))
