"""The service of one port: any provider behind the protocol."""

from __future__ import annotations

import functools
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from models.errors import InputError
from spaces.space import Space

from ..base import CostProvider
from .bounds import read_archs, read_imgsz, read_request, read_space, read_told
from .protocol import DESCRIBE, ESTIMATE, MAX_MESSAGE_MB, SERVICE, channel_options, encode, first_line, read_pem

Make = Callable[[Space, int, dict[str, Any]], CostProvider]
"""Space, side of the images and `hw_config` to a provider."""

# Providers of so many spaces and settings are kept; so many requests wait, and more are refused.
_PROVIDERS, _WAITING, _MOST_WAITING = 8, 16, 64
# How often one that waits looks whether anybody still waits for it.
_LOOKED_EVERY_S = 0.2


class Estimator:
    """Answers requests, one after the other: what is measured is not to be disturbed.

    Parameters
    ----------
    make
        Makes the provider that a request means.
    hw_config
        What it is told where a request says nothing else.
    fixed
        What of `hw_config` is the server's alone: names to the values that a request may say, of which the first is
        taken where it says nothing.
    """

    def __init__(
        self,
        make: Make,
        hw_config: Mapping[str, Any] | None = None,
        fixed: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self.hw_config, self.fixed = dict(hw_config or {}), dict(fixed or {})
        self._turn = threading.Lock()
        self._work: _Work | None = None

        def provider(space: str, imgsz: int, told: str) -> tuple[Space, CostProvider]:
            found = read_space(space)
            return found, make(found, imgsz, json.loads(told))

        self._provider = functools.lru_cache(_PROVIDERS)(provider)

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the provider is."""
        _, provider = self._asked(request)
        kind = f"{type(provider).__module__}.{type(provider).__qualname__}"
        return {"provider": kind, "name": provider.name, "unit": provider.unit, "settings": _beside(provider)}

    def estimate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Costs of archs."""
        archs = read_archs(request.get("archs"))
        space, provider = self._asked(request)
        costs = [float(c) for c in provider([space.complete(arch) for arch in archs])]
        if len(costs) != len(archs) or not all(map(math.isfinite, costs)):
            raise ValueError(f"{provider.name} of {len(archs)} archs is {costs[:4]} …, {len(costs)} figures")
        return {"costs": costs}

    def _asked(self, request: dict[str, Any]) -> tuple[Space, CostProvider]:
        imgsz, told = read_imgsz(request.get("imgsz")), read_told(request.get("hw_config"))
        for name, values in self.fixed.items():
            if told.setdefault(name, values[0]) not in values:
                given = ", ".join(map(str, values))
                raise InputError(f"hw_config: {name}: {told[name]!r:.80}: this server was started with {given}")
        if not isinstance(space := request.get("space"), str):
            raise InputError("space: right would be the text of a YAML")
        return self._provider(space, imgsz, json.dumps({**self.hw_config, **told}, sort_keys=True))

    def answer(self, method: Callable[[dict[str, Any]], dict[str, Any]], body: bytes, context: Any) -> bytes:
        """The answer to one request, or its refusal."""
        try:
            request = read_request(body)
            while not self._turn.acquire(timeout=_LOOKED_EVERY_S):
                if not context.is_active():
                    return b""  # nobody waits for it any more
            try:
                if not context.is_active():
                    return b""
                self._work = _Work(context)
                return encode(method(request))
            finally:
                self._work = None
                self._turn.release()
        except InputError as e:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, first_line(e))
        except Exception as e:
            context.abort(grpc.StatusCode.INTERNAL, f"{type(e).__name__}: {first_line(e)}")
        raise AssertionError("abort raises")

    def overdue(self, patience: float, longest: float) -> str | None:
        """Why what is computed should end; None if it should not.

        It takes longer than `longest` seconds, or nobody has waited for it for `patience` seconds. A thread cannot be
        ended, so that is for the process to do.
        """
        work, now = self._work, time.monotonic()
        if work is None:
            return None
        if work.context.is_active():
            return f"it took more than {longest:g} s" if now - work.begun > longest else None
        work.left = work.left or now
        return f"nobody has waited for it for {patience:g} s" if now - work.left > patience else None

    def handler(self) -> Any:
        """As gRPC takes it."""
        methods = {
            name: grpc.unary_unary_rpc_method_handler(functools.partial(self.answer, method))
            for name, method in ((DESCRIBE, self.describe), (ESTIMATE, self.estimate))
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)


class _Work:
    """A request that is computed: since when, and since when for nobody."""

    def __init__(self, context: Any) -> None:
        self.context, self.begun = context, time.monotonic()
        self.left: float | None = None


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
    server = grpc.server(
        ThreadPoolExecutor(_WAITING),
        options=channel_options(max_message_mb),
        maximum_concurrent_rpcs=_MOST_WAITING,
    )
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


def _beside(provider: CostProvider) -> dict[str, Any]:
    """Settings without the space, which the client knows."""
    return {k: v for k, v in provider.settings.items() if k != "space"}
