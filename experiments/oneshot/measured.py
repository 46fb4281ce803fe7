"""The latency table that a search with a limit makes of its own device, where nothing else tells latency."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich import get_console

from models.documents import is_file
from models.errors import InputError

from ..costs.latency_table import device_name
from ..run.console import say
from ..run.device import device_of
from ..run.folder import RunFolder, is_first_process
from .options import Options

TABLE = "latency.json"


def with_table(options: Options, run: RunFolder) -> Options:
    """The options, with the run's own table of latencies if a latency is asked for and none of them tells it.

    Raises
    ------
    InputError
        The table is not there, and several processes that were started together would each measure their own.
    """
    asked = options.max_latency is not None or options.target_latency is not None
    if not asked or options.costs is not None or options.latency_table is not None:
        return options
    path = run.path / TABLE
    if not is_file(path) and int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1:
        raise InputError(
            "--max-latency and --target-latency: processes that torchrun or SLURM starts need a table that is there; "
            "right would be: python -m experiments.costs.latency_table --out FILE, then --latency-table FILE"
        )
    return replace(options, latency_table=str(path))


@contextmanager
def measuring(options: Options) -> Iterator[None]:
    """Say what is measured within; who is refused for what came of it is told where it is kept."""
    device = device_of(options.device)
    if is_first_process():
        how = "what is missing is measured" if is_file(options.latency_table or "") else "measuring it takes minutes"
        say(f"latency: of every block of the space on this {device_name(device)}; {how}; in {options.latency_table}")
    try:
        with get_console().status("measuring"):
            yield
    except InputError as e:
        raise InputError(f"{e}; what was measured is there for --latency-table {options.latency_table}") from None
