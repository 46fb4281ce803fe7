"""Subnets of a trained supernet: what `val.py --supernet` measures and `train.py --supernet` begins with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from models.classes import difference, in_order, names_of, order_of
from models.complexity import count_flops, count_params
from models.errors import InputError
from models.files import FORMAT, check_finite, check_format
from models.grammar import read_config
from models.network import Network
from models.plain_files import load_plain, save_plain
from models.schemas import SearchOptions, Supernet
from spaces import NASBACKBONE, NASDETECTOR, CostModel, Sizes, Space, load_into, make_supernet, read_arch, slice_weights

from ..inference.options import Validation
from ..run import registry
from ..run.admission import admit_plugins
from ..run.commands import command
from ..run.console import say
from ..run.device import device_of
from ..run.folder import RunFolder
from ..run.lightning import accelerator_of, quiet_lightning
from ..run.tables import table, write_csv
from ..tasks.resize import resolution_of
from ..tasks.task import SearchTask
from ..training.weights import Start

SUPERNET = "supernet.pt"


def save_supernet(supernet: NASBACKBONE | NASDETECTOR, path: str | Path) -> None:
    """Write a supernet as plain data: ``{"yaml", "state_dict", "names"}``, readable with weights_only=True."""
    state = {k: v.detach().cpu() for k, v in supernet.state_dict().items()}
    check_finite(state, f"{path}: not written")
    content = {"format": FORMAT, "yaml": dict(supernet.space.config.raw), "state_dict": state}
    save_plain({**content, "names": names_of(supernet)}, path)


class Opened(NamedTuple):
    """What a run of `oneshot_nas.py` left: its supernet, the task that it was trained on, and the run's options."""

    supernet: NASBACKBONE | NASDETECTOR
    task: SearchTask
    options: argparse.Namespace


def open_supernet(
    folder: str | Path, device: str = "cpu", task: SearchTask | None = None, option: str = "--supernet"
) -> Opened:
    """The supernet of a run.

    Parameters
    ----------
    task
        In place of the run's own; the supernet has to be of its space.
    option
        What the folder was given by, for messages.

    Raises
    ------
    InputError
        The folder is of another run, or of one that did not come to its end; or the supernet is of another space.
    """
    folder = Path(folder)
    run, saved = RunFolder.resume(folder)
    if "strategy" not in saved or "task" not in saved:
        raise InputError(f"{option} {folder}: not a run of oneshot_nas.py")
    SearchOptions.of(saved, f"{option} {folder}: its config.yaml")
    file = folder / SUPERNET
    if (folder / "runs").is_dir():
        raise InputError(f"{option} {folder}: holds several searches; right would be a folder in {folder}/runs")
    if not file.is_file():
        finish = command("oneshot_nas.py", "--resume", folder)
        raise InputError(f"{option} {folder}: has no {SUPERNET}; finish it by {finish}")
    admit_plugins(run, saved)
    space, state, names = load_supernet(file)
    options = argparse.Namespace(**saved)
    if task is None:
        if saved["task"] not in registry.names("task"):
            known = ", ".join(registry.names("task"))
            raise InputError(f"{option} {folder}: its task {saved['task']!r} is none of {known}")
        task = registry.load("task", saved["task"])(options, space, accelerator_of(device))
    supernet = make_supernet(task.space())
    # Since the supernet was trained, its data may have got another order of classes, or be other data.
    if names is not None:
        if (order := order_of(names, task.names)) is None:
            raise InputError(
                f"{option} {folder}: was trained for other classes: the data {difference(names, task.names)}"
            )
        state = in_order(state, supernet, order)
    try:
        load_into(supernet, state)
    except (RuntimeError, TypeError, AttributeError) as e:
        reason = (str(e).splitlines()[1:] or [str(e)])[0].strip()
        raise InputError(f"{option} {folder}: its supernet is one of another space or task: {reason}") from None
    return Opened(supernet, task, options)


def load_supernet(file: Path) -> tuple[Space, dict[str, Any], tuple[str, ...] | None]:
    """Space, state dict and, if it has them, names of classes in a ``supernet.pt``; `InputError` if it is none."""
    content = load_plain(file)
    check_format(content, file)
    found = Supernet.of(content, f"{file}: not a supernet of this project")
    check_finite(found.state_dict, file)
    names = None if found.names is None else tuple(found.names[i] for i in sorted(found.names))
    return Space(read_config(found.yaml, file=str(file))), found.state_dict, names


def read_archs(names: Sequence[str], space: Space, imgsz: int) -> dict[str, dict[str, Any]]:
    """Archs by name.

    ``max`` and ``min`` are the largest and the smallest (`spaces.Sizes`), ``upstream`` the plain network that the space
    was made of; others are paths of arch JSONs.
    """
    archs: dict[str, dict[str, Any]] = {}
    sizes = Sizes(CostModel(space, imgsz)) if {"max", "min"} & set(names) else None
    for name in names:
        if sizes is not None and name in ("max", "min"):
            archs[name] = sizes.largest if name == "max" else sizes.smallest
            continue
        if name == "upstream":
            archs[name] = space.upstream()
            continue
        stem, number = Path(name).stem, 2
        while stem in archs:
            stem, number = f"{Path(name).stem}{number}", number + 1
        try:
            archs[stem] = space.complete(read_arch(name))
        except InputError as e:
            raise InputError(
                f"--arch {name}: {e}; right would be max, min, upstream, or an arch JSON of this space"
            ) from None
    return archs


def cut_out(supernet: NASBACKBONE | NASDETECTOR, task: SearchTask, arch: Mapping[str, Any]) -> Network:
    """The plain network that a supernet is at an arch."""
    raw, state = slice_weights(supernet, arch)
    network = task.network(raw)
    network.load_state_dict(state)
    return network


def start_of_slice(folder: str, name: str) -> Start:
    """A slice of a detection supernet, to be finetuned."""
    supernet, task, options = open_supernet(folder)
    if task.detector is None or not task.is_whole:
        raise InputError(
            f"--supernet {folder}: a classifier's, but train.py trains detectors; right would be one of --task detect"
        )
    (arch,) = read_archs([name], supernet.space, options.imgsz).values()
    network = cut_out(supernet, task, arch)
    names = tuple(task.names)
    raw = {**network.config.raw, "names": [*names]}
    return Start(raw, network.state_dict(), f"{folder} ({name})", arch, is_slice=True, names=names)


def measure_subnets(options: Validation, run: RunFolder) -> list[dict[str, Any]]:
    """Measure subnets as they lie in the supernet and with batch norm statistics of their own, and keep the better.

    Returns
    -------
    The content of ``results.json``: a row a subnet.
    """
    quiet_lightning()
    assert options.supernet is not None
    supernet, task, trained = open_supernet(options.supernet, options.device)
    imgsz = trained.imgsz
    archs = read_archs(options.arch, supernet.space, imgsz)
    run.write_config(asdict(options))
    device = device_of(options.device)
    rows = []
    for name, arch in archs.items():
        network = cut_out(supernet, task, arch).to(device)
        calibrated = task.calibrated(network)
        side = resolution_of(network, imgsz)
        row: dict[str, Any] = {
            "subnet": name,
            "params": count_params(network),
            "flops": count_flops(network.cpu(), side, network.config.ch),
            "imgsz": side,
            "as_trained": task.measure(network.to(device), calibrated=False),
            "calibrated": task.measure(calibrated, calibrated=False),
            "arch": arch,
        }
        rows.append(row)
        kept = calibrated if row["calibrated"] >= row["as_trained"] else network
        if task.is_whole:  # else the detector has parts that are not trained
            task.hand_over(kept, run.path, arch, name, is_slice=True)
    run.write_json("results.json", rows)
    write_csv(run.path / "subnets.csv", ({k: v for k, v in {**r, **r["arch"]}.items() if k != "arch"} for r in rows))
    _report(options, run, rows, task.metric)
    return rows


def _report(options: Validation, run: RunFolder, rows: list[dict[str, Any]], metric: str) -> None:
    columns = ("subnet", "parameters", "MFLOPs", "pixels", "as trained", "calibrated")
    lines = [
        (
            r["subnet"],
            f"{r['params']:,}",
            f"{r['flops'] / 1e6:.1f}",
            str(r["imgsz"]),
            f"{r['as_trained']:.4f}",
            f"{r['calibrated']:.4f}",
        )
        for r in rows
    ]
    say(
        table(columns, lines, f"subnets of {options.supernet}: {metric}", left=["subnet"]),
        "calibrated: with batch norm statistics of the subnet's own on training images",
        f"results in {run.path}",
    )
