"""What the scripts share: types of options, and how a script ends."""

from __future__ import annotations

import argparse
import functools
import io
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from models import limits
from models.errors import InputError, shown
from models.files import refused_by_disk
from models.plugins import load_plugin
from models.trust import trust

from . import interrupts
from .amounts import parse_amount
from .commands import resume_command
from .harmless import harmless_output
from .options import add_option, checked, filled, made, refuse_others, resumed_options


def run_script(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Load plug-in files and run `main`: 0, or 2 after bad input and 130 after Ctrl-C, with one line that says so."""
    # A class's name may have letters that a terminal, or a file it is sent to, has not: here, in trials and workers.
    os.environ.setdefault("PYTHONIOENCODING", ":backslashreplace")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # of one that was put in another's place
                stream.reconfigure(errors="backslashreplace")
    with harmless_output():
        return _run(main, args)


def _run(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    try:
        trust(getattr(args, "trust", False))
        for path in getattr(args, "plugin", []):
            load_plugin(path)
        main(args)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except OSError as e:
        print(f"error: {_of_system(e)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print(interrupts.line(str(e)), file=sys.stderr)
        return interrupts.STATUS
    return 0


def _of_thread(args: threading.ExceptHookArgs) -> None:
    """What a disk did not take, TensorBoard says again where it is written next."""
    if args.exc_value is None or refused_by_disk(args.exc_value) is None:
        threading.__excepthook__(args)


def _of_system(error: OSError) -> str:
    """A line of what the system, or a library in its name, did not do."""
    if error.filename:
        return shown(f"{error.filename}: {error.strerror}")  # such as a name too long
    return error.strerror or (str(error).splitlines() or [type(error).__name__])[0]


def start_script(main: Callable[[argparse.Namespace], None], parse: Callable[[], argparse.Namespace]) -> int:
    """`run_script` with the command line's options; what plug-in files register is among the choices of them."""
    first = argparse.ArgumentParser(add_help=False)
    add_plugin_option(first)

    def begin(_: argparse.Namespace) -> None:
        args = parse()
        trust(getattr(args, "trust", False))
        main(args)

    threading.excepthook = _of_thread
    with interrupts.heard(is_script=True):
        return run_script(begin, first.parse_known_args()[0])


class NamedValues(argparse.Action):
    """An option's words, each ``NAME=NUMBER``, as a dictionary; a file that says them has None (`habits.take_hyp`)."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        found: dict[str, float | None] = {item: None for item in values if item.lower().endswith((".yaml", ".yml"))}
        try:
            pairs = (item.split("=", 1) for item in values if item not in found)
            found |= {name: float(value) for name, value in pairs}
        except ValueError:
            parser.error(f"{option} {' '.join(values)}: right would be NAME=NUMBER, such as mosaic=0.5, or FILE.yaml")
        setattr(namespace, self.dest, found)


def _number(kind: Callable[[str], Any], says: str, fits: Callable[[Any], bool]) -> Callable[[str], Any]:
    """Type of an option: a number that `fits`; `says` is what it must be."""

    def read(text: str) -> Any:
        value = kind(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"must be {says}, got {shown(text)}")
        return value

    read.__name__ = kind.__name__  # argparse says of other text: invalid int value
    return read


def _count(most: int, least: int = 1) -> Callable[[str], Any]:
    says = f"at least {least}" if most == limits.COUNT else f"{least} to {most:,}"
    return _number(int, says, lambda n: least <= n <= most)


positive_int = _count(limits.COUNT)
natural = _count(limits.COUNT, 0)
side, batch_size, threads, archs = map(_count, (limits.SIDE, limits.BATCH, limits.THREADS, limits.ARCHS))
AUTO = -1  # of --batch, as YOLOv5 has it too


def batch_or_auto(text: str) -> int:
    """Type of ``--batch``: a number, or `AUTO`."""
    return AUTO if text in ("auto", str(AUTO)) else batch_size(text)


batch_or_auto.__name__ = "int"
processes, none_or_processes = _count(limits.PROCESSES), _count(limits.PROCESSES, 0)
port = _count(65535)
seed = _number(int, "0 to 4294967295", lambda n: 0 <= n < 2**32)  # NumPy takes no others
_LARGEST = 3.4e38  # of float32, as weights and rates are
positive_float = _number(float, "greater than 0, and a number that float32 has", lambda x: 0 < x <= _LARGEST)
not_negative = _number(float, "at least 0, and a number that float32 has", lambda x: 0 <= x <= _LARGEST)
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
    how: dict[str, Any] = {"nargs": "*", "action": "extend", "default": [], "metavar": "FILE", "type": filled}
    add_option(parser, "--plugin", advanced=True, help=help, **how)


def add_trust_option(parser: Any) -> None:
    """For scripts that take the folder of a run."""
    help = "the folder of a run that is given may run code: plug-ins that it names, pickles, commands of its trials"
    add_option(parser, "--trust", advanced=True, action="store_true", help=help)


def add_run_options(parser: argparse.ArgumentParser, project: str, resumes: bool = False) -> None:
    """Options that say where a run's files go, as YOLOv5 has them."""
    add = functools.partial(add_option, parser)
    add("--project", advanced=True, default=project, type=filled, help="folder of runs")
    add("--name", default="exp", type=filled, help="name of this run; a number is added where it is taken")
    help = "write into the folder of an earlier run of this name"
    add("--exist-ok", advanced=True, action="store_true", help=help)
    if resumes:
        help = "go on with a run, given its folder or a file in it; it keeps its options"
        add("--resume", metavar="RUN", type=filled, help=help)
        add_trust_option(parser)


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
    from .admission import admit
    from .folder import RunFolder

    if args.resume:
        run, saved = RunFolder.resume(args.resume)
        again = ["plugin", *resumed_options(options)]
        refuse_others(args, ("resume", "trust", *again, *beside), "a run that is gone on with keeps its options")
        saved |= {name: args.given[name] for name in again if name in args.given}
        saved = checked(options, admit(run, saved), f"--resume {run.path}: its config.yaml")
    else:
        run, saved = (new_run or RunFolder)(args.project, args.name, args.exist_ok), {}
    with run.held(needs="config.yaml"):
        given = options(**saved) if saved else made(options, args)

        def how() -> str:
            return f"go on with {resume_command(run.path)}" if (run.path / "config.yaml").exists() else ""

        try:
            with interrupts.told(how):
                work(given, run, resume=bool(args.resume))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(how()) from None
        except Exception as e:
            if (why := refused_by_disk(e)) is None:
                raise
            then = f"; right would be to make room, then to {way}" if (way := how()) else ""
            raise InputError(f"{why.filename or run.path}: {why.strerror}{then}") from None
