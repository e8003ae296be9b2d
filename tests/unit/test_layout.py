"""The arrows of imports: each room knows only those below it, and only the plugin knows pytest."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ENGINE = REPOSITORY / "opsproof"
# The higher rooms first. What stands together is one floor: rooms of a floor do not know each other.
FLOORS = (
    ("actions", "checks"),
    ("opsproof.plugin",),
    ("opsproof.report",),
    ("opsproof.procedures",),
    ("opsproof.inspection", "opsproof.archive"),
    ("opsproof.system",),
    ("opsproof.intent", "opsproof.inventory"),
    ("opsproof.odoo", "opsproof.neutralizing", "opsproof.journal"),
    ("opsproof.target", "opsproof.machine", "opsproof.chain"),
    ("opsproof.policies",),
    ("opsproof.errors",),
)
# An application of its own, which the engine has no branch for: it may know what any application may.
DEMO = "opsproof.demo"
# Its source, which is copied into releases, and called otherwise there: alone of all it imports relatively.
RELEASED = ENGINE / "demo" / "application"


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def is_module(name: str) -> bool:
    path = REPOSITORY.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, wherever in it."""

    def found() -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0 or RELEASED in path.parents, f"{path} imports relatively"
                package = name_of(path).rpartition(".")[0] if node.level else ""
                module = ".".join(one for one in (package, node.module) if one)
                names = [f"{module}.{alias.name}" for alias in node.names]
                yield from (name if is_module(name) else module for name in names)

    return frozenset(found())


def floor_of(name: str) -> int | None:
    return next((floor for floor, rooms in enumerate(FLOORS) if any(is_in(name, room) for room in rooms)), None)


def room_of(name: str) -> str:
    return next(room for rooms in FLOORS for room in rooms if is_in(name, room))


ENGINE_FILES = [path for path in modules("opsproof", "actions", "checks") if not is_in(name_of(path), DEMO)]


def test_the_engine_was_found() -> None:
    assert len(ENGINE_FILES) > 40


@pytest.mark.parametrize("path", ENGINE_FILES, ids=name_of)
def test_a_module_imports_only_from_the_floors_below(path: Path) -> None:
    name = name_of(path)
    if name == "opsproof":
        assert not [one for one in imports(path) if is_in(one, "opsproof")]
        return
    floor = floor_of(name)
    assert floor is not None, f"{name} stands in no room: give it a floor"
    for imported in imports(path):
        if not (is_in(imported, "opsproof") or is_in(imported, "actions") or is_in(imported, "checks")):
            continue
        if imported == "opsproof":
            continue
        if is_in(imported, DEMO):
            # The default environment is started by the plugin, and by nobody else.
            assert room_of(name) == "opsproof.plugin", f"{name} knows the demo"
            continue
        other = floor_of(imported)
        assert other is not None, f"{name} imports {imported}, which stands in no room"
        is_below = other > floor
        assert is_below or room_of(imported) == room_of(name), f"{name} imports {imported}"


@pytest.mark.parametrize("path", ENGINE_FILES, ids=name_of)
def test_only_the_plugin_and_what_it_runs_import_pytest(path: Path) -> None:
    may = floor_of(name_of(path)) in (0, 1)
    assert may or not [one for one in imports(path) if is_in(one, "pytest") or is_in(one, "_pytest")]


def test_the_demo_is_an_application_and_no_part_of_the_engine() -> None:
    known = {one for path in modules("opsproof/demo") for one in imports(path) if is_in(one, "opsproof")}
    assert {one for one in known if not is_in(one, DEMO)} <= {"opsproof", "opsproof.errors", "opsproof.target"}


def test_what_is_in_the_demos_releases_knows_nothing_but_itself() -> None:
    found = modules("opsproof/demo/application")
    assert len(found) > 15
    for path in found:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{path} imports from above its package"
                assert not is_in(node.module or "", "opsproof"), f"{path} knows opsproof"
            elif isinstance(node, ast.Import):
                assert not [one.name for one in node.names if is_in(one.name, "opsproof")], f"{path} knows opsproof"


@pytest.mark.parametrize(
    "room", ["opsproof", "opsproof/system", "opsproof/archive", "opsproof/inventory", "opsproof/plugin"]
)
def test_no_module_imports_itself_in_a_circle(room: str) -> None:
    graph = {
        name_of(path): {one for one in imports(path) if is_in(one, room.replace("/", "."))} - {name_of(path)}
        for path in modules(room)
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(graph) <= set(order)


@pytest.mark.parametrize("room", ["system", "archive", "inspection", "procedures", "report", "plugin"])
def test_no_two_rooms_within_a_room_know_each_other(room: str) -> None:
    folder = ENGINE / room

    def part_of(name: str) -> str:
        return name.removeprefix(f"opsproof.{room}.").partition(".")[0]

    graph: dict[str, set[str]] = {}
    for path in modules(f"opsproof/{room}"):
        part = part_of(name_of(path))
        graph.setdefault(part, set()).update(part_of(one) for one in imports(path) if is_in(one, f"opsproof.{room}"))
    for part, known in graph.items():
        known.discard(part)
    assert set(graph) >= {one.name for one in folder.iterdir() if (one / "__init__.py").exists()}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("path", [one for one in ENGINE_FILES if floor_of(name_of(one)) != 0], ids=name_of)
def test_the_engine_never_relies_on_assert(path: Path) -> None:
    """`python -O` takes every assert away; only steps assert, which pytest rewrites."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
