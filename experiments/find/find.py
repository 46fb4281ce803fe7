"""The whole way, phase by phase: what `find_detector.py` calls, and `find_detector` for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.errors import InputError

from ..run.admission import admit
from ..run.amounts import parse_amount
from ..run.folder import RunFolder
from ..run.lightning import quiet_lightning
from ..run.options import checked
from ..run.pinned import pinned
from .baselines import baselines
from .export import export
from .fidelity import fidelity
from .finetune import decide, equal, finetune, long
from .look import look
from .measure import measure
from .options import Options
from .outlook import Outlook
from .phases import Job, Phase, run_phases
from .report import report
from .search import search
from .sentence import chosen_of, sentence
from .supernet import supernet
from .test import test

PHASES = (
    Phase("look", "looking at the data", look),
    Phase("measure", "measuring this device", measure),
    Phase("baselines", "training the plain networks", baselines),
    Phase("supernet", "training the supernet", supernet),
    Phase("search", "searching it", search),
    Phase("finetune", "finetuning the best, and plain ones of equal cost", finetune),
    Phase("long", "training on the best searched and the best plain one, alike", long),
    Phase("equal", "the plain networks for equal time", equal),
    Phase("decide", "choosing by the validation images", decide),
    Phase("test", "the test images, once", test),
    Phase("export", "what is handed over", export),
    Phase("fidelity", "how the supernet ranks", fidelity),
    Phase("report", "the report", report),
)


@dataclass(frozen=True)
class Found:
    """The detector that was found.

    Attributes
    ----------
    folder
        Of the run: ``best/``, ``report.html``, ``front.csv``.
    name, is_searched
        What is handed over: a searched network, or a plain one where none was better.
    map50_95
        On the test images.
    interval
        95 %, of how much better that is than the rival's; None without one.
    latency, params, flops
        In ms as exported; counted.
    imgsz
        Side of its images.
    sentence
        All that, to be read.
    """

    folder: Path
    name: str
    is_searched: bool
    map50_95: float
    interval: tuple[float, float] | None
    latency: float
    params: int
    flops: int
    imgsz: int
    sentence: str

    @property
    def weights(self) -> Path:
        """``detector.pt``, for `experiments.open_detector`."""
        return self.folder / "best" / "detector.pt"

    @property
    def onnx(self) -> Path:
        """``model.onnx``, which was measured."""
        return self.folder / "best" / "model.onnx"

    @property
    def report(self) -> Path:
        """``report.html``."""
        return self.folder / "report.html"


def find(options: Options, run: RunFolder, resume: bool = False) -> Found:
    """Find a detector, or go on where a run stands.

    Raises
    ------
    InputError
        The data, a limit or the time do not allow it.
    """
    quiet_lightning()
    if not resume:
        if (run.path / "config.yaml").is_file():
            raise InputError(f"{run.path}: holds a run; right would be --resume {run.path}, or another --name")
        run.write_config(asdict(options))
    job = Job(options, run)
    outlook = Outlook()
    with pinned(lambda: str(outlook)):
        run_phases(job, PHASES, outlook)
    chosen = chosen_of(job)
    rival = job.results["decide"]["rival"]
    apart = job.results["test"]["difference"].get(rival)
    return Found(
        folder=run.path,
        name=chosen["name"],
        is_searched=chosen["kind"] == "searched",
        map50_95=chosen["test"]["map50_95"],
        interval=None if apart is None else (apart["low"], apart["high"]),
        latency=chosen["latency"],
        params=chosen["params"],
        flops=chosen["flops"],
        imgsz=chosen["side"],
        sentence=sentence(job),
    )


def find_detector(
    data: str | Path | None = None,
    *,
    weights: str | Path | Sequence[str | Path] = (),
    max_latency: str | float | None = None,
    max_flops: str | float | None = None,
    max_params: str | float | None = None,
    project: str | Path = "runs/find",
    name: str = "exp",
    resume: str | Path | None = None,
    **options: Any,
) -> Found:
    """The best detector for these pictures and this device; `find_detector.py` in Python.

    Parameters
    ----------
    data
        A data.yaml, a folder, or a shipped set's name; of a run that is gone on with, its own.
    weights
        Detectors to begin with.
    max_latency, max_flops, max_params
        As amounts, such as ``"8ms"`` and ``"4.5G"``, or as numbers (ms).
    project, name
        Where the run's folder is made.
    resume
        The folder of a run to go on with, which keeps its options.
    **options
        Any other of `experiments.find.options.Options`, such as ``hours=2``, ``quick=True``, ``int8=True``.

    Raises
    ------
    InputError
        As `find`, or an option is none.
    """
    if resume is not None:
        run, saved = RunFolder.resume(resume)
        saved = checked(Options, admit(run, saved), f"resume={run.path}: its config.yaml")
        with run.held(needs="config.yaml"):
            return find(Options(**saved), run, resume=True)
    if data is None:
        raise InputError("find_detector: pictures with boxes are needed; right would be a data.yaml or a folder")
    several = [weights] if isinstance(weights, (str, Path)) else weights
    limits = {"latency": max_latency, "flops": max_flops, "params": max_params}
    read: dict[str, Any] = {f"max_{k}": parse_amount(v, k) if isinstance(v, str) else v for k, v in limits.items()}
    try:
        given = Options(data=str(data), weights=[str(w) for w in several], **read, **options)
    except TypeError as e:
        raise InputError(f"find_detector: {e}") from None
    run = RunFolder(project, name)
    with run.held(needs="config.yaml"):
        return find(given, run)
