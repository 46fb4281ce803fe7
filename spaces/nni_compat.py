"""Every repair of NNI 3.0 for today's torch and Lightning, each with its reason.

NNI is archived, so nothing here will be fixed upstream. Import this module before anything of `nni`; it can be
deleted the day NNI is replaced.
"""

from __future__ import annotations

import warnings
from typing import Any

# nni.nas wraps every class of torch.nn, torch.nn.Buffer among them, which is no module: it warns and goes on.
warnings.filterwarnings("ignore", message=".*is found to be not a nn.Module.*")

# Before anything of nni.nas.oneshot.pytorch: the other order ends in a circular import that NNI swallows, and the
# one-shot strategies become stubs that raise when they are run.
import nni.nas.strategy  # noqa: E402
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule  # noqa: E402
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule  # noqa: E402


def _ordered_arch_parameters(self: Any) -> list[Any]:
    """Architecture parameters once each, in the order of the supernet.

    NNI's is the list of a set: its order, and with it the optimizer's state in a checkpoint, differs from process to
    process, so that a resumed run goes on with the moments of other parameters.
    """
    found: dict[int, Any] = {}
    for module in self.supernet_modules():
        if hasattr(module, "arch_parameters"):
            found.update((id(p), p) for p in module.arch_parameters())
    return list(found.values())


def _on_validation_epoch_end(self: Any) -> None:
    """Passed on to the evaluator's module, which reports the intermediate result; NNI's one-shot base forgets it."""
    self.training_module.on_validation_epoch_end()


DartsLightningModule.arch_parameters = _ordered_arch_parameters
BaseOneShotLightningModule.on_validation_epoch_end = _on_validation_epoch_end

__all__ = ["nni"]
