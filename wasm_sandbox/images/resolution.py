"""From requirements to the distributions that a guest needs: which versions fit together, for the guest's Python."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name

from wasm_sandbox.errors import PackageError
from wasm_sandbox.images.archive import MAX_IMAGE_BYTES
from wasm_sandbox.images.guest_python import GuestPython, parse_requirement
from wasm_sandbox.images.installer import Offer, Wanted
from wasm_sandbox.images.wheels import Distribution

MAX_DISTRIBUTIONS = 200
"""That one image may need."""
MAX_ASKED = 300
"""How often the index may be asked for one name, in all; each time may be a download."""
MAX_STEPS = 2000
"""How many choices may be tried."""


class Source(Protocol):
    """Where distributions come from; see `Index`."""

    def newest(self, wanted: Wanted) -> Mapping[str, Offer | None]:
        """For each name the newest version that fits; ``None`` if none does."""

    def read(self, offer: Offer) -> Distribution:
        """An offered distribution with its files."""

    def explain(self, name: str, versions: SpecifierSet) -> str:
        """Why there is nothing, as a clause for the user."""


def resolve(
    requirements: Sequence[Requirement], local: Sequence[Distribution], python: GuestPython, source: Source
) -> dict[str, Distribution]:
    """The distributions that requirements and local wheels need in the guest, by name.

    No installer resolves anything: each distribution is had by name and version, and what it requires is read here.
    The newest versions are tried first, those of a dependency before those of what needs it.

    Args:
        requirements: what is asked for.
        local: distributions that are there already; no other version of them is looked for.
        python: the guest's.
        source: of all others.

    Raises:
        PackageError: if they cannot be had, do not fit together, or one requires anything but names and versions.
    """
    given: dict[str, Distribution] = {}
    for one in local:
        if given.setdefault(one.name, one) is not one:
            raise PackageError(f"{one.name} is given twice: as {given[one.name].version} and as {one.version}")
        if not python.fits(one.requires_python):
            raise PackageError(
                f"{one.name} {one.version} requires Python {one.requires_python}, "
                f"and the guest's is {python.full_version}"
            )
    asked = [requirement for requirement in requirements if python.wants(requirement)]
    for requirement in asked:
        python.has(requirement)
    search = _Search([*asked, *(Requirement(name) for name in given)], given, python, source)
    found: dict[str, Distribution] = {}
    size = 0
    for name, offer in search.solve().items():
        if name in given:
            one = given[name]
        elif name in python.built_in:
            continue
        else:
            one = source.read(offer)
        size += sum(map(len, one.files.values()))
        if size > MAX_IMAGE_BYTES:
            raise PackageError(f"the packages of an image may take {MAX_IMAGE_BYTES >> 20} MiB together")
        found[name] = one
    return found


@dataclass
class _Demand:
    """What is asked of one name, all told."""

    specifiers: frozenset[Specifier] = frozenset()
    by: set[str] = field(default_factory=set)
    """Names of the distributions that ask for it; none for what the user asks for."""
    texts: dict[str, None] = field(default_factory=dict)
    """Who asks for what, for messages."""

    @property
    def versions(self) -> SpecifierSet:
        return _versions(self.specifiers)

    def allows(self, version: str) -> bool:
        return _allows(self.specifiers, version)


class _Conflict(Exception):
    """Nothing fits, as long as the distributions of these names are what they are."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names


class _Search:
    """Backtracking search, with jumps back to what is to blame (conflict-directed backjumping, Prosser 1993).

    Args:
        roots: what must be met.
        given: distributions that are the only ones of their names.
        python: the guest's.
        source: of all others.
    """

    def __init__(
        self, roots: Sequence[Requirement], given: Mapping[str, Distribution], python: GuestPython, source: Source
    ) -> None:
        self._roots = roots
        self._python = python
        self._source = source
        built_in = {name: Distribution(name, version) for name, version in python.built_in.items()}
        self._only = {name: Offer(one.without_files()) for name, one in {**built_in, **given}.items()}
        self._given = given
        # Name -> what was asked, and the newest version that there was.
        self._answers: dict[str, list[tuple[frozenset[Specifier], Offer | None]]] = {}
        self._unfit: dict[str, frozenset[Specifier]] = {}
        self._required: dict[tuple[str, str, frozenset[str]], list[Requirement]] = {}
        self._parsed: dict[tuple[str, str], list[Requirement]] = {}
        self._asked = 0
        self._steps = 0
        self._dead_end: tuple[str, _Demand] | None = None

    def solve(self) -> dict[str, Offer]:
        """The newest versions that fit together.

        Raises:
            PackageError: if there are none, or it takes too long to find them.
        """
        try:
            return self._extended({})
        except _Conflict:
            raise self._explained() from None

    def _extended(self, chosen: Mapping[str, Offer]) -> dict[str, Offer]:
        """A choice that meets everything, made of one that is not complete."""
        self._count_step()
        demands = self._demands(chosen)
        for name, offer in chosen.items():
            if not demands[name].allows(offer.distribution.version):
                self._note(name, demands[name])
                raise _Conflict({name, *demands[name].by})
        missing = [name for name in demands if name not in chosen]
        if not missing:
            return dict(chosen)
        self._look_ahead(chosen)
        hopeless = [name for name in missing if self._known(name, demands[name].specifiers) == [None]]
        name = (hopeless or missing)[0]
        blamed = set(demands[name].by)
        for offer in self._versions(name, demands[name]):
            try:
                return self._extended({**chosen, name: offer})
            except _Conflict as conflict:
                if name not in conflict.names:
                    raise
                blamed |= conflict.names - {name}
        raise _Conflict(blamed)

    def _versions(self, name: str, demand: _Demand) -> Iterator[Offer]:
        """All versions that are allowed, the newest first."""
        specifiers = demand.specifiers
        while (offer := self._newest(name, specifiers)) is not None:
            yield offer
            specifiers |= {Specifier(f"!={offer.distribution.version}")}
        if specifiers == demand.specifiers:
            self._note(name, demand)

    # -- what is required -----------------------------------------------------------------------------------

    def _demands(self, chosen: Mapping[str, Offer]) -> dict[str, _Demand]:
        demands: dict[str, _Demand] = {}
        seen: set[tuple[str, frozenset[str]]] = set()
        pending: deque[tuple[Requirement, str]] = deque((root, "") for root in self._roots)
        while pending:
            requirement, by = pending.popleft()
            name, extras = str(canonicalize_name(requirement.name)), frozenset(requirement.extras)
            demand = demands.setdefault(name, _Demand())
            demand.specifiers |= frozenset(requirement.specifier)
            demand.by |= {by} - {""}
            who = f"{by} {chosen[by].distribution.version} needs " if by else ""
            demand.texts[f"{who}{requirement.name}{requirement.specifier}"[:300]] = None
            if name in chosen and (name, extras) not in seen:
                seen.add((name, extras))
                pending += [(required, name) for required in self._requirements(chosen[name], extras)]
        if len(demands) > MAX_DISTRIBUTIONS:
            raise PackageError(f"{self._texts()} need more than {MAX_DISTRIBUTIONS} distributions")
        return demands

    def _requirements(self, offer: Offer, extras: frozenset[str]) -> list[Requirement]:
        """What a distribution requires in the guest, of itself and for its extras.

        Raises:
            PackageError: if a requirement of it, also one that does not count in the guest, is no name with versions.
        """
        one = offer.distribution
        key = (one.name, one.version)
        if key not in self._parsed:
            by = f"{one.name} {one.version}"
            self._parsed[key] = [parse_requirement(text, by=by) for text in one.requires]
        if (*key, extras) not in self._required:
            counting = [required for required in self._parsed[key] if self._python.wants(required, extras | {""})]
            self._required[*key, extras] = counting
        return self._required[*key, extras]

    # -- what there is --------------------------------------------------------------------------------------

    def _look_ahead(self, chosen: Mapping[str, Offer]) -> None:
        """Ask for all that would be needed if the newest of everything were taken: many names at a time."""
        hoped = dict(chosen)
        while True:
            demands = self._demands(hoped)
            unknown: dict[str, frozenset[Specifier]] = {}
            grown = False
            for name, demand in demands.items():
                if name in hoped:
                    continue
                known = self._known(name, demand.specifiers)
                if known == []:
                    unknown[name] = demand.specifiers
                elif known[0] is None:
                    return
                else:
                    hoped[name] = known[0]
                    grown = True
            if unknown:
                self._ask(unknown)
            elif not grown:
                return

    def _newest(self, name: str, specifiers: frozenset[Specifier]) -> Offer | None:
        while not (known := self._known(name, specifiers)):
            self._ask({name: specifiers})
        return known[0]

    def _known(self, name: str, specifiers: frozenset[Specifier]) -> list[Offer | None]:
        """The newest that fits, or ``None`` if it is known that none does; empty if nothing is known."""
        if name in self._only:
            only = self._only[name]
            return [only if _allows(specifiers, only.distribution.version) else None]
        specifiers |= self._unfit.get(name, frozenset())
        for asked, offer in self._answers.get(name, ()):
            if not asked <= specifiers:
                continue
            if offer is not None and _allows(specifiers, offer.distribution.version):
                return [offer]
            # A pinned version may be one that was withdrawn; one before its release has to be named.
            named = any(one.operator in ("==", "===") or one.prereleases for one in specifiers - asked)
            if offer is None and not named:
                return [None]
        return []

    def _ask(self, wanted: Mapping[str, frozenset[Specifier]]) -> None:
        self._asked += len(wanted)
        if self._asked > MAX_ASKED:
            raise PackageError(
                f"it takes more than {MAX_ASKED} downloads to find versions for {self._texts()} that fit together: "
                "say which ones you want"
            )
        narrowed = {name: specifiers | self._unfit.get(name, frozenset()) for name, specifiers in wanted.items()}
        found = self._source.newest({name: _versions(specifiers) for name, specifiers in narrowed.items()})
        for name, specifiers in narrowed.items():
            offer = found[name]
            if offer is not None:
                one = offer.distribution
                if not _allows(specifiers, one.version):
                    raise PackageError(f"the index gave {name} {one.version} for {name}{_versions(specifiers)}")
                if not offer.unfit and not self._python.fits(one.requires_python):
                    offer = Offer(one, offer.place, f"{name} {one.version} requires Python {one.requires_python}")
                if offer.unfit:
                    self._unfit[name] = self._unfit.get(name, frozenset()) | {Specifier(f"!={one.version}")}
            self._answers.setdefault(name, []).append((specifiers, offer))

    # -- messages -------------------------------------------------------------------------------------------

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise PackageError(f"no versions for {self._texts()} were found that fit together: say which ones you want")

    def _note(self, name: str, demand: _Demand) -> None:
        """Keep the first dead end: it is that of the newest versions."""
        if self._dead_end is None:
            self._dead_end = name, demand

    def _texts(self) -> str:
        roots = [f"{root.name}{root.specifier}" for root in self._roots if root.name not in self._given]
        return ", ".join(roots or self._given)

    def _explained(self) -> PackageError:
        assert self._dead_end is not None
        name, demand = self._dead_end
        asked, needs = self._texts(), "\n".join(demand.texts)
        if name in self._only:
            version = self._only[name].distribution.version
            which = f"the local package {name} {version} is given"
            if name not in self._given:
                which = f"the guest has {name} {version} built in, and no other version of it can be used"
            return PackageError(f"{asked} cannot be had: {needs}; {which}")
        answers = [offer for _, offer in self._answers.get(name, ()) if offer is not None]
        usable = [offer for offer in answers if not offer.unfit]
        if len(demand.texts) > 1 and usable:
            return PackageError(f"the requirements {asked} conflict:\n{needs}")
        if answers and not usable:
            return PackageError(f"{asked} cannot be had: {answers[0].unfit}")
        why = f"{needs}; " if demand.by else ""
        return PackageError(f"{asked} cannot be had: {why}{self._source.explain(name, demand.versions)}")


def _versions(specifiers: frozenset[Specifier]) -> SpecifierSet:
    return SpecifierSet(",".join(sorted(map(str, specifiers))))


def _allows(specifiers: frozenset[Specifier], version: str) -> bool:
    return all(one.contains(version, prereleases=True) for one in specifiers)
