"""What an installer has to know of the guest's Python: version, environment markers, what is built in."""

from __future__ import annotations

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from wasm_sandbox.engine import Artifact
from wasm_sandbox.errors import PackageError

_DATA_ONLY_INSIDE = frozenset({"tzdata"})
"""Built in for zoneinfo only: who wants its files gets the real one."""

MAX_REQUIREMENT_CHARS = 4096
_LONGEST_VERSION = 255

_UNREADABLE = (ValueError, RecursionError, LookupError, TypeError, AttributeError)
"""What packaging raises for requirements and markers that are none; those that it documents are ValueErrors."""


class GuestPython:
    """The guest's Python as packages see it."""

    def __init__(self, artifact: Artifact) -> None:
        self.full_version = artifact.versions["cpython"]
        self.version = ".".join(self.full_version.split(".")[:2])
        self.built_in = {
            str(canonicalize_name(name)): version
            for name, version in artifact.distributions.items()
            if name not in _DATA_ONLY_INSIDE
        }

    @property
    def built_in_text(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in sorted(self.built_in.items()))

    def wants(self, requirement: Requirement, extras: frozenset[str] = frozenset()) -> bool:
        """Whether a requirement's marker holds in the guest.

        Raises:
            PackageError: if the marker compares what cannot be compared.
        """
        if requirement.marker is None:
            return True
        environment = {
            "implementation_name": "cpython",
            "implementation_version": self.full_version,
            "os_name": "posix",
            "platform_machine": "wasm32",
            "platform_python_implementation": "CPython",
            "platform_release": "0.0.0",
            "platform_system": "wasi",
            "platform_version": "0.0.0",
            "python_full_version": self.full_version,
            "python_version": self.version,
            "sys_platform": "wasi",
        }
        try:
            return any(requirement.marker.evaluate({**environment, "extra": extra}) for extra in (extras or {""}))
        except _UNREADABLE as error:
            raise PackageError(f"{str(requirement)[:300]!r} has a marker that means nothing: {error}") from None

    def fits(self, requires_python: str) -> bool:
        """Whether the guest's version is one that a ``Requires-Python`` asks for; what means nothing asks for none."""
        try:
            return SpecifierSet(requires_python[:MAX_REQUIREMENT_CHARS]).contains(self.full_version, prereleases=True)
        except ValueError:
            return True

    def has(self, requirement: Requirement) -> bool:
        """Whether a requirement is met by what is built in.

        Raises:
            PackageError: if it is built in, but in a version that does not fit.
        """
        version = self.built_in.get(str(canonicalize_name(requirement.name)))
        if version is None:
            return False
        if not requirement.specifier.contains(version, prereleases=True):
            raise PackageError(
                f"{requirement} cannot be had: the guest has {requirement.name} {version} built in, "
                "and no other version of it can be used"
            )
        return True


def parse_requirement(text: str, *, by: str = "") -> Requirement:
    """A requirement by name and versions. Whatever a marker says of when it counts, the rest must be in order.

    Args:
        text: of the requirement.
        by: the distribution that has it, if it is none of the user's.

    Raises:
        PackageError: if it is none, or it names a file or an address.
    """
    subject = f"{by} requires {text[:300]!r}, which" if by else repr(text[:300])
    if len(text) > MAX_REQUIREMENT_CHARS:
        raise PackageError(f"{subject} is no requirement: it has more than {MAX_REQUIREMENT_CHARS} characters")
    try:
        requirement = Requirement(text)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or ["it cannot be read"])[0]
        example = "" if by else "; write for example 'lark' or 'lark>=1.2'"
        raise PackageError(f"{subject} is no requirement: {reason}{example}") from None
    if requirement.url:
        raise PackageError(f"{subject} names an address: download its wheel, and give that as a local package")
    for versions in requirement.specifier:
        # "===" takes any text, such as a path, which pip looks for.
        try:
            Version(versions.version.removesuffix(".*") if len(versions.version) <= _LONGEST_VERSION else "")
        except ValueError:
            raise PackageError(f"{subject} is no requirement: {str(versions)[:300]!r} names no version") from None
    return requirement


def tool_requirements(pip_requirements: object) -> tuple[str, ...]:
    """The requirements of a tool, from its ``pip_requirements``.

    Args:
        pip_requirements: a list of requirements: texts, or mappings or objects with ``name`` and, if any, ``version``.

    Raises:
        PackageError: if an entry is neither, or is no requirement.
    """
    if pip_requirements is None:
        return ()
    if not isinstance(pip_requirements, list | tuple):
        raise PackageError(f"pip_requirements must be a list, not a {type(pip_requirements).__name__}")
    texts = []
    for entry in pip_requirements:
        if isinstance(entry, str):
            text = entry
        else:
            member = entry.get if isinstance(entry, dict) else lambda name, of=entry: getattr(of, name, None)
            name, version = member("name"), member("version")
            if not isinstance(name, str) or not isinstance(version, str | None):
                raise PackageError("an entry of pip_requirements must be a text, or have a name and a version")
            exact = version is not None and version.strip()[:1].isdigit()
            text = f"{name}{'==' if exact else ''}{version or ''}"
        texts.append(str(parse_requirement(text)))
    return tuple(texts)
