"""Imports between the rooms run one way, in a room they make no circle, and NNI has one door.

``python tests/test_rooms.py`` prints the picture of docs/architecture.md anew.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "models": set(),
    "data": {"models"},
    "spaces": {"models", "data"},
    "optimizer": {"models", "data", "spaces"},
    "experiments": {"models", "data", "spaces", "optimizer"},
}
# Each room of experiments/ imports those before it. A trained supernet is opened by teachers, by candidates that begin
# with its weights, and by the strategies that search it themselves: so supernets/ stands before multi_trial/ and
# oneshot/.
ROOMS = (
    *("run", "tasks", "costs", "proxies", "training", "inference", "search", "nni_experiment", "supernets"),
    *("multi_trial", "oneshot", "find"),
)
FILES = [(room, path) for room in MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py"))]
IN_ROOMS = sorted((ROOT / "experiments").glob("*/**/*.py"))


def name_of(path):
    """The module's name; of a package without ``.__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for _, path in FILES}


def imported(path, everywhere=True):
    """Modules that a file imports; only when it is loaded itself, or anywhere in it."""
    package = name_of(path) if path.stem == "__init__" else name_of(path).rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else at_load(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


def at_load(tree):
    """Nodes of a module that run when it is loaded: not those of functions, nor what is for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from at_load(node)


@pytest.mark.parametrize(("room", "path"), FILES, ids=[str(p.relative_to(ROOT)) for _, p in FILES])
def test_no_room_imports_one_to_its_right(room, path):
    found = {name.split(".")[0] for name in imported(path)}
    assert found & set(MAY_IMPORT) <= MAY_IMPORT[room] | {room}
    if path != ROOT / "spaces/nni_compat.py":
        assert "nni" not in found, "NNI has one door: spaces.nni_compat"


@pytest.mark.parametrize("path", IN_ROOMS, ids=[str(p.relative_to(ROOT)) for p in IN_ROOMS])
def test_rooms_of_experiments_import_downwards(path):
    room = path.relative_to(ROOT / "experiments").parts[0]
    found = {name.split(".")[1] for name in imported(path) if name.startswith("experiments.")}
    assert found <= set(ROOMS[: ROOMS.index(room) + 1])


def test_no_circles():
    """Neither between files nor between rooms; a package's names are imported when they are first used."""
    edges = {
        name_of(path): {m for m in imported(path, everywhere=False) if m in MODULES and m != name_of(path)}
        for _, path in FILES
    }
    done, way = set(), []

    def visit(module):
        if module in way:
            raise AssertionError(" -> ".join([*way[way.index(module) :], module]))
        if module not in done:
            way.append(module)
            for other in sorted(edges[module]):
                visit(other)
            done.add(way.pop())

    for module in edges:
        visit(module)


def test_every_room_says_what_it_is():
    for room in ROOMS:
        text = (ROOT / "experiments" / room / "README.md").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 16
        assert (ROOT / "tests/experiments" / room).is_dir(), "tests mirror the rooms"


def picture():
    """The rooms as a Mermaid graph: an arrow to each room that is imported, unless other arrows lead there."""
    rooms = [*(room for room in MAY_IMPORT if room != "experiments"), *ROOMS]
    edges = {room: set() for room in rooms}
    for top, path in FILES:
        room = path.relative_to(ROOT / "experiments").parts[0] if top == "experiments" else top
        for name in imported(path):
            parts = name.split(".")
            other = parts[1] if parts[0] == "experiments" and len(parts) > 1 else parts[0]
            if room in edges and other in edges and other != room:
                edges[room].add(other)

    def reached(room):
        return edges[room].union(*map(reached, edges[room]))

    lines = ["graph BT"]
    for room in rooms:
        implied = set().union(*map(reached, edges[room]))
        lines += [f"  {room} --> {other}" for other in rooms if other in edges[room] - implied]
    return "\n".join(lines)


def test_the_picture_is_of_the_code():
    assert f"```mermaid\n{picture()}\n```" in (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    print(picture())
