"""From requirements to the distributions that a guest needs: what an installer found, seen with the guest's eyes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from wasm_sandbox.errors import PackageError
from wasm_sandbox.images.guest_python import GuestPython
from wasm_sandbox.images.wheels import Distribution

MAX_ROUNDS = 5

Fetch = Callable[[Iterable[str], GuestPython], list[Distribution]]


def resolve(
    requirements: Sequence[Requirement], local: Sequence[Distribution], python: GuestPython, fetch: Fetch
) -> dict[str, Distribution]:
    """The distributions that requirements and local wheels need in the guest, by name.

    An installer evaluates environment markers for the Python that it runs in (pip) or for a platform of its own
    list (uv), which the guest is neither of. So what only another platform needs is left out again, and what only
    the guest needs is asked for in another round.

    Args:
        requirements: what is asked for.
        local: distributions that are there already.
        python: the guest's.
        fetch: resolves and downloads requirements, each with what it needs.

    Raises:
        PackageError: if they cannot be had, or do not fit together.
    """
    given = {one.name: one for one in local}
    asked = [requirement for requirement in requirements if python.wants(requirement)]
    for one in local:
        asked += [requirement for requirement in _requires(one) if python.wants(requirement)]
    texts = {str(_plain(r)) for r in asked if not python.has(r) and not _satisfied(r, given)}
    found: dict[str, Distribution] = {}
    for _ in range(MAX_ROUNDS):
        if texts:
            found = {one.name: one for one in fetch(texts, python)}
        needed, missing = _closure(asked, {**found, **given}, python)
        if not missing:
            return {**needed, **given}
        texts |= missing
    raise PackageError(f"the requirements {', '.join(sorted(texts))} do not come to an end")


def _closure(
    asked: Sequence[Requirement], available: dict[str, Distribution], python: GuestPython
) -> tuple[dict[str, Distribution], set[str]]:
    """Of what is available what the guest needs, and what it needs besides."""
    needed: dict[str, Distribution] = {}
    missing: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    pending = list(asked)
    while pending:
        requirement = pending.pop()
        name, extras = str(canonicalize_name(requirement.name)), frozenset(requirement.extras)
        if python.has(requirement):
            continue
        one = available.get(name)
        if one is None or not requirement.specifier.contains(one.version, prereleases=True):
            missing.add(str(_plain(requirement)))
        elif (name, extras) not in seen:
            seen.add((name, extras))
            needed[name] = one
            pending += [required for required in _requires(one) if python.wants(required, extras | {""})]
    return needed, missing


def _requires(one: Distribution) -> list[Requirement]:
    try:
        return [Requirement(text) for text in one.requires]
    except InvalidRequirement as error:
        raise PackageError(f"{one.name} {one.version} has a requirement that is none: {error}") from None


def _plain(requirement: Requirement) -> Requirement:
    """Without its marker, which holds."""
    plain = Requirement(str(requirement))
    plain.marker = None
    return plain


def _satisfied(requirement: Requirement, given: dict[str, Distribution]) -> bool:
    one = given.get(str(canonicalize_name(requirement.name)))
    return one is not None and requirement.specifier.contains(one.version, prereleases=True)
