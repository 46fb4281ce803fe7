"""Costs by a pool of estimator servers."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from models.documents import parse_json
from models.errors import InputError
from models.files import dump_model_yaml
from spaces.space import Arch, Space

from ..cache import canonical
from .protocol import DESCRIBE, ESTIMATE, MAX_MESSAGE_MB, SERVICE, channel_options, encode, read_pem

# Each server is sent about so many parts of a batch, so that a slow one does not hold up the others for long.
_PARTS = 4
# So often in a row a server may fail in one call before it is left aside for the rest of it.
_ATTEMPTS = 2


@dataclass(frozen=True)
class Trust:
    """PEM files of a client's TLS: the servers' authority, and its own certificate and key if they ask for one."""

    ca: str
    cert: str | None = None
    key: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        key, cert = (None if path is None else read_pem(path) for path in (self.key, self.cert))
        return grpc.ssl_channel_credentials(read_pem(self.ca), key, cert)


class Remote:
    """A provider on other machines. Requests are spread over the servers of a pool.

    A request that fails or times out is sent to another server; one that fails twice in a row, or once in time, is left
    aside for the rest of the call.

    Parameters
    ----------
    servers
        ``[{"host": "127.0.0.1", "ports": [50051, 50052]}, …]``.
    hw_config
        Passed through to the provider.
    timeout
        Seconds for an answer; also for the first one, with which a provider gets ready.
    connect_timeout
        Seconds for a server to be reached.
    batch
        Archs a request at most.
    tls
        Talk TLS.
    max_message_mb
        Larger messages are refused.

    Attributes
    ----------
    name, unit, settings
        As the servers say; all must say the same.

    Raises
    ------
    InputError
        If no server is left, naming them all; if they differ; or if a server refuses a request as bad input.
    """

    def __init__(
        self,
        servers: Sequence[Mapping[str, Any]],
        space: Space,
        imgsz: int,
        hw_config: Mapping[str, Any] | None = None,
        *,
        timeout: float = 60.0,
        connect_timeout: float = 5.0,
        batch: int = 64,
        tls: Trust | None = None,
        max_message_mb: float = MAX_MESSAGE_MB,
    ) -> None:
        asked = {"space": dump_model_yaml(space.config.raw), "imgsz": imgsz, "hw_config": dict(hw_config or {})}
        options = channel_options(max_message_mb)
        credentials = None if tls is None else tls.credentials()
        self._servers = [
            _Server(address, asked, options, credentials, timeout, connect_timeout) for address in addresses(servers)
        ]
        self._batch, self._lock = batch, threading.Lock()
        self._described: dict[str, Any] = {}
        self._described_by = ""
        _Work(self, [], 1).run()
        self.name: str = self._described["name"]
        self.unit: str = self._described["unit"]
        self.settings: dict[str, Any] = {
            "provider": self._described["provider"],
            **self._described["settings"],
            "space": space.config.raw,
            "imgsz": imgsz,
            "hw_config": asked["hw_config"],
        }

    def __call__(self, archs: Sequence[Arch]) -> list[float]:
        """The cost of each arch, in their order."""
        if not archs:
            return []
        size = math.ceil(len(archs) / (_PARTS * len(self._servers)))
        work = _Work(self, archs, min(max(size, 1), self._batch))
        work.run()
        return work.costs

    def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            server.channel.close()

    def agree(self, server: _Server, described: dict[str, Any]) -> None:
        """Remember what the first server says, and see that the others say the same."""
        with self._lock:
            if not self._described:
                self._described, self._described_by = described, server.address
                return
        for key in ("provider", "name", "unit"):
            if described.get(key) != self._described[key]:
                raise self._differ(server, key, described.get(key), self._described[key])
        theirs, ours = described.get("settings", {}), self._described["settings"]
        for key in {**ours, **theirs}:
            if canonical(theirs.get(key)) != canonical(ours.get(key)):
                raise self._differ(server, key, theirs.get(key), ours.get(key))

    def _differ(self, server: _Server, key: str, theirs: Any, ours: Any) -> InputError:
        return InputError(
            f"estimator {server.address} has {key} {theirs!r}, but {self._described_by} has {ours!r}: "
            "servers of one pool must be alike"
        )


def addresses(servers: Sequence[Mapping[str, Any]]) -> list[str]:
    """``host:port`` of every server.

    Raises
    ------
    InputError
        Says what the list should look like.
    """
    right = "right would be [{host: 127.0.0.1, ports: [50051, 50052]}]"
    found = []
    for entry in servers if isinstance(servers, Sequence) and not isinstance(servers, str) else [servers]:
        if not isinstance(entry, Mapping) or entry.keys() != {"host", "ports"} or not isinstance(entry["ports"], list):
            raise InputError(f"servers: {entry!r}: {right}")
        for port in entry["ports"]:
            if type(port) is not int or not 0 < port < 65536:
                raise InputError(f"servers: {entry['host']}: port {port!r}: right would be 1 to 65535")
            host = f"[{entry['host']}]" if ":" in str(entry["host"]) else entry["host"]
            found.append(f"{host}:{port}")
    if not found:
        raise InputError(f"servers: there are none; {right}")
    return list(dict.fromkeys(found))


class _LostError(Exception):
    """A server did not answer, and why; `final` if it is not to be asked again in this call."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class _Server:
    """One server: how to reach it, ask it, and what its failures mean."""

    def __init__(
        self,
        address: str,
        asked: dict[str, Any],
        options: list[tuple[str, int]],
        credentials: grpc.ChannelCredentials | None,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self.address, self.asked, self.timeout, self.connect_timeout = address, asked, timeout, connect_timeout
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options)
        self._methods = {name: self.channel.unary_unary(f"/{SERVICE}/{name}") for name in (DESCRIBE, ESTIMATE)}
        self.agreed = False

    def connect(self, work: _Work) -> None:
        """Reach it, and see that it tells the same as the others."""
        ready = work.watched(grpc.channel_ready_future(self.channel))
        try:
            ready.result(self.connect_timeout)
        except grpc.FutureTimeoutError:
            raise _LostError("cannot be reached", final=True) from None
        if not self.agreed:
            described = self._ask(work, DESCRIBE, self.asked)
            texts = all(isinstance(described.get(name), str) for name in ("provider", "name", "unit"))
            if not texts or not isinstance(described.get("settings"), dict):
                raise _LostError("does not say what it tells", final=True)
            work.pool.agree(self, described)
            self.agreed = True

    def estimate(self, work: _Work, archs: Sequence[Arch]) -> list[float]:
        """Costs of archs."""
        answer = self._ask(work, ESTIMATE, {**self.asked, "archs": list(archs)})
        costs = answer.get("costs")
        if (
            not isinstance(costs, list)
            or len(costs) != len(archs)
            or not all(type(c) in (int, float) and math.isfinite(c) for c in costs)
        ):
            raise _LostError(f"sent {str(costs)[:40]} for {len(archs)} archs", final=True)
        return [float(c) for c in costs]

    def _ask(self, work: _Work, method: str, request: dict[str, Any]) -> dict[str, Any]:
        call = work.watched(self._methods[method].future(encode(request), timeout=self.timeout))
        try:
            answer = parse_json(call.result(), "its answer")
        except grpc.RpcError as e:
            raise self._meaning(e) from None  # type: ignore[arg-type]
        except InputError:
            answer = None
        if not isinstance(answer, dict):
            raise _LostError("does not answer in JSON", final=True)
        return answer

    def _meaning(self, error: grpc.Call) -> Exception:
        code, details = error.code(), str(error.details())
        match code:
            case grpc.StatusCode.INVALID_ARGUMENT:
                return InputError(f"estimator {self.address}: {details}")
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" not in details:
                return _LostError("has too many requests to answer")
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return InputError(
                    f"estimator {self.address}: {details}; a smaller batch or a higher limit would be right"
                )
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return _LostError(f"no answer within {self.timeout:g} s", final=True)
            case grpc.StatusCode.UNIMPLEMENTED:
                return _LostError("is no estimator server", final=True)
            case grpc.StatusCode.UNAVAILABLE:
                return _LostError("the connection broke")
        return _LostError(details or code.name)


class _Work:
    """One batch, in parts that wait until a server takes them. Without archs it sees which servers there are.

    Attributes
    ----------
    costs
        By the place of the arch.
    """

    def __init__(self, pool: Remote, archs: Sequence[Arch], size: int) -> None:
        self.pool, self.archs, self.size = pool, archs, size
        self.costs = [math.nan] * len(archs)
        self._waiting = deque(range(0, len(archs), size))
        self._missing = len(self._waiting)
        self._changed = threading.Condition()
        self._futures: list[Any] = []
        self._lost: dict[str, str] = {}
        self._error: BaseException | None = None
        self._ended = False

    def run(self) -> None:
        """Work with a thread a server until all is there.

        Raises
        ------
        InputError
            See `Remote`.
        """
        threads = [threading.Thread(target=self._serve, args=(s,), daemon=True) for s in self.pool._servers]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            self._end()
        if self._error is not None:
            raise self._error
        if self._missing or not self.pool._described:
            why = ", ".join(f"{s.address} ({self._lost[s.address]})" for s in self.pool._servers)
            raise InputError(f"no estimator server is left: {why}")

    def watched(self, future: Any) -> Any:
        """`future`, which is cancelled when the batch ends before it."""
        with self._changed:
            self._futures = [f for f in self._futures if not f.done()] + [future]
            if self._ended:
                future.cancel()
        return future

    def _serve(self, server: _Server) -> None:
        failures = 0
        while failures < _ATTEMPTS:
            try:
                server.connect(self)
                while (start := self._take()) is not None:
                    try:
                        costs = server.estimate(self, self.archs[start : start + self.size])
                    except BaseException:
                        self._give_back(start)
                        raise
                    self._put(start, costs)
                    failures = 0
                return
            except _LostError as e:
                failures = _ATTEMPTS if e.final else failures + 1
                self._lost[server.address] = str(e)
            except grpc.FutureCancelledError:  # the batch has ended
                return
            except BaseException as e:
                self._end(e)
                return

    def _take(self) -> int | None:
        """Where the next part starts; None when nothing is left to do."""
        with self._changed:
            # What another server is at may come back.
            self._changed.wait_for(lambda: self._waiting or self._ended or not self._missing)
            return self._waiting.popleft() if self._waiting and not self._ended else None

    def _give_back(self, start: int) -> None:
        with self._changed:
            self._waiting.appendleft(start)
            self._changed.notify_all()

    def _put(self, start: int, costs: list[float]) -> None:
        with self._changed:
            self.costs[start : start + len(costs)] = costs
            self._missing -= 1
            done = not self._missing
        if done:
            self._end()

    def _end(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._error, self._ended = self._error or error, True
            # Once each: gRPC's future of a channel cannot be cancelled twice.
            futures, self._futures = self._futures, []
            self._changed.notify_all()
        for future in futures:
            future.cancel()
