"""The service of one port: any provider behind the protocol."""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from models.documents import parse_yaml
from models.errors import InputError
from spaces.space import Space

from ..base import CostProvider
from .protocol import DESCRIBE, ESTIMATE, MAX_MESSAGE_MB, SERVICE, channel_options, encode, first_line, read_pem

Make = Callable[[Space, int, dict[str, Any]], CostProvider]
"""Space, side of the images and `hw_config` to a provider."""

# Providers of so many spaces and settings are kept, and so many requests wait.
_PROVIDERS, _WAITING = 8, 16


class Estimator:
    """Answers requests, one after the other: what is measured is not to be disturbed.

    Parameters
    ----------
    make
        Makes the provider that a request means.
    hw_config
        What it is told where a request says nothing else.
    """

    def __init__(self, make: Make, hw_config: Mapping[str, Any] | None = None) -> None:
        self.hw_config = dict(hw_config or {})
        self._turn = threading.Lock()

        def provider(space: str, imgsz: int, told: str) -> tuple[Space, CostProvider]:
            found = Space(_yaml(space))
            return found, make(found, imgsz, json.loads(told))

        self._provider = functools.lru_cache(_PROVIDERS)(provider)

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the provider is."""
        _, provider = self._asked(request)
        kind = f"{type(provider).__module__}.{type(provider).__qualname__}"
        return {"provider": kind, "name": provider.name, "unit": provider.unit, "settings": _beside(provider)}

    def estimate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Costs of archs."""
        archs = request.get("archs")
        if not isinstance(archs, list):
            raise InputError("archs: right would be a list of {label: value}")
        space, provider = self._asked(request)
        costs = [float(c) for c in provider([space.complete(arch) for arch in archs])]
        if len(costs) != len(archs) or not all(map(math.isfinite, costs)):
            raise ValueError(f"{provider.name} of {len(archs)} archs is {costs[:4]} …, {len(costs)} figures")
        return {"costs": costs}

    def _asked(self, request: dict[str, Any]) -> tuple[Space, CostProvider]:
        imgsz, told = request.get("imgsz"), request.get("hw_config") or {}
        if type(imgsz) is not int or imgsz < 1 or not isinstance(told, dict):
            raise InputError("right would be imgsz, a positive integer, and hw_config, a mapping")
        return self._provider(str(request.get("space")), imgsz, json.dumps({**self.hw_config, **told}, sort_keys=True))

    def answer(self, method: Callable[[dict[str, Any]], dict[str, Any]], body: bytes, context: Any) -> bytes:
        """The answer to one request, or its refusal."""
        try:
            request = json.loads(body)
            if not isinstance(request, dict):
                raise InputError("a request is a JSON object")
            with self._turn:
                if not context.is_active():
                    return b""  # nobody waits for it any more
                return encode(method(request))
        except (InputError, UnicodeDecodeError, json.JSONDecodeError) as e:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, first_line(e))
        except Exception as e:
            context.abort(grpc.StatusCode.INTERNAL, f"{type(e).__name__}: {first_line(e)}")
        raise AssertionError("abort raises")

    def handler(self) -> Any:
        """As gRPC takes it."""
        methods = {
            name: grpc.unary_unary_rpc_method_handler(functools.partial(self.answer, method))
            for name, method in ((DESCRIBE, self.describe), (ESTIMATE, self.estimate))
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)


@dataclass(frozen=True)
class Identity:
    """PEM files of a server's TLS: its certificate and key, and the authority that clients have to be of, if any."""

    cert: str
    key: str
    ca: str | None = None

    def credentials(self) -> grpc.ServerCredentials:
        pair = (read_pem(self.key), read_pem(self.cert))
        ca = None if self.ca is None else read_pem(self.ca)
        return grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)


def serve(
    estimator: Estimator,
    port: int = 0,
    host: str = "127.0.0.1",
    tls: Identity | None = None,
    max_message_mb: float = MAX_MESSAGE_MB,
) -> tuple[grpc.Server, int]:
    """Start to answer on a port; 0 is any that is free.

    Returns
    -------
    server, port

    Raises
    ------
    InputError
        If the port is taken, or a file of the TLS is missing.
    """
    server = grpc.server(ThreadPoolExecutor(_WAITING), options=channel_options(max_message_mb))
    server.add_generic_rpc_handlers((estimator.handler(),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise InputError(f"{address} cannot be listened on: the port is taken, or the host is not of this machine")
    server.start()
    return server, bound


def _yaml(text: str) -> Any:
    return parse_yaml(text, "space")


def _beside(provider: CostProvider) -> dict[str, Any]:
    """Settings without the space, which the client knows."""
    return {k: v for k, v in provider.settings.items() if k != "space"}
