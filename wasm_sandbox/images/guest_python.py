"""What an installer has to know of the guest's Python: version, environment markers, what is built in."""

from __future__ import annotations

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from wasm_sandbox.engine import Artifact
from wasm_sandbox.errors import PackageError

_NO_DISTRIBUTIONS = frozenset({"cpython", "zlib", "bzip2", "liblzma", "sqlite"})
_DATA_ONLY_INSIDE = frozenset({"tzdata"})
"""Built in for zoneinfo only: who wants its files gets the real one."""


class GuestPython:
    """The guest's Python as packages see it."""

    def __init__(self, artifact: Artifact) -> None:
        self.full_version = artifact.versions["cpython"]
        self.version = ".".join(self.full_version.split(".")[:2])
        self.built_in = {
            str(canonicalize_name(name)): version
            for name, version in artifact.versions.items()
            if name not in _NO_DISTRIBUTIONS | _DATA_ONLY_INSIDE
        }

    @property
    def built_in_text(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in sorted(self.built_in.items()))

    def wants(self, requirement: Requirement, extras: frozenset[str] = frozenset()) -> bool:
        """Whether a requirement's marker holds in the guest."""
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
        return any(requirement.marker.evaluate({**environment, "extra": extra}) for extra in (extras or {""}))

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


def parse_requirement(text: str) -> Requirement:
    """A requirement by name and version.

    Raises:
        PackageError: if it is none, or it names a file or an address.
    """
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise PackageError(f"{text!r} is no requirement: {reason}; write for example 'lark' or 'lark>=1.2'") from None
    if requirement.url:
        raise PackageError(f"{text!r} names an address: download its wheel, and give that as a local package")
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
