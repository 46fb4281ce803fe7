"""``nas NAME …``, which ``pip install -e .`` leaves: ``python NAME.py …`` from any folder."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from models.errors import InputError

SCRIPTS = Path(__file__).resolve().parents[2]


def scripts() -> list[str]:
    """Names of the scripts, which are what lies at the top of the project."""
    return sorted(path.stem for path in SCRIPTS.glob("*.py"))


def main() -> None:
    """Run the script that the first argument names, with the others; exits as the script does."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: nas NAME …, which is: python NAME.py …\n\nNAME: " + ", ".join(scripts()))
        print("\nnas completion bash (or zsh) prints what completes these names and their options")
        return
    sys.path.insert(0, str(SCRIPTS))  # `benchmarks` and the scripts are no packages that are installed
    if name == "completion":
        from .completion import completion

        try:
            print(completion(" ".join(sys.argv[2:]) or "bash", scripts()))
        except InputError as e:
            print(f"error: {e}", file=sys.stderr)
            sys.exit(2)
        return
    if name.removesuffix(".py").replace("-", "_") not in scripts():
        print(f"error: nas {name}: no such script; right would be one of {', '.join(scripts())}", file=sys.stderr)
        sys.exit(2)
    path = SCRIPTS / f"{name.removesuffix('.py').replace('-', '_')}.py"
    sys.argv = [f"nas {name}", *sys.argv[2:]]
    runpy.run_path(str(path), run_name="__main__")
