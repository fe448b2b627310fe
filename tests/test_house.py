"""The laws of the house: who may import whom, read from the source; nothing of the package is imported.

A folder's own law stands in the first lines of its ``__init__.py`` (what it may import, who may import it), and is
read there. The laws that hold for the whole house stand here.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "wasm_sandbox"

VALUES = frozenset(
    {
        "config", "directories", "doors", "environment", "errors", "events", "files", "forks", "limits", "network",
        "options", "outcome", "request", "results", "sizes", "switches", "tracing",
    }
)  # fmt: skip
"""Modules of the top floor that know no machinery."""

FACES = frozenset({"", "__main__", "backends", "script_end"})
"""Modules of the top floor that open the house to a user: the public names, the command, other executors."""

PURE = frozenset({"tool", "script", "decode"})
STAND_ON_PUBLIC_NAMES = frozenset({"cli", "serve", "mcp", "integrations", "parallel", "web"})
MAY_ASK_THE_ENGINE = frozenset({"cli.doctor", "cli.bench"})
"""Modules of the command that are about the engine itself."""

MOST_MODULES = 20
"""In one folder."""

IMPURE_MODULES = frozenset(
    {
        "http.client",
        "http.server",
        "multiprocessing",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "subprocess",
        "tempfile",
        "urllib.request",
    }
)
IMPURE_CALLS = frozenset({"open", "input", "print", "read_bytes", "read_text", "write_bytes", "write_text"})
LOCKS = frozenset({"Barrier", "Condition", "Event", "Lock", "RLock", "Semaphore"})
SCREEN_MODULES = frozenset({"click", "rich"})
MAY_SHOW = frozenset({"parallel.progress"})
"""Modules outside of the command that know the screen: a bar that a caller asks for."""
STORE_MODULES = frozenset({"sqlite3", "images", "stores"})


class Import(NamedTuple):
    """One imported name."""

    by: str
    """The module that imports, without the package's name."""
    module: str
    """A module of the package, without its name; or a foreign one, after ``:``."""
    name: str
    """What is taken out of the module; empty for the module itself."""
    is_lazy: bool
    is_type_only: bool
    has_reason: bool


@cache
def modules() -> dict[str, ast.Module]:
    """Name of each module of the package, without the package's -> its tree."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix("__init__").removesuffix(".")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def path_of(module: str) -> Path:
    place = (ROOT / PACKAGE).joinpath(*module.split(".")) if module else ROOT / PACKAGE
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def imports() -> list[Import]:
    return [found for module in modules() for found in _imports_of(module)]


def _imports_of(module: str) -> Iterator[Import]:
    lines = path_of(module).read_text(encoding="utf-8").splitlines()

    def walk(node: ast.AST, is_lazy: bool, is_type_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if isinstance(child, ast.Import | ast.ImportFrom):
                has_reason = any("# lazy: " in line for line in lines[child.lineno - 1 : child.end_lineno])
                for target, name in _targets(child):
                    yield Import(module, target, name, is_lazy, is_type_only, has_reason)
            yield from walk(child, is_lazy or in_function, is_type_only or for_types)

    yield from walk(modules()[module], False, False)


def _targets(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    for alias in node.names:
        origin = alias.name if isinstance(node, ast.Import) else node.module or ""
        first, _, rest = origin.partition(".")
        if first != PACKAGE:
            yield f":{origin}", "" if isinstance(node, ast.Import) else alias.name
        elif isinstance(node, ast.Import):
            yield rest, ""
        elif (inner := f"{rest}.{alias.name}".lstrip(".")) in modules():
            yield inner, ""
        else:
            yield rest, alias.name


def inside() -> list[Import]:
    """The imports of one module of the package by another."""
    return [found for found in imports() if not found.module.startswith(":")]


def room(module: str) -> str:
    """The folder that a module is in; ``values`` and ``faces`` for those of the top floor."""
    first, _, rest = module.partition(".")
    if rest or (first and (ROOT / PACKAGE / first).is_dir()):
        return first
    return "values" if first in VALUES else "faces" if first in FACES else first


# --- The laws -------------------------------------------------------------------------------------------


def only_the_engine_imports_wasmtime() -> Iterator[str]:
    for found in imports():
        if _foreign(found) == "wasmtime" and room(found.by) != "engine":
            yield f"{found.by} imports wasmtime"


def the_engine_has_one_door() -> Iterator[str]:
    for found in inside():
        if room(found.by) != "engine" and found.module.startswith("engine."):
            yield f"{found.by} imports {found.module}"


def every_module_of_the_top_floor_is_a_value_or_a_face() -> Iterator[str]:
    for module in modules():
        if room(module) not in {"values", "faces"} and not (ROOT / PACKAGE / room(module)).is_dir():
            yield f"{module} is on the top floor"


def values_import_values() -> Iterator[str]:
    for found in inside():
        if room(found.by) == "values" and room(found.module) != "values":
            yield f"{found.by} imports {found.module}"


def pure_rooms_do_nothing_outside() -> Iterator[str]:
    for found in imports():
        if room(found.by) in PURE and found.module[1:] in IMPURE_MODULES and not found.is_type_only:
            yield f"{found.by} imports {found.module[1:]}"
    for module, tree in modules().items():
        if room(module) not in PURE:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _called(node) in IMPURE_CALLS:
                yield f"{module} calls {_called(node)}"
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and _is_os(node.value):
                yield f"{module} reads an environment variable"


def the_engine_knows_no_store_no_environment_variable_and_no_screen() -> Iterator[str]:
    for found in imports():
        if room(found.by) != "engine":
            continue
        first = _foreign(found) or found.module.partition(".")[0]
        if first in SCREEN_MODULES | STORE_MODULES:
            yield f"{found.by} imports {first}"
    for module, tree in modules().items():
        for node in ast.walk(tree) if room(module) == "engine" else ():
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and _is_os(node.value):
                yield f"{module} reads an environment variable"


def only_the_command_and_the_benchmark_know_the_screen() -> Iterator[str]:
    for found in imports():
        if _foreign(found) in SCREEN_MODULES and room(found.by) not in {"cli", "bench"} and found.by not in MAY_SHOW:
            yield f"{found.by} imports {found.module[1:]}"


def users_rooms_stand_on_public_names() -> Iterator[str]:
    """A folder's door, its ``__init__``, is public; what is behind it is not."""
    for found in inside():
        if room(found.by) not in STAND_ON_PUBLIC_NAMES or room(found.module) == room(found.by):
            continue
        is_public = found.module == "" or "." not in found.module
        asks_engine = room(found.module) == "engine" and found.by not in MAY_ASK_THE_ENGINE
        if not is_public or asks_engine:
            yield f"{found.by} imports {found.module}"


def no_private_name_crosses_a_folder() -> Iterator[str]:
    for found in inside():
        is_private = found.name.startswith("_") and not found.name.startswith("__")
        is_private |= any(part.startswith("_") and part != "__main__" for part in found.module.split("."))
        if is_private and found.by.rpartition(".")[0] != found.module.rpartition(".")[0]:
            yield f"{found.by} imports {found.module} {found.name}".rstrip()


def there_is_no_circle_of_modules() -> Iterator[str]:
    yield from _circles((found.by, found.module) for found in inside())


def there_is_no_circle_of_folders() -> Iterator[str]:
    rooms = ((room(found.by), room(found.module)) for found in inside())
    yield from _circles((by, of) for by, of in rooms if by != of and "faces" not in {by, of})


def a_lazy_import_stands_at_a_door_or_has_its_reason() -> Iterator[str]:
    """Not what runs in a guest, whose text is part of the identity of images."""
    for found in imports():
        at_door = path_of(found.by).name == "__init__.py"
        if found.is_lazy and not at_door and not found.has_reason and room(found.by) != "inside":
            yield f"{found.by} imports {found.module} {found.name}".rstrip()


def a_folder_keeps_the_law_in_its_first_lines() -> Iterator[str]:
    for folder in sorted({module.rpartition(".")[0] for module in modules()} - {""}):
        text = ast.get_docstring(modules()[folder]) or ""
        may = re.search(r"^May import: (.+?)\.$", text, re.MULTILINE | re.DOTALL)
        by = re.search(r"^Imported by: (.+?)\.$", text, re.MULTILINE | re.DOTALL)
        if may is None or by is None:
            yield f"{folder} says no law"
            continue
        allowed, users = (set(re.findall(r"[\w.]+", match[1])) for match in (may, by))
        for found in inside():
            if _is_in(found.by, folder) and not _is_in(found.module, folder) and not _named(found.module, allowed):
                yield f"{folder} may not import {found.module} ({found.by})"
            if _is_in(found.module, folder) and not _is_in(found.by, folder) and not _named(found.by, users):
                yield f"{folder} may not be imported by {found.by}"


def a_lock_of_the_process_is_made_for_forks() -> Iterator[str]:
    """One of a module or of a class, or of an object that a module makes: `process_lock` makes it."""
    for module, tree in modules().items():
        if module == "forks":
            continue
        of_process: list[ast.AST] = []
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                of_process += [part for part in node.body if not isinstance(part, ast.FunctionDef)]
                makes = {_called(call) for other in tree.body for call in _calls_of(other)}
                of_process += [node] if node.name in makes else []
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                of_process.append(node)
        for call in {_called(call) for part in of_process for call in _calls_in(part)} & LOCKS:
            yield f"{module} makes a {call}"


def no_folder_is_a_hall() -> Iterator[str]:
    plain = [module for module in modules() if module and path_of(module).name != "__init__.py"]
    for folder in {module.rpartition(".")[0] for module in plain}:
        count = sum(1 for module in plain if module.rpartition(".")[0] == folder)
        if count > MOST_MODULES:
            yield f"{folder or PACKAGE} holds {count} modules"


def _called(node: ast.Call) -> str:
    function = node.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _calls_in(node: ast.AST) -> Iterator[ast.Call]:
    return (part for part in ast.walk(node) if isinstance(part, ast.Call))


def _calls_of(statement: ast.stmt) -> Iterator[ast.Call]:
    """Calls that importing makes, as far as they stand in a statement of the module itself."""
    return iter(()) if isinstance(statement, ast.FunctionDef | ast.ClassDef) else _calls_in(statement)


def _foreign(found: Import) -> str:
    """The first part of the name of a foreign module; empty for one of the package."""
    return found.module[1:].partition(".")[0] if found.module.startswith(":") else ""


def _is_os(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"


def _is_in(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


def _named(module: str, names: set[str]) -> bool:
    """Whether a module, its folder or one of the folders above is among the names; all of them if that says so."""
    parts = module.split(".")
    above = {".".join(parts[: n + 1]) for n in range(len(parts))}
    return bool(names & (above | {room(module), "everything"}))


def _circles(edges: Iterator[tuple[str, str]]) -> Iterator[str]:
    """The strongly connected parts of a graph that are more than a point (Tarjan 1972)."""
    graph: dict[str, set[str]] = defaultdict(set)
    for start, end in edges:
        graph[start].add(end)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[str]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                yield from visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            part = [stack.pop()]
            while part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                yield "circle of " + " ".join(sorted(part))

    for node in sorted(graph):
        if node not in index:
            yield from visit(node)


LAWS = [
    only_the_engine_imports_wasmtime,
    the_engine_has_one_door,
    every_module_of_the_top_floor_is_a_value_or_a_face,
    values_import_values,
    pure_rooms_do_nothing_outside,
    the_engine_knows_no_store_no_environment_variable_and_no_screen,
    only_the_command_and_the_benchmark_know_the_screen,
    users_rooms_stand_on_public_names,
    no_private_name_crosses_a_folder,
    there_is_no_circle_of_modules,
    there_is_no_circle_of_folders,
    a_lazy_import_stands_at_a_door_or_has_its_reason,
    a_folder_keeps_the_law_in_its_first_lines,
    a_lock_of_the_process_is_made_for_forks,
    no_folder_is_a_hall,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_house_keeps_its_law(law: Callable[[], Iterator[str]]) -> None:
    assert sorted(set(law())) == []


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / PACKAGE).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_a_circle_is_found_also_through_a_third_module() -> None:
    edges = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]
    assert list(_circles(iter(edges))) == ["circle of a b c"]


def test_a_chain_is_no_circle() -> None:
    assert list(_circles(iter([("a", "b"), ("b", "c"), ("a", "c")]))) == []
