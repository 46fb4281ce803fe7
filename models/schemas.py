"""What the files of this project hold, kind by kind: read through here, a file is what it should be or an `InputError`.

Only what is read from a file stands here; keys beyond that are left alone, so that earlier and later versions' files
are read as well. Loads no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from . import limits
from .documents import check_plain
from .errors import InputError

_Schema = TypeVar("_Schema", bound="Schema")


class Schema(BaseModel):
    """A kind of file. Values are taken as they are, never turned into another type."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())

    @classmethod
    def of(cls: type[_Schema], content: Any, what: Any) -> _Schema:
        """`content` as this kind of file; `InputError` names the first place that does not fit."""
        try:
            return cls.model_validate(content)
        except ValidationError as e:
            first = e.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise InputError(f"{what}: {f'{place}: ' if place else ''}{message}") from None


def _name(value: Any) -> str:
    if isinstance(value, str) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return str(value)
    raise ValueError(f"a class is called {value!r}; right would be text")


def _numbered(value: Any) -> Any:
    """Class names as a mapping from 0 on, of a list as well."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or len(value) > limits.CLASSES:
        raise ValueError(f"right would be a list of class names, {limits.CLASSES:,} at most")
    if any(type(k) is not int for k in value) or {*value} != {*range(len(value))}:
        raise ValueError(f"classes are numbered {list(value)[:5]} …; right would be 0 to {max(len(value) - 1, 0)}")
    return value


def _plain(value: Any) -> Any:
    check_plain(value, "a value")
    return value


Names = Annotated[dict[int, Annotated[str, BeforeValidator(_name)]], BeforeValidator(_numbered)]
Plain = Annotated[Any, AfterValidator(_plain)]
Document = Annotated[dict[str, Any], AfterValidator(_plain)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Landmarks(Schema):
    """Of a checkpoint whose outputs are coordinates: the points whose distance an error is a share of."""

    normalise: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class Checkpoint(Schema):
    """``detector.pt``, ``classifier.pt`` and ``landmarks.pt``."""

    yaml: Document
    state_dict: dict[str, Any]
    names: Names
    classifies: Any = False
    arch: Document | None = None
    imgsz: Annotated[int, Field(ge=1, le=limits.SIDE)] | None = None
    landmarks: Landmarks | None = None


class NamesOf(Schema):
    """Class names in a checkpoint of others."""

    names: Names


class Supernet(Schema):
    """``supernet.pt``."""

    yaml: Document
    state_dict: dict[str, Any]
    names: Names | None = None


class RunConfig(Schema):
    """``config.yaml`` of a run; what its options may be, their dataclass says."""

    options: Annotated[dict[str, Any], AfterValidator(_plain)]


class SearchOptions(Schema):
    """Of the options of a one-shot search, what others than itself go by."""

    strategy: str
    task: str
    data: str | None = None
    data_root: str | None = None
    detector: str | None = None
    imgsz: Annotated[int, Field(ge=1, le=limits.SIDE)]
    cost_imgsz: Annotated[int, Field(ge=1, le=limits.SIDE)] = 640
    batch: Annotated[int, Field(ge=1, le=limits.COUNT)]
    epochs: Annotated[int, Field(ge=1, le=limits.COUNT)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    plugin: list[str] = []
    hyp: dict[str, Finite] = {}
    arch_share: Annotated[float, Field(gt=0, lt=1)] | None = None


class Experiment(Schema):
    """``experiment.json`` of a multi-trial run."""

    id: Annotated[str, Field(pattern=r"^\w+$", max_length=100)]


class Retrained(Schema):
    """``retrained.json``: what the networks of a comparison have reached."""

    @model_validator(mode="after")
    def _numbers(self) -> Retrained:
        for name, value in (self.model_extra or {}).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name}: right would be a number")
        return self


class _Ranking(Schema):
    tau: float
    low: float
    high: float


class FidelityFile(Schema):
    """``fidelity.json`` of a supernet."""

    archs: int
    predictors: dict[str, _Ranking]


class Correction(Schema):
    """From the sum of blocks to the latency of a network: ``offset + scale * sum``, in milliseconds."""

    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    offset: Annotated[float, Field(allow_inf_nan=False)]


class LatencyFile(Schema):
    """A table of latencies."""

    device: str
    threads: Annotated[int, Field(ge=1, le=limits.THREADS)]
    torch: str
    provider: Literal["torch", "onnxruntime"] = "torch"
    onnxruntime: str | None = None
    clock: Literal["wall", "cpu"] = "wall"
    correction: Correction | None = None
    check: Document | None = None
    milliseconds: dict[str, dict[str, Milliseconds]]


class Tls(Schema):
    """Of a pool."""

    model_config = ConfigDict(extra="forbid")
    ca: str
    cert: str | None = None
    key: str | None = None


_Seconds = Annotated[float, Field(gt=0, le=limits.SECONDS, allow_inf_nan=False)]


class Cost(Schema):
    """An entry of a YAML of costs."""

    model_config = ConfigDict(extra="forbid")
    provider: str | None = None
    hw_config: Document | None = None
    servers: Any = None  # the pool looks at them
    timeout: _Seconds | None = None
    connect_timeout: _Seconds | None = None
    batch: Annotated[int, Field(ge=1, le=limits.COUNT)] | None = None
    tls: Tls | None = None
    max_message_mb: Annotated[float, Field(gt=0, le=2047, allow_inf_nan=False)] | None = None


class OnnxNotes(Schema):
    """What `export.py` writes beside a graph; there everything is text, here it has been read."""

    names: Names
    imgsz: Annotated[int, Field(ge=1, le=limits.SIDE)]
    stride: Annotated[int, Field(ge=1, le=limits.SIDE)]
    batch: Annotated[int, Field(ge=1, le=limits.COUNT)] | None
    nms: dict[str, Finite] | None
    form: Annotated[str, Field(pattern="^(objectness|classes|detections|labels)$")]
    coefficients: Annotated[int, Field(ge=0, le=limits.COUNT)]
    dtype: str
