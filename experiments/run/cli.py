"""What the scripts share: types of options, and how a script ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from models.errors import InputError
from models.plugins import load_plugin

from .amounts import parse_amount
from .options import filled, made, refuse_others, resumed_options


def run_script(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Load plug-in files and run `main`: 0, or 2 after bad input and 130 after Ctrl-C, with one line that says so."""
    try:
        for path in getattr(args, "plugin", []):
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


def start_script(main: Callable[[argparse.Namespace], None], parse: Callable[[], argparse.Namespace]) -> int:
    """`run_script` with the command line's options; what plug-in files register is among the choices of them."""
    first = argparse.ArgumentParser(add_help=False)
    add_plugin_option(first)
    return run_script(lambda _: main(parse()), first.parse_known_args()[0])


class NamedValues(argparse.Action):
    """An option's words, each ``NAME=NUMBER``, as a dictionary."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        try:
            found = {name: float(value) for name, value in (item.split("=", 1) for item in values)}
        except ValueError:
            parser.error(f"{option} {' '.join(values)}: right would be NAME=NUMBER, such as mosaic=0.5")
        setattr(namespace, self.dest, found)


def _number(kind: Callable[[str], Any], says: str, fits: Callable[[Any], bool]) -> Callable[[str], Any]:
    """Type of an option: a number that `fits`; `says` is what it must be."""

    def read(text: str) -> Any:
        value = kind(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"must be {says}, got {value}")
        return value

    read.__name__ = kind.__name__  # argparse says of other text: invalid int value
    return read


positive_int = _number(int, "at least 1", lambda n: n >= 1)
natural = _number(int, "at least 0", lambda n: n >= 0)
seed = _number(int, "0 to 4294967295", lambda n: 0 <= n < 2**32)  # NumPy takes no others
positive_float = _number(float, "greater than 0", lambda x: 0 < x < float("inf"))
not_negative = _number(float, "at least 0", lambda x: 0 <= x < float("inf"))
share = _number(float, "at least 0 and less than 1", lambda x: 0 <= x < 1)
fraction = _number(float, "more than 0 and less than 1", lambda x: 0 < x < 1)


def amount(name: str, *words: str) -> Callable[[str], Any]:
    """Type of an option: a cost with a unit or without, such as ``4.5G``, ``2M`` or ``8ms``; or one of the words."""

    def read(text: str) -> Any:
        if text in words:
            return text
        try:
            return parse_amount(text, name)
        except InputError as e:
            raise argparse.ArgumentTypeError(str(e)) from None

    return read


def add_plugin_option(parser: Any) -> None:
    help = "Python files that register modules of your own"
    parser.add_argument("--plugin", nargs="*", action="extend", default=[], metavar="FILE", type=filled, help=help)


def add_run_options(parser: argparse.ArgumentParser, project: str, resumes: bool = False) -> None:
    """Options that say where a run's files go, as YOLOv5 has them."""
    add = parser.add_argument
    add("--project", default=project, type=filled, help="folder of runs")
    add("--name", default="exp", type=filled, help="name of this run; a number is added where it is taken")
    add("--exist-ok", action="store_true", help="write into the folder of an earlier run of this name")
    if resumes:
        add("--resume", metavar="RUN", type=filled, help="go on with a run, given its folder; it keeps its options")


def run_or_resume(
    args: argparse.Namespace,
    options: Any,
    work: Callable[..., Any],
    new_run: Callable[..., Any] | None = None,
    beside: Iterable[str] = (),
) -> None:
    """Call ``work(options, run, resume)`` for a new run, or for the one that ``--resume`` names, with its options.

    Parameters
    ----------
    options
        A dataclass. Those of its fields that are options with `resumes` take the place of the run's.
    new_run
        Makes the folder of a new run.
    beside
        Further options that ``--resume`` takes.
    """
    from .folder import RunFolder

    if args.resume:
        run, saved = RunFolder.resume(args.resume)
        again = ["plugin", *resumed_options(options)]
        refuse_others(args, ("resume", *again, *beside), "a run that is gone on with keeps its options")
        saved |= {name: args.given[name] for name in again if name in args.given}
    else:
        run, saved = (new_run or RunFolder)(args.project, args.name, args.exist_ok), {}
    try:
        given = options(**saved) if saved else made(options, args)
    except TypeError:
        unknown = ", ".join(sorted({*saved} - {f.name for f in fields(options)}))
        raise InputError(
            f"--resume {run.path}: its config.yaml has options that this version does not know ({unknown}); right "
            "would be the script and the version that began it"
        ) from None
    try:
        work(given, run, resume=bool(args.resume))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with --resume {run.path}") from None
