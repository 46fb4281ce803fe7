"""Options said once: the fields of a dataclass make the command line, and what goes with what. Loads no torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import MISSING, Field, field, fields
from typing import Any, get_type_hints

from models.errors import InputError

from . import habits, registry


def option(
    help: str,
    default: Any = MISSING,
    *,
    of: str | tuple[str, ...] = (),
    kind: str | None = None,
    group: str | None = None,
    resumes: bool = False,
    advanced: bool = False,
    text: str | None = None,
    **argument: Any,
) -> Any:
    """A field of a dataclass that is an option, ``--`` and its name; ``--no-…`` where it is True by default.

    Parameters
    ----------
    help
        Of `argparse`; ``{names}`` stands for the names of `kind`.
    default
        Without any, the option is required.
    of
        The options, one of which has to be given for this one to be of use; one with a `kind` names what takes it.
    kind
        The values are the registry's names of this kind.
    group
        Title in the help.
    resumes
        Given beside ``--resume``, it takes the place of what the run was started with.
    advanced
        Shown by ``--help-all`` alone.
    text
        The default as it is written on a command line, where that is another.
    **argument
        Of `argparse`'s ``add_argument``.
    """
    owners = (of,) if isinstance(of, str) else of
    argument |= {} if text is None else {"default": text}
    about: dict[str, Any] = {"help": help, "of": owners, "kind": kind, "group": group, "resumes": resumes}
    about |= {"advanced": advanced, "argument": argument}
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata=about)
    return field(default=default, metadata=about)


def scale_option(group: str | None = None) -> Any:
    """The option that says which of the scales of ``--cfg`` is meant; `read_config` takes it."""
    help = "which of the YAML's scales (default: the letter in its name, else the first)"
    return option(help, None, of="cfg", group=group, advanced=True)


def device_option(group: str | None = None) -> Any:
    """The option that says what networks run on; `run.device.device_of` takes it."""
    return option("auto, cpu, cuda, the number of a CUDA device, or mps", "auto", group=group)


def filled(text: str) -> str:
    """Type of an option: text that is not empty, which as a path would mean the folder that one is in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


def logger_option() -> Any:
    """The option that says where else a training's figures go; `run.loggers` makes them."""
    how: dict[str, Any] = {"nargs": "+", "choices": ["wandb", "mlflow"], "metavar": "SERVICE"}
    help = "where figures go besides TensorBoard's event files: wandb, mlflow (packages of their own)"
    return option(help, [], resumes=True, advanced=True, **how)


def options_of(cls: Any) -> list[Field[Any]]:
    """The fields of a dataclass that are options."""
    return [f for f in fields(cls) if f.metadata]


def add_option(parser: Any, flag: str, advanced: bool = False, **how: Any) -> None:
    """Add one option to a parser or a group of one; ``--help`` leaves out what is `advanced`."""
    parser.add_argument(flag, **how).advanced = advanced


def add_options(parser: Any, cls: Any, **groups: Any) -> None:
    """Add the options of a dataclass; `groups` gives groups that are more than a title."""
    for f in options_of(cls):
        about, how = f.metadata, dict(f.metadata["argument"])
        if (title := about["group"]) is not None and title not in groups:
            groups[title] = parser.add_argument_group(title)
        text = about["help"]
        if about["kind"] is not None:
            known = registry.names(about["kind"])
            text = text.replace("{names}", ", ".join(known))
            how.setdefault("choices", None if "type" in how else known)
        flag = f"--{f.name.replace('_', '-')}"
        if f.default is MISSING and f.default_factory is MISSING:
            how["required"] = True
        else:
            how.setdefault("default", f.default if f.default_factory is MISSING else f.default_factory())
        if not {"type", "action", "choices"} & how.keys():
            how["type"] = filled
        if isinstance(f.default, bool):
            how.pop("type", None)
            flag = flag.replace("--", "--no-", 1) if f.default else flag
            how |= {"action": "store_false" if f.default else "store_true", "dest": f.name}
        add_option(groups.get(title, parser), flag, about["advanced"], help=text, **how)


def made(cls: Any, args: argparse.Namespace) -> Any:
    """The dataclass, of what was parsed."""
    return cls(**{f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)})


def checked(cls: Any, saved: dict[str, Any], what: str) -> dict[str, Any]:
    """Options as a file has them, if they are what a command line could have given; else `InputError` names one.

    What is as it is by default is not looked at: defaults may be None where no value can.
    """
    hints, known = get_type_hints(cls), {f.name: f for f in fields(cls)}
    if unknown := sorted({*saved} - {*known}):
        raise InputError(
            f"{what} has options that this version does not know ({', '.join(unknown)}); right would be the script and "
            "the version that began it"
        )
    for f in known.values():
        blank = f.default_factory() if f.default_factory is not MISSING else f.default
        if f.name not in saved:
            if blank is MISSING:
                raise InputError(f"{what} lacks {f.name}")
        elif saved[f.name] != blank:
            _check(f, hints[f.name], saved[f.name], what)
    return saved


def _check(f: Field[Any], hint: Any, value: Any, what: str) -> None:
    from pydantic import TypeAdapter, ValidationError  # a tenth of a second, which --help need not take

    try:
        # As JSON has it: lists for tuples, and whole numbers where there may be others.
        TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (TypeError, ValueError) as e:
        first = e.errors()[0]["msg"] if isinstance(e, ValidationError) else str(e)
        raise InputError(f"{what}: {f.name}: {first}, got {value!r}") from None
    how = f.metadata.get("argument", {})
    single = "nargs" not in how and how.get("action") != "append"
    # What a type makes a list of, it takes text for.
    for one in [value] if single else value if isinstance(value, list) else []:
        if not isinstance(one, (int, float, str)) or isinstance(one, bool):
            continue
        choices = (
            registry.names(f.metadata["kind"]) if f.metadata.get("kind") and "type" not in how else how.get("choices")
        )
        try:
            if "type" in how:
                how["type"](str(one))
        except (argparse.ArgumentTypeError, ValueError) as e:
            raise InputError(f"{what}: {f.name}: {e}") from None
        if choices and one not in choices:
            raise InputError(f"{what}: {f.name}: {one!r} is none of {', '.join(map(str, choices))}")


def parse_args(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The options, and in `given` those that stand on the command line; YOLOv5's names of options do as well."""
    argv = habits.translated(parser, sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    # What is set already, argparse gives no default.
    blank = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args))))
    args.given = {name: value for name, value in vars(blank).items() if value is not None}
    habits.take_hyp(args)
    return args


def refuse(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """`InputError` if one of these options was given."""
    for name in names:
        if name in args.given:
            raise InputError(f"--{'no-' if args.given[name] is False else ''}{name.replace('_', '-')}: {why}")


def refuse_others(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """`InputError` if any other option was given."""
    refuse(args, [name for name in args.given if name not in set(names)], why)


def refuse_unfit(args: argparse.Namespace, cls: Any) -> None:
    """`InputError` if an option was given without what it is `of`."""
    kinds = {f.name: f.metadata["kind"] for f in options_of(cls)}
    for f in options_of(cls):
        owners = f.metadata["of"]
        if f.name not in args.given or not owners:
            continue
        for owner in owners:
            value = getattr(args, owner)
            takers = registry.names(kind, f.name) if (kind := kinds.get(owner)) else []
            if any(v in takers for v in value.split(",")) if kind else value not in (None, False):
                break
        else:
            right = " or ".join(f"--{owner.replace('_', '-')}" for owner in owners)
            why = f"is of no use with --no-{owner}" if value is False and args.given.get(owner) is False else None
            refuse(args, [f.name], why or f"is of {right}{' ' if takers else ''}{', '.join(takers)}")


def resumed_options(cls: Any) -> list[str]:
    """Names of the options that a resumed run takes anew."""
    return [f.name for f in options_of(cls) if f.metadata["resumes"]]
