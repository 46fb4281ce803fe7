"""Functions in processes of their own, which start at once because they are forks of this one."""

import multiprocessing
import os
import sys
import traceback
from pathlib import Path

_LIMIT_S = 240


def _quietly(log, function, args):
    with Path(log).open("w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file  # pytest's are others
        try:
            status = function(*args) or 0
        except BaseException:
            traceback.print_exc()
            status = 1
    os._exit(status)


def forked(log, function, *each):
    """Run ``function(*args)`` for each tuple of arguments side by side; their exit statuses, minus the signal's number
    where one ended them. What they print goes to `log`, of the first, `log`1, …
    """
    context = multiprocessing.get_context("fork")
    logs = [f"{log}{i or ''}" for i in range(len(each))]
    processes = [context.Process(target=_quietly, args=(p, function, args)) for p, args in zip(logs, each, strict=True)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_LIMIT_S)
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]
