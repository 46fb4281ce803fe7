"""Where a training's figures go besides the run's own ``metrics.csv``: TensorBoard always, services where asked."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from models.errors import InputError
from models.files import write_text

from .early import check_loggers
from .folder import is_first_process


def loggers_of(names: list[str], folder: Path, options: dict[str, Any]) -> list[Logger]:
    """Lightning's loggers of a run: its event files, and by name those of services, which are told its `options`.

    The services' own environment variables hold (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``, …). What a run is to them is
    in its ``loggers.json``, so that one that is gone on with stays one run.
    """
    found: list[Logger] = [TensorBoardLogger(folder, name="", version="")]
    if not is_first_process():
        return found
    check_loggers(names)
    project, run, file = folder.resolve().parent.name, folder.name, folder / "loggers.json"
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    for name in names:
        try:
            logger: Logger
            if name == "wandb":
                known.setdefault(name, uuid.uuid4().hex[:8])
                logger = WandbLogger(run, folder, id=known[name], project=project, resume="allow")
            else:
                # Of its two stores in the file system, MLflow keeps up the database alone.
                uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve().parent / 'mlflow.db'}")
                logger = MLFlowLogger(project, run, tracking_uri=uri, run_id=known.get(name))
                known[name] = str(logger.run_id)
            logger.log_hyperparams(options)
        except Exception as e:  # a service's own, of any kind: no network, no key, …
            raise InputError(f"--logger {name}: {(str(e) or type(e).__name__).splitlines()[0]}") from None
        found.append(logger)
    if names:
        write_text(file, json.dumps(known))
    return found
