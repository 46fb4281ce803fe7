"""The optimizers that detectors are trained with, and their three groups of parameters."""

from __future__ import annotations

from typing import Any

from torch import nn, optim
from torch.nn.modules.batchnorm import _NormBase

from models.errors import InputError
from spaces.kernel_transform import is_transform

OPTIMIZERS = ("sgd", "adamw")
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Every parameter of `network` that is trained, once.

    Returns
    -------
    ``bias``: all biases; ``norm``: weights of normalisation layers, and matrices of elastic kernels; ``weight``: the
    rest, the only ones that decay.
    """
    groups: dict[str, list[nn.Parameter]] = {"bias": [], "norm": [], "weight": []}
    seen: set[int] = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            # Matrices that begin as identities (`spaces.kernel_transform`) are not to decay towards zero.
            keeps = isinstance(module, _NORMS) or is_transform(name)
            kind = "bias" if name == "bias" else "norm" if keeps else "weight"
            groups[kind].append(parameter)
    return groups


def build_optimizer(
    network: nn.Module, name: str, lr: float, momentum: float = 0.937, weight_decay: float = 5e-4
) -> optim.Optimizer:
    """SGD with Nesterov's momentum, or AdamW with `momentum` as its first beta.

    Each parameter group has its name under ``"name"``. Groups without parameters are left out.
    """
    groups: list[dict[str, Any]] = [
        {"name": kind, "params": parameters, "weight_decay": weight_decay if kind == "weight" else 0.0}
        for kind, parameters in parameter_groups(network).items()
        if parameters
    ]
    if name == "sgd":
        return optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True)
    if name == "adamw":
        return optim.AdamW(groups, lr=lr, betas=(momentum, 0.999))
    raise InputError(f"--optimizer {name}: right would be one of {', '.join(OPTIMIZERS)}")
