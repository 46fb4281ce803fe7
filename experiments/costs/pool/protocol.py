"""What client and server say to each other: two gRPC methods whose messages are JSON.

``Describe`` takes ``{"space", "imgsz", "hw_config"}``: the YAML of the space as text (JSON has no keys that are
numbers), the side of the images, and what the provider is told. It gives ``{"provider", "name", "unit", "settings"}``.
``Estimate`` takes ``archs`` besides, a list of ``{label: value}``, and gives ``{"costs"}``, in their order. No request
needs an earlier one, so any server may answer any of them.

JSON through gRPC's generic handlers, and not protobuf: archs are JSON as they are, and generated code would tie the
project to the versions of the generator and of protobuf, for messages that take microseconds beside the estimates.

Bad input is INVALID_ARGUMENT, whatever fails in a provider INTERNAL; the details are one line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.errors import InputError

SERVICE = "nas.Estimator"
DESCRIBE, ESTIMATE = "Describe", "Estimate"
DEFAULT_PORT = 50051
MAX_MESSAGE_MB = 4


def encode(message: Any) -> bytes:
    """As JSON; NaN and infinity are refused with a ValueError."""
    return json.dumps(message, ensure_ascii=False, allow_nan=False).encode()


def channel_options(max_message_mb: float) -> list[tuple[str, int]]:
    """Of both ends: how large a message may be, and that they talk to each other directly."""
    size = int(max_message_mb * 2**20)
    return [
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", size),
        ("grpc.enable_http_proxy", 0),
        # A server that comes back is found within seconds.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Two servers on one port would share its requests in silence.
        ("grpc.so_reuseport", 0),
    ]


def first_line(error: BaseException) -> str:
    """What is wrong, in one line that fits into gRPC's details."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0][:1000]


def read_pem(path: str) -> bytes:
    """A file of the TLS."""
    try:
        content = Path(path).read_bytes()
    except OSError as e:
        raise InputError(f"{path}: cannot be read: {e.strerror}") from None
    if b"-----BEGIN " not in content:
        raise InputError(f"{path}: not a PEM file")
    return content
