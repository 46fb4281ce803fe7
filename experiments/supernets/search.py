"""Search a supernet, or untrained a space, for the front between a metric and costs: what `search_subnets.py` calls."""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.errors import InputError
from models.plugins import load_plugins_of_run, loaded_plugins

from ..run.device import visible_to_workers
from ..run.folder import RunFolder
from ..run.interrupts import end_with_parent
from ..search.storage import answering, study_of
from .options import Options
from .report import Pick, report, write_pick
from .studies import SubnetSearch
from .zero_shot import ProxySearch


def search_subnets(options: Options, run: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Search, and write the front into the run's folder.

    Returns
    -------
    The content of ``results.json``.
    """
    with answering(options.storage or study_of(run.path)):
        return _searched(options, run, resume)


def _searched(options: Options, run: RunFolder, resume: bool) -> dict[str, Any]:
    pick = None if options.pick is None else Pick.read(options.pick)
    if options.cfg is not None and pick is None:
        pick = Pick({})  # the best of all that are within the ranges
    job = _open(options, run, resume)
    if pick is not None:
        pick.check(list(job.domain.providers))
    run.write_config(asdict(options))
    try:
        if options.workers > 1:
            _by_workers(options, run)
        job.work()
    except BaseException:
        report(job)  # what there is so far
        raise
    results = report(job, pick, say=True)
    if not results:
        raise InputError(f"none of the evaluations succeeded; why not stands in {run.path / 'subnets.csv'}")
    if pick is not None:
        job.write_pick(results) if isinstance(job, ProxySearch) else write_pick(job, results)
    return results


def _open(options: Options, run: RunFolder, resume: bool) -> SubnetSearch:
    return (SubnetSearch if options.cfg is None else ProxySearch)(options, run, resume)


def _by_workers(options: Options, run: RunFolder) -> None:
    """Work by several processes, one a device. What one of them left behind when it was killed, others do."""
    context, devices = multiprocessing.get_context("spawn"), visible_to_workers(options.device, options.workers)
    plugins = [str(path) for path in loaded_plugins()]  # those of the supernet's run, which were looked at here, too
    workers = [context.Process(target=_worker, args=(options, run.path, device, plugins)) for device in devices]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()
    for worker in workers:
        if worker.exitcode:
            print(f"worker {worker.pid} ended by {worker.exitcode}; its arch is evaluated again", flush=True)


def _worker(options: Options, path: Path, device: str | None, plugins: list[str]) -> None:
    if device is not None:  # CUDA looks at it when it is first used
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        load_plugins_of_run(plugins)
        job = _open(options, RunFolder(path.parent, path.name, exist_ok=True), resume=True)
        torch.set_num_threads(max(torch.get_num_threads() // options.workers, 1))
        job.work()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except InputError as e:
        raise SystemExit(f"error: {e}") from None
