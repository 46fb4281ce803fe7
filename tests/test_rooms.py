"""Imports between the rooms run one way, and NNI has one door."""

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
FILES = [(room, path) for room in MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(("room", "path"), FILES, ids=[str(p.relative_to(ROOT)) for _, p in FILES])
def test_no_room_imports_one_to_its_right(room, path):
    found = set(imported(path))
    assert found & set(MAY_IMPORT) <= MAY_IMPORT[room] | {room}
    if path != ROOT / "spaces/nni_compat.py":
        assert "nni" not in found, "NNI has one door: spaces.nni_compat"
