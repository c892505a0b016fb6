"""Data flows one way: every room imports only from those above it in CONTRIBUTING's table."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "trustvlm"
LINES = re.findall(
    r"^\| (`[^|]*`) \|[^|]*\| ([^|]*) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M
)
POSITION = {
    room: position
    for position, (names, _) in enumerate(LINES)
    for room in re.findall(r"`(\w+)`", names)
}
# Rooms that may import these rooms alone, beside the core of the first line.
LEARNING = ("calibration", "risk_control", "data_quality", "monitoring")
ALONE = {
    "metrics": set(),
    "scores": set(),
    **{room: {"metrics", "scores"} for room in LEARNING},
    "decisions": set(LEARNING),
    "images": set(),
}
CORE = {room for room, position in POSITION.items() if position == 0}
MODULES = {
    ".".join(("trustvlm", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SOURCE.rglob("*.py"))
}
# The package itself imports nothing before it is asked for a name.
FACES = {"trustvlm", "trustvlm.__main__"}


def imports(module):
    """Modules of trustvlm that a module names in an import: late ones and those for types too."""
    targets = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                targets.add(full if full in MODULES else node.module)
    return {target for target in targets if target in MODULES and target != module}


IMPORTS = {module: imports(module) for module in MODULES}


def room_of(module):
    return module.split(".")[1]


def test_every_room_is_on_the_map():
    assert {room_of(module) for module in MODULES if module not in FACES} <= POSITION.keys()


@pytest.mark.parametrize("room", sorted(POSITION))
def test_a_room_imports_only_from_those_above(room):
    wrong = []
    for module in IMPORTS.keys() - FACES:
        if room_of(module) != room:
            continue
        for target in IMPORTS[module]:
            assert target != "trustvlm", f"{module} imports the whole package"
            other = room_of(target)
            if other == room:
                continue
            allowed = POSITION[other] <= POSITION[room]
            if room in ALONE:
                allowed = other in ALONE[room] | CORE
            if not allowed:
                wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_no_import_runs_in_a_circle():
    """Neither when modules are imported, nor late, nor for types alone."""
    try:
        list(TopologicalSorter(IMPORTS).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
