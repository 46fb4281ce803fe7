"""A supernet proves itself: at every arch that is tried it is the plain network that is cut out of it.

``python -m spaces.check_elastic --plugin mine.py --cfg mine.yaml`` runs the proof on a space of yours.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_elastic(
    cfg: str | Path | Mapping[str, Any], nc: int | None = None, num: int = 4, seed: int = 0, imgsz: int = 64
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Hold a supernet against the networks that are cut out of it, at its first, its last and `num` random archs.

    Compared to the last bit, on CPU in float32: output in eval mode; output, gradients and batch norms' statistics of a
    training step; number of parameters. And what is not of the slice has neither gradient nor new statistics.

    Yields
    ------
    Arch, and what is wrong with it: nothing, if all is well.
    """
    import torch

    from models.catalog import is_head

    from .model_space import NASBACKBONE, NASDETECTOR
    from .space import Space

    torch.manual_seed(seed)
    space = Space(cfg)
    is_detector = is_head(space.config.rows[-1])
    net = (NASDETECTOR if is_detector else NASBACKBONE)(cfg, nc=nc or space.config.nc or 3)
    _randomize(net)
    rng, decisions = random.Random(seed), net.space.decisions
    x = torch.rand(2, net.space.config.ch, imgsz, imgsz)
    ends = [{label: d.values[i] for label, d in decisions.items()} for i in (0, -1)]
    for arch in [*ends, *(net.space.sample(rng) for _ in range(num))]:
        yield arch, list(_problems(net, arch, x))


def _randomize(net: nn.Module) -> None:
    """Batch norms that do something: what fresh statistics would hide."""
    import torch

    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                tensor = getattr(module, name)
                tensor.data = low + torch.rand_like(tensor)


def _problems(net: Any, arch: Mapping[str, Any], x: Tensor) -> Iterator[str]:
    import torch

    from models.classifier import Classifier
    from models.complexity import count_params
    from models.detector import Model

    from .model_space import NASDETECTOR, slice_weights

    net.activate(arch)
    raw, state = slice_weights(net, arch)
    plain: Any = (Model if isinstance(net, NASDETECTOR) else Classifier)(raw)
    plain.load_state_dict(state)
    if (own := sum(v.numel() for k, v in state.items() if k in dict(plain.named_parameters()))) != count_params(plain):
        yield f"the slice has {own:,} parameters, the plain network {count_params(plain):,}"
    with torch.no_grad():
        ours, theirs = _tensors(net.eval()(x)), _tensors(plain.eval()(x))
    if not _equal(ours, theirs):
        yield f"the outputs in eval mode differ by up to {_difference(ours, theirs):.3g}"

    before = {k: v.clone() for k, v in net.named_buffers()}
    net.zero_grad(set_to_none=True)
    ours, theirs = _step(net.train(), x), _step(plain.train(), x)
    if not _equal(ours, theirs):
        yield f"the outputs in training mode differ by up to {_difference(ours, theirs):.3g}"
    _, after = slice_weights(net, arch)
    statistics = {k for k, _ in plain.named_buffers()}
    if different := [k for k in statistics if k in after and not torch.equal(after[k], plain.state_dict()[k])]:
        yield f"after a step the statistics of {different[0]} differ"
    changed = sum(int((v != before[k]).sum()) for k, v in net.named_buffers())
    if changed > sum(v.numel() for k, v in plain.named_buffers()):
        yield "a step changes statistics that are not of the slice"
    yield from _gradient_problems(net, arch, plain)


def _gradient_problems(net: Any, arch: Mapping[str, Any], plain: nn.Module) -> Iterator[str]:
    import torch

    from .model_space import slice_weights

    # The slice of the gradients, which are put where the weights are.
    gradients = copy.deepcopy(net)
    for copied, p in zip(gradients.parameters(), net.parameters(), strict=True):
        copied.data = torch.zeros_like(p) if p.grad is None else p.grad.clone()
    _, sliced = slice_weights(gradients, arch)
    total = sum(int(p.grad.count_nonzero()) for p in net.parameters() if p.grad is not None)
    theirs = 0
    for name, p in plain.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        theirs += int(expected.count_nonzero())
        if not torch.equal(sliced[name], expected):
            yield f"the gradients of {name} differ by up to {float((sliced[name] - expected).abs().max()):.3g}"
    if total != theirs:
        yield f"{total:,} weights have a gradient, {theirs:,} in the slice"


def _step(net: nn.Module, x: Tensor) -> list[Tensor]:
    outputs = _tensors(net(x))
    sum(y.square().mean() for y in outputs).backward()  # type: ignore[union-attr]
    return [y.detach() for y in outputs]


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, (list, tuple)):
        return [t for part in output for t in _tensors(part)]
    return [output]


def _equal(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    import torch

    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max((float((x - y).abs().max()) if x.shape == y.shape else float("nan")) for x, y in zip(a, b, strict=False))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m spaces.check_elastic", description=__doc__)
    parser.add_argument("--cfg", required=True, help="the space's YAML")
    parser.add_argument("--plugin", action="append", default=[], help="Python file that registers your modules")
    parser.add_argument("--num", type=int, default=4, help="random archs, besides the first and the last")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--imgsz", type=int, default=64, help="pixels a side of the images")
    options = parser.parse_args(argv)
    failed = 0
    try:
        from models.plugins import load_plugin

        for path in options.plugin:
            load_plugin(path)
        archs = check_elastic(options.cfg, None, options.num, options.seed, options.imgsz)
        for number, (arch, problems) in enumerate(archs, start=1):
            failed += bool(problems)
            for problem in problems:
                print(f"arch {number}: {problem}; {arch}")
        print(f"{number - failed} of {number} archs are the plain networks that are cut out of the supernet")
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
