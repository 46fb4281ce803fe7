"""A help that fits a screen, and ``--help-all`` with every option. Loads no torch."""

from __future__ import annotations

import argparse
from typing import Any

# A value's name in the help, where an option gives none: that of its type says more than the option's own name again.
METAVARS = {"int": "N", "float": "X"}


class Help(argparse.HelpFormatter):
    """Options and what they say beside each other; a default only where it tells something."""

    def __init__(self, prog: str, **how: Any) -> None:
        super().__init__(prog, max_help_position=30, **how)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        name = METAVARS.get(getattr(action.type, "__name__", ""))
        return name or super()._get_default_metavar_for_optional(action)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        tells = action.default not in (None, argparse.SUPPRESS, [], {}) and not isinstance(action.default, bool)
        return f"{action.help} (default: %(default)s)" if tells else action.help


class Everything(argparse.Action):
    """``--help-all``."""

    def __call__(self, parser: Any, *given: Any) -> None:
        print(parser.format_all(), end="")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A script's parser; of its options `add_option` marks those that only ``--help-all`` shows."""

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        super().__init__(prog, description=description, formatter_class=Help)
        self.add_argument("--help-all", action=Everything, nargs=0, default=argparse.SUPPRESS, help="all options")

    def format_usage(self) -> str:
        """One line: options that must be given, or one of which must."""
        needed = [self._way(action) for action in self._actions if action.required]
        for group in self._mutually_exclusive_groups:
            if group.required:
                needed.append(f"({' | '.join(self._way(action) for action in group._group_actions)})")
        return f"usage: {' '.join([self.prog, *needed, '[options]'])}\n"

    def format_help(self) -> str:
        """What ``--help`` prints."""
        number = sum(getattr(action, "advanced", False) for action in self._actions)
        return self._formatted(advanced=False) + (f"\n--help-all shows {number} more\n" if number else "")

    def format_all(self) -> str:
        """What ``--help-all`` prints."""
        return self._formatted(advanced=True)

    def _formatted(self, advanced: bool) -> str:
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(a for a in group._group_actions if advanced or not getattr(a, "advanced", False))
            formatter.end_section()
        return f"{self.format_usage()}\n{formatter.format_help()}"

    def _way(self, action: argparse.Action) -> str:
        return f"{action.option_strings[0]} {self._get_formatter()._format_args(action, action.dest.upper())}"
