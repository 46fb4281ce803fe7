"""Weights of a candidate from the supernet of a one-shot run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import InputError
from spaces import slice_weights

from ..strategies import SPOS
from ..tasks.task import SearchTask

_PREFIX = "training_module._model."


def inherited(run: str, task: SearchTask, arch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of `arch`'s plain network, cut out of the supernet in ``last.ckpt`` of a one-shot run.

    Raises
    ------
    InputError
        If there is no such run, or its supernet is one of another space.
    """
    path = Path(run) / "last.ckpt"
    if not path.is_file():
        raise InputError(f"--inherit {run}: not the folder of a one-shot run (it has no last.ckpt)")
    # As --resume reads it: a run's own file, with optimisers and loops in it, which weights_only refuses.
    state = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
    supernet = SPOS().mutate_model(task.space())
    weights = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
    try:
        supernet.load_state_dict(weights)
    except RuntimeError as e:
        reason = str(e).splitlines()[1].strip() if len(str(e).splitlines()) > 1 else str(e)
        raise InputError(f"--inherit {run}: its supernet is one of another space or task: {reason}") from None
    return slice_weights(supernet, arch)[1]
