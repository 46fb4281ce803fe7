"""The latency of a block as it is exported: in ONNX Runtime, within a chain as it stands within a network.

A block that is timed alone pays for what a network pays once: being called, and bringing its images into the layout
that the runtime computes in. So it is exported between two convolutions of one pixel, which the runtime lays out as it
does the rows around it. Of the chain's latency the block has the share that ONNX Runtime's profile gives its nodes.
"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from models.head import Head
from models.network import fuse
from optimizer.exporters import need

if TYPE_CHECKING:
    import onnx

    from spaces.cost_block import Block

_OPSET = 17  # as `export_onnx`
_SCOPE, _ENDING = "/block", "_kernel_time"
_AFTER = 16  # channels that the convolution behind a block gives
_PROFILED = (3, 15)  # runs to warm up, runs
# What ONNX Runtime puts activations into.
_CONVOLUTIONS = {"Conv", "ConvTranspose", "FusedConv"}


_ELSEWHERE = torch.ones(2 << 20)  # 8 MiB, as the weights of a small detector


def forget() -> None:
    """Read other memory, as a network does between two runs of a block: its weights leave the nearer caches."""
    _ELSEWHERE.sum()


class Chain(nn.Module):
    """A block between convolutions of one pixel, where what it takes and gives are maps; fused, in eval mode."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block.build()
        if isinstance(self.block, Head):
            self.block.set_strides([block.imgsz / shape[-1] for shape in block.inputs])
        fuse(self.block)
        self._takes_many = isinstance(block.row.source, tuple)
        of_image = [source < 0 for source in block.row.sources]
        shapes = [shape if _is_map(shape) else None for shape in block.inputs]
        self.before = nn.ModuleList(
            nn.Identity() if shape is None or image else nn.Conv2d(3, shape[1], 1)
            for shape, image in zip(shapes, of_image, strict=True)
        )
        given = block.feed("cpu") if self._takes_many else [block.feed("cpu")]
        self.inputs = tuple(
            x if isinstance(before, nn.Identity) else torch.rand(1, 3, *x.shape[2:])
            for x, before in zip(given, self.before, strict=True)
        )
        output = self._given(self.inputs)
        ends = isinstance(self.block, Head) or not (isinstance(output, Tensor) and output.ndim == 4)
        self.behind = nn.Identity() if ends else nn.Conv2d(output.shape[1], _AFTER, 1)
        self.eval()

    def _given(self, inputs: Sequence[Any]) -> Any:
        fed = [before(x) for before, x in zip(self.before, inputs, strict=True)]
        output = self.block(fed if self._takes_many else fed[0])
        return output[0] if isinstance(self.block, Head) else output

    def forward(self, *inputs: Any) -> Any:
        output = self._given(inputs)
        return output if isinstance(self.behind, nn.Identity) else self.behind(output)


class ExportedBlock:
    """A block, exported once, to be timed as often as is wanted.

    Parameters
    ----------
    threads
        Of ONNX Runtime.

    Raises
    ------
    InputError
        ONNX Runtime is missing, or PyTorch cannot export the block; names its row.
    """

    def __init__(self, block: Block, threads: int) -> None:
        self._threads = threads
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            chain = Chain(block)
            self._model = _exported(chain, block)
        self._modules = {name for name, _ in chain.block.named_modules()}
        self._ends = isinstance(chain.behind, nn.Identity)
        names = [i.name for i in self._model.graph.input]
        leaves = [x.numpy() for x in tree_leaves(chain.inputs)]
        self._feed = dict(zip(names, leaves, strict=True))

    def run(self) -> Callable[[], Any]:
        """An inference of the chain."""
        session = opened(self._model.SerializeToString(), self._threads)
        return lambda: session.run(None, self._feed)

    def shares(self) -> dict[str, float]:
        """The part that each submodule of the block, "" for itself, has in an inference; the chain has the rest."""
        with tempfile.TemporaryDirectory() as folder:
            session = opened(self._model.SerializeToString(), self._threads, Path(folder) / "profile")
            for _ in range(sum(_PROFILED)):
                forget()
                session.run(None, self._feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        nodes = _medians(events)
        total = sum(node.microseconds for node in nodes)
        owners = _Owners(self._model, self._modules)
        found: dict[str, float] = dict.fromkeys(self._modules, 0.0)
        # What brings the images back into the usual layout behind the last convolution is the chain's.
        behind = None if self._ends else nodes[-1].name
        for node in nodes:
            owner = owners.of(node)
            if owner is None and node.name != behind:
                owner = ""  # put in by ONNX Runtime within the block
            if owner is not None and total:
                found[owner] += node.microseconds / total
        return found


class _Node(NamedTuple):
    """A node that ONNX Runtime runs, by its profile."""

    name: str
    kind: str
    microseconds: float


def _medians(events: Iterable[Mapping[str, Any]]) -> list[_Node]:
    """In the order in which they run."""
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_ENDING):
            key = event["name"].removesuffix(_ENDING), event["args"]["op_name"]
            times.setdefault(key, []).append(event["dur"])
    return [_Node(*key, statistics.median(all_of_them[_PROFILED[0] :])) for key, all_of_them in times.items()]


class _Owners:
    """Which submodule a node that ONNX Runtime runs was exported of."""

    def __init__(self, model: onnx.ModelProto, modules: set[str]) -> None:
        self._modules = modules
        # ONNX Runtime names what it makes after the node, or after what that gave.
        self._named = {name: node for node in model.graph.node for name in (node.name, *node.output)}
        self._gives = {name: node for node in model.graph.node for name in node.output}

    def of(self, ran: _Node) -> str | None:
        """Name of the submodule; None of what is outside of the block, or of no node that was exported."""
        name = ran.name.removeprefix("fused ")
        node = self._named.get(max((known for known in self._named if name.startswith(known)), key=len, default=""))
        if node is None:
            return None
        if ran.kind in _CONVOLUTIONS:  # with the activation that follows: it is named after that
            node = self._convolution(node)
        scope, _, path = node.name.partition("/block/")
        return None if scope or not path else self._module(path.split("/")[:-1])

    def _convolution(self, node: Any) -> Any:
        while node.op_type not in _CONVOLUTIONS:
            before = [self._gives[name] for name in node.input if name in self._gives]
            if not before:
                break
            node = next((n for n in before if n.op_type in _CONVOLUTIONS), before[0])
        return node

    def _module(self, path: Iterable[str]) -> str:
        """Of names such as m, m.0, cv1: the exporter writes an entry of a list with the list's name before it."""
        at = ""
        for name in path:
            inner, beside = f"{at}.{name}".lstrip("."), f"{at.rpartition('.')[0]}.{name}".lstrip(".")
            if inner not in self._modules and beside not in self._modules:
                break
            at = inner if inner in self._modules else beside
        return at


def opened(content: bytes, threads: int, profile: Path | None = None) -> Any:
    """A session of ONNX Runtime on the CPU, which `profile` makes keep one."""
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _exported(chain: Chain, block: Block) -> Any:
    onnx, buffer = need("onnx"), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(chain, chain.inputs, buffer, dynamo=False, opset_version=_OPSET)  # type: ignore[arg-type]
        except Exception as e:  # the exporter raises what comes to it from torch and onnx
            reason = (str(e).splitlines() or [type(e).__name__])[0]
            raise block.row.error(f"PyTorch {torch.__version__} cannot export it: {reason}") from e
    return onnx.load_from_string(buffer.getvalue())


def _is_map(shape: Any) -> bool:
    return isinstance(shape, torch.Size) and len(shape) == 4
