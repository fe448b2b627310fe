"""`Functions`: the host functions of a run by module and by name, and what one writes about them in a prompt."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wasm_sandbox.functions.declared import HostFunction
from wasm_sandbox.functions.stubs import guest_source, stubs

DEFAULT_MODULE = "tools"
"""Module that a list of functions is imported from."""


class Functions:
    """Host functions that a guest may call; immutable, and shared by runs.

    Args:
        functions: functions, bound methods or `HostFunction`; or a mapping of names of modules to such.

    Raises:
        TypeError: if one is not callable, or its parameters cannot be found out.
        ValueError: if a name is no name or is there twice in a module, or a type cannot be checked.
    """

    def __init__(self, functions: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None) -> None:
        modules = functions if isinstance(functions, Mapping) else {DEFAULT_MODULE: functions or ()}
        self.by_number: dict[int, HostFunction] = {}
        """Number in requests -> function. It is made of the names of module and function, so that what a session
        kept of another list of functions calls the one of its name, or none."""
        self._sources: dict[int, str] = {}
        self.modules: dict[str, dict[str, int]] = {}
        """Name of a module -> name of a function -> its number."""
        for module, members in modules.items():
            if not all(part.isidentifier() for part in str(module).split(".")) or "." in str(module):
                raise ValueError(f"host functions cannot be imported from {module!r}: name the module as a Python name")
            if callable(members) or isinstance(members, str):
                raise TypeError(f"functions must be a list, or map modules to lists, not hold {members!r} alone")
            self.modules[str(module)] = self._numbered(str(module), members)
        counts: dict[str, int] = {}
        for numbers in self.modules.values():
            for name in numbers:
                counts[name] = counts.get(name, 0) + 1
        self.plain = {
            name: number for numbers in self.modules.values() for name, number in numbers.items() if counts[name] == 1
        }
        """Name -> number of the functions that can be called by plain name: those whose name is there once."""
        self.names = frozenset(self.plain)
        """Names that can be called without an import."""

    def _numbered(self, module: str, members: Iterable[Any]) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for member in members:
            function = HostFunction.of(member)
            if function.name in numbers:
                raise ValueError(f"two host functions of module {module!r} are called {function.name!r}: name one")
            number = zlib.crc32(f"{module}.{function.name}".encode())
            while number in self.by_number:
                number = (number + 1) % (1 << 32)
            numbers[function.name] = number
            self.by_number[number] = function
        return numbers

    def __bool__(self) -> bool:
        return bool(self.by_number)

    def __len__(self) -> int:
        return len(self.by_number)

    @property
    def table(self) -> list[HostFunction]:
        """Functions, in their order."""
        return list(self.by_number.values())

    def module_source(self, name: str) -> str | None:
        """Source of a module for the guest; None if there is none of that name."""
        numbers = self.modules.get(name)
        if numbers is None or not numbers:
            return None
        return "\n".join(map(self._source, numbers.values()))

    def names_source(self, names: Iterable[str]) -> str:
        """Source of the functions of some plain names, for the guest; names that there are not are left out."""
        return "\n".join(self._source(self.plain[name]) for name in dict.fromkeys(names) if name in self.plain)

    def _source(self, number: int) -> str:
        """Source of one function, which is written once."""
        if number not in self._sources:
            self._sources[number] = guest_source(number, self.by_number[number])
        return self._sources[number]

    def stubs(self, module: str | None = None) -> str:
        """Stubs (``.pyi``), for a prompt: signatures and docstrings, and the fields of models and dataclasses.

        Args:
            module: the module whose functions are meant; by default those of all.

        Raises:
            KeyError: if there is no such module.
        """
        chosen = self.modules if module is None else {module: self.modules[module]}
        given = {name: [self.by_number[number] for number in numbers.values()] for name, numbers in chosen.items()}
        modules = {name: members for name, members in given.items() if members}
        return stubs(modules, has_heads=module is None and list(self.modules) != [DEFAULT_MODULE])

    def schemas(self) -> list[dict[str, Any]]:
        """JSON schema of each function: ``name``, ``description`` and ``parameters``."""
        return [function.schema() for function in self.table]
