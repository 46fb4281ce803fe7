"""What the scripts share: types of options, and how a script ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any

from models.errors import InputError

from .amounts import parse_amount


def run_script(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Load plug-in files and run `main`: 0, or 2 after bad input and 130 after Ctrl-C, with one line that says so."""
    try:
        if plugins := getattr(args, "plugin", []):
            from models.registry import load_plugin

            for path in plugins:
                load_plugin(path)
        main(args)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError, FileExistsError) as e:
        print(f"error: {f'{e.filename}: {e.strerror}' if e.filename else e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print(f"interrupted{f': {e}' if str(e) else ''}", file=sys.stderr)
        return 130
    return 0


def parse_args(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The options, and in `given` the ones whose value is not the default."""
    args = parser.parse_args(argv)
    args.given = {name: value for name, value in vars(args).items() if value != parser.get_default(name)}
    return args


def refuse(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """`InputError` if one of these options was given."""
    for name in names:
        if name in args.given:
            raise InputError(f"--{'no-' if args.given[name] is False else ''}{name.replace('_', '-')}: {why}")


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and less than 1, got {value}")
    return value


def seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:  # NumPy takes no others
        raise argparse.ArgumentTypeError(f"must be 0 to 4294967295, got {value}")
    return value


def natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def positive_float(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0, got {value}")
    return value


def amount(name: str) -> Callable[[str], float]:
    """Type of an option: a cost with a unit or without, such as ``4.5G``, ``2M`` or ``8ms``."""

    def read(text: str) -> float:
        try:
            return parse_amount(text, name)
        except InputError as e:
            raise argparse.ArgumentTypeError(str(e)) from None

    return read


def add_budget_options(parser: argparse.ArgumentParser) -> None:
    """What the result may cost, as a whole detector."""
    group = parser.add_argument_group("costs of the detector")
    add = group.add_argument
    for name, example in (("flops", "4.5G"), ("params", "2M"), ("latency", "8ms")):
        add(f"--max-{name}", type=amount(name), metavar=example, help=f"no result has more {name}")
    for name, example in (("flops", "4G"), ("params", "1.8M"), ("latency", "7ms")):
        add(f"--target-{name}", type=amount(name), metavar=example, help=f"steer the search to that many {name}")
    add("--target-weight", type=positive_float, default=1.0, help="weight of the target beside the loss")
    add("--latency-table", metavar="JSON", help="latency by block, measured; made or completed where it is missing")
    add("--cost-imgsz", type=positive_int, default=640, help="side of the images that FLOPs and latency are meant for")


def add_plugin_option(parser: Any) -> None:
    help = "Python files that register modules of your own"
    parser.add_argument("--plugin", nargs="*", action="extend", default=[], metavar="FILE", help=help)


def add_run_options(parser: argparse.ArgumentParser, project: str, resumes: bool = False) -> None:
    """Options that say where a run's files go, as YOLOv5 has them."""
    add = parser.add_argument
    add("--project", default=project, help="folder of runs")
    add("--name", default="exp", help="name of this run; a number is added where it is taken")
    add("--exist-ok", action="store_true", help="write into the folder of an earlier run of this name")
    if resumes:
        add("--resume", metavar="RUN", help="go on with an interrupted run, given its folder; it keeps its options")


def run_or_resume(
    args: argparse.Namespace, options: Any, work: Callable[..., Any], new_run: Callable[..., Any] | None = None
) -> None:
    """Call ``work(options, run, resume)`` for a new run, or for the one that ``--resume`` names, with its options."""
    from .folder import RunFolder

    if args.resume:
        run, saved = RunFolder.resume(args.resume)
    else:
        run = (new_run or RunFolder)(args.project, args.name, args.exist_ok)
        saved = {k: v for k, v in vars(args).items() if k in options.__dataclass_fields__}
    try:
        given = options(**saved)
    except TypeError:
        raise InputError(f"--resume {run.path}: the options in its config.yaml are not this script's") from None
    try:
        work(given, run, resume=bool(args.resume))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with --resume {run.path}") from None
