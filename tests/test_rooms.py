"""Data flows one way: every room imports only from those above it in CONTRIBUTING's table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "trustvlm"
LINES = re.findall(
    r"^\| (`[^|]*`) \|[^|]*\| ([^|]*) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M
)
PLACE = {room: at for at, (names, _) in enumerate(LINES) for room in re.findall(r"`(\w+)`", names)}
MAY = {room: may for names, may in LINES for room in re.findall(r"`(\w+)`", names)}
# Rooms that may import these rooms alone, beside the core of the first line.
LEARNING = ("calibration", "risk_control", "data_quality", "monitoring")
ALONE = {
    "metrics": set(),
    "scores": set(),
    **{room: {"metrics", "scores"} for room in LEARNING},
    "decisions": set(LEARNING),
    "images": set(),
}
CORE = {room for room, at in PLACE.items() if at == 0}


def room_of(module):
    part = module.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imports(module):
    """Rooms that a module imports when it is itself imported; types and late imports are exempt."""
    found = set()
    waiting = list(ast.parse(module.read_text("utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If | ast.Try):
            waiting += ast.iter_child_nodes(node)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "trustvlm" and len(parts) > 1:
                found.add(parts[1])
    return found & PLACE.keys()


MODULES = [
    module
    for module in sorted(SOURCE.rglob("*.py"))
    if module.parent != SOURCE or module.stem in PLACE
]


def test_every_room_is_on_the_map():
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= PLACE.keys()


@pytest.mark.parametrize("room", sorted({room_of(module) for module in MODULES}))
def test_a_room_imports_only_from_those_above(room):
    wrong = []
    for module in MODULES:
        if room_of(module) != room:
            continue
        for other in imports(module) - {room}:
            allowed = PLACE[other] <= PLACE[room]
            if room in ALONE:
                allowed = other in ALONE[room] | CORE
            if not allowed:
                wrong.append(f"{module.relative_to(SOURCE)} imports {other}")
    assert wrong == []
