"""The network of a run: which hosts a guest may reach, and the secrets that are put into its requests. Pure policy.

An entry of ``allow`` or ``deny`` is one of

- ``host``, ``host:port``, ``*.domain``, ``*.domain:port``, ``*``: HTTP with that host. Without a port, ``allow`` means
  443 and 80, ``deny`` every port. ``*.domain`` means the names under the domain, not the domain itself.
- ``[METHOD[,METHOD]] https://host[:port]/path``: such requests only. A ``*`` within the path stands for a piece of one
  segment, at its end for all that follows; a path without one is that path alone.
- ``tcp://host:port``: any protocol, unread. Such an entry overlaps no other one of ``allow``.

What denies wins over what allows. Names are compared as the name service will be asked for them: in lower case,
without a final dot, in ASCII (IDNA). Addresses are compared in their usual notation, whatever notation (octal,
hexadecimal, short) they came in.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike, environ, fspath
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import unquote_to_bytes, urlsplit

from wasm_sandbox.errors import InvalidNetwork
from wasm_sandbox.limits import MIB

MAX_CONNECTIONS = 400
"""Most connections of a run that are open at the same time."""
MAX_POLICY_BYTES = MIB
"""Largest file with a policy, and with a secret."""

_DEFAULT_PORTS = (443, 80)
_SCHEME_PORTS = {"https": 443, "http": 80}
_MAX_NAME_LENGTH = 253
_MAX_SECRET_LENGTH = 16_384
_MIN_SECRET_LENGTH = 6
"""Anything shorter is found by chance in answers and output, where it is scrubbed."""
_DEVIATIONS = frozenset("ßς\u200c\u200d")
"""Characters that the two versions of IDNA turn into different names."""

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def canonical_host(text: str) -> str:
    """Name or address of a host in the one form in which it is compared, resolved and verified.

    Raises:
        InvalidNetwork: if it is neither; the message names it.
    """
    if len(text) > _MAX_NAME_LENGTH + 2:
        raise InvalidNetwork(f"{text[:40]!r}... is too long for the name of a host")
    name = text
    if not text.isascii():
        name = unicodedata.normalize("NFKC", text).replace("\u3002", ".")
    name = name.removesuffix(".").lower()
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    if ":" in name:
        return _canonical_ipv6(name, text)
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _canonical_ipv4(labels, text)
    if not name.isascii():
        labels = _ascii_labels(name, text)
    if len(".".join(labels)) > _MAX_NAME_LENGTH or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidNetwork(f"{text!r} is no name of a host")
    return ".".join(labels)


def _ascii_labels(name: str, text: str) -> list[str]:
    """Labels of a name as the name service knows them."""
    if _DEVIATIONS & set(text):
        raise InvalidNetwork(f"{text!r} means different names in the versions of IDNA: write it in ASCII, as xn--...")
    try:
        return name.encode("idna").decode().lower().split(".")
    except UnicodeError:
        raise InvalidNetwork(f"{text!r} is no name of a host") from None


def _canonical_ipv6(name: str, text: str) -> str:
    try:
        if "%" in name:
            raise ValueError("a zone is one of this machine")
        address = ipaddress.IPv6Address(name)
    except ValueError:
        raise InvalidNetwork(f"{text!r} is no name or address of a host") from None
    return str(address.ipv4_mapped or address)


def _canonical_ipv4(parts: list[str], text: str) -> str:
    """Address in any notation that ``inet_aton`` reads: one to four numbers, decimal, octal or hexadecimal; the last
    one fills what is left.
    """
    try:
        numbers = [_number(part) for part in parts]
        last = numbers.pop()
        if len(numbers) > 3 or any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
            raise ValueError
    except ValueError:
        raise InvalidNetwork(f"{text!r} is no address: its last part is a number") from None
    value = last + sum(number << 8 * (3 - place) for place, number in enumerate(numbers))
    return str(ipaddress.IPv4Address(value))


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or len(text) > 16:
        raise ValueError
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") and len(text) > 1 else int(text)


def is_address(host: str) -> bool:
    """Whether a canonical host is an address and not a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


@dataclass(frozen=True)
class HostPattern:
    """One host, the names under a domain, or every host."""

    name: str
    """Canonical host; that of the domain for its names; empty for every host."""
    is_wildcard: bool

    @classmethod
    def read(cls, text: str) -> HostPattern:
        """Pattern of an entry.

        Raises:
            InvalidNetwork: if it is none.
        """
        if text == "*":
            return cls("", True)
        if not text.startswith("*."):
            return cls(canonical_host(text), False)
        name = canonical_host(text[2:])
        if is_address(name):
            raise InvalidNetwork("there are no names under an address")
        return cls(name, True)

    def matches(self, host: str) -> bool:
        """Whether a canonical host is meant."""
        if not self.is_wildcard:
            return host == self.name
        return not self.name or (host.endswith(f".{self.name}") and not is_address(host))

    def overlaps(self, other: HostPattern) -> bool:
        """Whether there is a host that both mean."""
        if not self.is_wildcard:
            return other.matches(self.name)
        if not other.is_wildcard:
            return self.matches(other.name)
        shorter, longer = sorted((self.name, other.name), key=len)
        return not shorter or shorter == longer or longer.endswith(f".{shorter}")


@dataclass(frozen=True)
class Rule:
    """One entry of ``allow`` or ``deny``, read."""

    entry: str
    host: HostPattern
    ports: tuple[int, ...]
    """Empty for every port."""
    is_raw: bool = False
    scheme: str | None = None
    """Of the requests that are meant; None for any."""
    methods: frozenset[str] = frozenset()
    """Of the requests that are meant; empty for any."""
    path: str | None = None
    """Pattern of the paths of requests that are meant; None for any."""

    @property
    def is_narrow(self) -> bool:
        """Whether some requests to its hosts are not meant."""
        return self.path is not None

    def covers(self, host: str, port: int) -> bool:
        """Whether connections to a canonical host and a port are meant."""
        return (not self.ports or port in self.ports) and self.host.matches(host)

    def overlaps(self, other: Rule) -> bool:
        """Whether there is a connection that both mean."""
        have_port = not self.ports or not other.ports or bool(set(self.ports) & set(other.ports))
        return have_port and self.host.overlaps(other.host)


def read_rule(entry: object, denies: bool = False) -> Rule:
    """Read an entry.

    Args:
        entry: the entry.
        denies: whether it is one of ``deny``, where no port means every port.

    Raises:
        InvalidNetwork: if it is none; the message names it and says what one looks like.
    """
    if not isinstance(entry, str):
        raise InvalidNetwork(f"an entry must be a string, not {type(entry).__name__}: for example 'api.example.com'")
    try:
        return _read_rule(entry.strip(), () if denies else _DEFAULT_PORTS)
    except InvalidNetwork as error:
        raise InvalidNetwork(
            f"{entry!r}: {error}; write 'host', 'host:port', '*.domain', 'GET https://host/path/*' or 'tcp://host:port'"
        ) from None


def _read_rule(entry: str, default_ports: tuple[int, ...]) -> Rule:
    if "://" not in entry:
        host, port = split_host(entry)
        return Rule(entry, HostPattern.read(host), default_ports if port is None else (port,))
    methods, _, url = entry.rpartition(" ")
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    if "@" in place or "?" in rest or "#" in rest:
        raise InvalidNetwork("an entry has no user and no query")
    host, port = split_host(place)
    if scheme == "tcp":
        if port is None or slash or methods:
            raise InvalidNetwork("an entry for any protocol has a port, and neither a path nor a method")
        return Rule(entry, HostPattern.read(host), (port,), is_raw=True)
    if scheme not in _SCHEME_PORTS:
        raise InvalidNetwork(f"there is no scheme {scheme!r}")
    pattern = _path_pattern(f"/{path}") if slash else "/*"
    ports = (_SCHEME_PORTS[scheme] if port is None else port,)
    return Rule(entry, HostPattern.read(host), ports, False, scheme, _read_methods(methods), pattern)


def _read_methods(text: str) -> frozenset[str]:
    """Methods before a URL; empty for any."""
    methods = [method.strip() for method in text.split(",") if method.strip()]
    if methods in ([], ["*"]):
        return frozenset()
    for method in methods:
        if not _TOKEN.fullmatch(method) or method != method.upper():
            raise InvalidNetwork(f"{method!r} is no method")
    return frozenset(methods)


def _path_pattern(path: str) -> str:
    """Pattern in the form in which paths are compared."""
    readings = path_readings(path)
    if readings is None:
        raise InvalidNetwork("its path can be read in more than one way")
    if any(segment.count("*") > 1 for segment in path.split("/")):
        raise InvalidNetwork("a segment of its path has more than one *")
    return readings[0]


def split_host(text: str) -> tuple[str, int | None]:
    """Host and port of ``host``, ``host:port``, ``[address]:port`` or a bare IPv6 address.

    Raises:
        InvalidNetwork: if there is no host, or the port is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (text.count(":") > 1 and not host.endswith("]")):
        host, port = text, ""
    if not host or (colon and not port and host != text):
        raise InvalidNetwork("it has no host" if not host else "it ends in a colon")
    if not port:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16):
        raise InvalidNetwork(f"{port!r} is no port")
    return host, int(port)


def path_readings(path: str) -> list[str] | None:
    """The ways in which servers may read a path, the normal one (RFC 3986) first; None if no rule can be trusted on it.

    Servers decode a path once or twice, or not; drop the parameters of a segment, or repeated slashes; and take a
    backslash for a slash. A rule holds only if each such reading meets it. A path whose reading has a segment of dots,
    a control character or broken encoding is none that a client needs.
    """
    if not path.startswith("/") or len(path) > 16_384 or re.search(r"%(?![0-9A-Fa-f]{2})|[^\x21-\x7e]", path):
        return None
    normal = re.sub(r"%([0-9A-Fa-f]{2})", _keep_or_decode, path)
    readings = [normal]
    text = normal
    for _ in range(4):
        for reading in _variants(text):
            if any(part in (".", "..") for part in reading.split("/")):
                return None
            if reading not in readings:
                readings.append(reading)
        decoded = _decoded(text)
        if decoded is None:
            return None
        if decoded == text:
            return readings
        text = decoded
    return None


def _keep_or_decode(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return chr(code) if code in _UNRESERVED else f"%{match[1].upper()}"


def _decoded(text: str) -> str | None:
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None
    return None if any(ord(char) < 32 or ord(char) == 127 for char in decoded) else decoded


def _variants(text: str) -> Iterator[str]:
    slashed = unicodedata.normalize("NFKC", text).replace("\\", "/")
    bare = re.sub(r";[^/]*", "", re.split(r"[?#]", slashed)[0])
    for reading in (text, slashed, re.split(r"[?#]", slashed)[0], bare):
        yield reading
        yield re.sub(r"/{2,}", "/", reading)


def _matches_path(pattern: str, path: str) -> bool:
    is_open = pattern.endswith("*")
    wanted = pattern.removesuffix("*").split("/")
    parts = path.split("/", len(wanted) - 1 if is_open else -1)
    if len(parts) != len(wanted):
        return False
    if is_open and not parts.pop().startswith(wanted.pop()):
        return False
    return all(map(_matches_segment, wanted, parts))


def _matches_segment(pattern: str, segment: str) -> bool:
    start, star, end = pattern.partition("*")
    if not star:
        return segment == pattern
    return len(segment) >= len(start) + len(end) and segment.startswith(start) and segment.endswith(end)


@dataclass(frozen=True)
class Secret:
    """A value that a guest can use and never reads: it gets a placeholder, and the host puts the value in its place.

    That happens only in requests to the named hosts, over TLS, and there only in the named headers and query
    parameters. A host that sends back what it was sent, in a form in which it is not recognised, still tells the guest.

    Args:
        value: the value: printable ASCII of at least 6 characters.
        hosts: ``host[:port]`` or ``*.domain[:port]``, where no port means 443; ``http://host[:port]`` for one that
            is to get it without TLS.
        headers: names of the headers.
        query: names of the query parameters.
        basic: whether it is also replaced inside ``Basic`` authentication, in a named header.

    Raises:
        InvalidNetwork: if anything of it is wrong; no message holds the value.
    """

    value: str = field(repr=False)
    hosts: Sequence[str]
    headers: Sequence[str] = ("authorization",)
    query: Sequence[str] = ()
    basic: bool = True
    rules: tuple[Rule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        value = self.value
        if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", value):
            raise InvalidNetwork("the value of a secret must be a string of printable ASCII without blanks at its ends")
        if not _MIN_SECRET_LENGTH <= len(value) <= _MAX_SECRET_LENGTH:
            raise InvalidNetwork(
                f"the value of a secret has {_MIN_SECRET_LENGTH} to {_MAX_SECRET_LENGTH} characters, not {len(value)}"
            )
        for name in ("hosts", "headers", "query"):
            _set(self, name, _strings(f"a secret's {name}", getattr(self, name)))
        if not self.hosts:
            raise InvalidNetwork("a secret without hosts is put nowhere: name them, as hosts=['api.example.com']")
        for header in self.headers:
            if not _TOKEN.fullmatch(header):
                raise InvalidNetwork(f"{header!r} is no name of a header")
        _set(self, "headers", tuple(header.lower() for header in self.headers))
        _set(self, "rules", tuple(map(_read_secret_host, self.hosts)))

    def goes_to(self, host: str, port: int, is_tls: bool) -> bool:
        """Whether requests on such a connection may carry it."""
        scheme = "https" if is_tls else "http"
        return any(rule.scheme == scheme and rule.covers(host, port) for rule in self.rules)


def _read_secret_host(entry: str) -> Rule:
    """Hosts that get a secret, by one scheme each."""
    scheme, _, place = entry.rpartition("://")
    try:
        if scheme not in ("", "https", "http") or "/" in place:
            raise InvalidNetwork("it is no host")
        host, port = split_host(place)
        scheme = scheme or "https"
        return Rule(entry, HostPattern.read(host), (port or _SCHEME_PORTS[scheme],), scheme=scheme)
    except InvalidNetwork as error:
        raise InvalidNetwork(f"a secret's host {entry!r}: {error}; write 'host', 'host:port' or '*.domain'") from None


class Decision(NamedTuple):
    """Whether something may be done, and why not.

    Attributes:
        allowed: whether it may.
        host: canonical host.
        is_raw: whether the connection carries any protocol, unread.
        is_narrow: whether another method or path at that host might be refused.
        reason: for the guest, in general words; empty if allowed.
        detail: for the host, with the entry that is missing or denies.
    """

    allowed: bool
    host: str = ""
    is_raw: bool = False
    is_narrow: bool = False
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Network:
    """What a run may reach over the network, and how much of it. Without one there is no network.

    Args:
        allow: entries for what may be reached; see `wasm_sandbox.network` for their forms.
        deny: entries for what may not be reached, whatever ``allow`` says.
        private: whether addresses of private networks and of this machine may be connected to.
        max_connections: connections that are open at the same time, 1 to 400.
        max_requests: HTTP requests of a run.
        max_bytes_in: bytes that a run may receive.
        max_bytes_out: bytes that a run may send.
        connect_seconds: for resolving, connecting and the handshake of one connection, together.
        io_seconds: between two bytes of a connection that the guest waits for.
        ca_file: file of PEM certificates that are trusted besides the system's.
        proxy: ``http://host:port`` of a proxy through which the host connects.
        secrets: name of an environment variable -> `Secret`; the guest finds a placeholder in it.
        on_request: function, plain or async, that is asked before each HTTP request: None lets it pass, `Deny` or
            anything else refuses it.
        record: path of a file that the requests and answers of a run are written to, without secrets.
        replay: path of such a file; answers come from it, and nothing is connected to.

    Raises:
        InvalidNetwork: if anything of it is wrong; the message names it and says what to do.
    """

    allow: Sequence[str]
    deny: Sequence[str] = ()
    private: bool = False
    max_connections: int = 64
    max_requests: int = 1000
    max_bytes_in: int = 64 * MIB
    max_bytes_out: int = 64 * MIB
    connect_seconds: float = 10.0
    io_seconds: float = 60.0
    ca_file: str | PathLike[str] | None = None
    proxy: str | None = field(default=None, repr=False)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    on_request: Callable[..., Any] | None = None
    record: str | PathLike[str] | None = None
    replay: str | PathLike[str] | None = None
    rules: tuple[Rule, ...] = field(init=False, repr=False, compare=False)
    denials: tuple[Rule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _set(self, "allow", _strings("allow", self.allow))
        _set(self, "deny", _strings("deny", self.deny))
        _set(self, "rules", tuple(read_rule(entry) for entry in self.allow))
        _set(self, "denials", tuple(read_rule(entry, denies=True) for entry in self.deny))
        _check_overlaps(self.rules, self.denials)
        self._check_numbers()
        if not isinstance(self.private, bool):
            raise InvalidNetwork(f"private must be True or False, not {self.private!r}")
        if self.on_request is not None and not callable(self.on_request):
            raise InvalidNetwork(f"on_request must be callable, not a {type(self.on_request).__name__}")
        if self.record is not None and self.replay is not None:
            raise InvalidNetwork("a run is either recorded or replayed: leave out record or replay")
        _check_proxy(self.proxy)
        _set(self, "secrets", _checked_secrets(self.secrets))

    def _check_numbers(self) -> None:
        for name in ("max_connections", "max_requests", "max_bytes_in", "max_bytes_out"):
            value = getattr(self, name)
            most = MAX_CONNECTIONS if name == "max_connections" else 1 << 62
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
                raise InvalidNetwork(f"{name} must be a whole number from 1 to {most}, not {value!r}")
        for name in ("connect_seconds", "io_seconds"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 86_400:
                raise InvalidNetwork(f"{name} must be a number of seconds, at most a day, not {value!r}")

    @classmethod
    def of(cls, given: object) -> Network:
        """Network of what a caller gave: one, ``"HOST[,HOST]"``, a list of entries, or a mapping of its fields.

        Raises:
            InvalidNetwork: if it is none of these, or a wrong one.
        """
        if isinstance(given, Network):
            return given
        if isinstance(given, str):
            return cls([entry.strip() for entry in given.split(",") if entry.strip()])
        if isinstance(given, Mapping):
            return cls(**_known_fields(given))
        if isinstance(given, Sequence) and not isinstance(given, bytes):
            return cls(given)
        raise InvalidNetwork(f"network must be a Network, a list of hosts or 'HOST,HOST', not {type(given).__name__}")

    @classmethod
    def read(cls, text: str) -> Network:
        """Network that an option of the command names: ``FILE.toml`` or ``HOST[,HOST]``.

        Raises:
            InvalidNetwork: if the file cannot be read, or anything in it or in the list is wrong.
        """
        return cls.from_file(text) if text.endswith(".toml") and "://" not in text else cls.of(text)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Network:
        """Network of a TOML file.

        Its keys are those of a `Network` that are data. A secret is a table ``[secrets.NAME]`` with ``hosts`` and so
        on, whose value comes from ``env``, the name of a variable of this process, or from ``file``, a path; by default
        from the variable ``NAME``. Relative paths start at the file's directory.

        Raises:
            InvalidNetwork: if the file cannot be read, or anything in it is wrong.
        """
        place = Path(path)
        try:
            fields_of_it = _known_fields(tomllib.loads(_read_bounded(place).decode()))
            tables = fields_of_it.get("secrets", {})
            if not isinstance(tables, Mapping) or "on_request" in fields_of_it:
                raise InvalidNetwork("secrets are tables [secrets.NAME], and on_request can only be given in Python")
            for name in {"ca_file", "record", "replay"} & fields_of_it.keys():
                fields_of_it[name] = place.parent / _string(name, fields_of_it[name])
            fields_of_it["secrets"] = {name: _secret_of(name, tables[name], place.parent) for name in tables}
            return cls(**{"allow": (), **fields_of_it})
        except (ValueError, OSError) as error:
            raise InvalidNetwork(f"{place}: {error}") from None

    def check_connect(self, host: str, port: int) -> Decision:
        """Whether a host and a port may be connected to, before its name is resolved."""
        try:
            name = canonical_host(host)
        except InvalidNetwork as error:
            return Decision(False, reason=f"the network policy does not allow this host: {error}", detail=str(error))
        reason = f"the network policy does not allow {_place(name, port)}"
        for rule in self.denials:
            if not rule.is_narrow and rule.covers(name, port):
                return Decision(False, name, reason=reason, detail=f"{reason}: {rule.entry!r} of deny forbids it")
        found = [rule for rule in self.rules if rule.covers(name, port)]
        if not found:
            return Decision(False, name, reason=reason, detail=f"{reason}: add {_place(name, port)!r} to allow")
        return Decision(True, name, is_raw=found[0].is_raw)

    def check_request(self, method: str, scheme: str, host: str, port: int, target: str) -> Decision:
        """Whether a request may be made on a connection that `check_connect` allowed.

        Args:
            method: as sent.
            scheme: ``https`` or ``http``.
            host: canonical host of the connection.
            port: its port.
            target: path and query, or ``*``.
        """
        path = target.partition("?")[0]
        url = f"{scheme}://{_place(host, port, scheme)}{path}"
        reason = f"the network policy does not allow {method} {url}"
        connection = self.check_connect(host, port)
        if not connection.allowed or connection.is_raw:
            return Decision(False, host, reason=reason, detail=connection.detail or f"{reason}: it is not read as HTTP")
        denials = [rule for rule in self.denials if rule.covers(host, port) and rule.scheme in (None, scheme)]
        allowing = [rule for rule in self.rules if rule.covers(host, port) and rule.scheme in (None, scheme)]
        is_narrow = bool(denials) or all(rule.is_narrow for rule in allowing)
        readings = path_readings(path) if is_narrow else [path]
        if readings is None:
            detail = f"{reason}: its path can be read in more than one way, so no entry with a path applies"
            return Decision(False, host, is_narrow=True, reason=reason, detail=detail)
        for rule in denials:
            if _denies(rule, method, readings):
                return Decision(False, host, reason=reason, detail=f"{reason}: {rule.entry!r} of deny forbids it")
        if any(_allows(rule, method, readings) for rule in allowing):
            return Decision(True, host, is_narrow=is_narrow)
        return Decision(False, host, is_narrow=True, reason=reason, detail=f"{reason}: add '{method} {url}' to allow")


def _allows(rule: Rule, method: str, readings: list[str]) -> bool:
    if rule.methods and method not in rule.methods:
        return False
    if rule.path is None or rule.path == readings[0]:
        return True
    return all(_matches_path(rule.path, reading) for reading in readings)


def _denies(rule: Rule, method: str, readings: list[str]) -> bool:
    """As an entry of ``deny``: any reading of the path meets it, in any case of letters."""
    if rule.methods and method.upper() not in rule.methods:
        return False
    if rule.path is None:
        return True
    pattern = rule.path.casefold()
    return any(_matches_path(pattern, reading.casefold()) for reading in readings)


def _check_overlaps(rules: tuple[Rule, ...], denials: tuple[Rule, ...]) -> None:
    """Refuse an entry for any protocol where another one needs its connections to be read."""
    read = [rule for rule in rules if not rule.is_raw] + [rule for rule in denials if rule.is_narrow]
    for raw in (rule for rule in rules if rule.is_raw):
        for rule in read:
            if raw.overlaps(rule):
                raise InvalidNetwork(
                    f"{raw.entry!r} passes any protocol unread, and {rule.entry!r} is about HTTP at the same host and "
                    "port: leave out one of them"
                )


def _check_proxy(proxy: object) -> None:
    if proxy is None:
        return
    try:
        parts = urlsplit(proxy) if isinstance(proxy, str) else None
        is_right = parts is not None and parts.scheme == "http" and bool(parts.hostname and parts.port)
    except ValueError:
        is_right = False
    if not is_right:
        raise InvalidNetwork("proxy must be http://host:port, or http://user:password@host:port")


def _checked_secrets(secrets: object) -> dict[str, Secret]:
    if not isinstance(secrets, Mapping):
        raise InvalidNetwork(f"secrets must map names to Secret, not be a {type(secrets).__name__}")
    for name, secret in secrets.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise InvalidNetwork(f"{name!r} cannot be the name of a secret: it becomes an environment variable")
        if not isinstance(secret, Secret):
            raise InvalidNetwork(
                f"the secret {name} must be a Secret(value, hosts=[...]), not a {type(secret).__name__}"
            )
    return dict(secrets)


def _known_fields(given: Mapping[Any, Any]) -> dict[str, Any]:
    known = {item.name for item in fields(Network) if item.init}
    if unknown := given.keys() - known:
        names = ", ".join(sorted(map(str, unknown)))
        raise InvalidNetwork(f"there is no {names} of a network (there are: {', '.join(sorted(known))})")
    return dict(given)


def _secret_of(name: str, table: object, directory: Path) -> Secret:
    """Secret of a table of a file."""
    if not isinstance(table, Mapping):
        raise InvalidNetwork(f"secrets.{name} must be a table with hosts; its value comes from env or file")
    rest = dict(table)
    if "value" in rest:
        raise InvalidNetwork(f"secrets.{name}: no value stands in this file: name a variable (env) or a file (file)")
    variable, file = rest.pop("env", None), rest.pop("file", None)
    if variable is not None and file is not None:
        raise InvalidNetwork(f"secrets.{name}: its value comes from env or from file, not from both")
    if unknown := rest.keys() - {"hosts", "headers", "query", "basic"}:
        raise InvalidNetwork(f"secrets.{name}: there is no {', '.join(sorted(unknown))}")
    if file is not None:
        value = _read_bounded(directory / _string(f"secrets.{name}.file", file)).decode().strip()
    else:
        variable = _string(f"secrets.{name}.env", name if variable is None else variable)
        value = environ.get(variable, "")
        if not value:
            raise InvalidNetwork(f"secrets.{name}: the environment variable {variable} is not set")
    try:
        return Secret(value, **{"hosts": (), **rest})
    except InvalidNetwork as error:
        raise InvalidNetwork(f"secrets.{name}: {error}") from None


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_POLICY_BYTES + 1)
    if len(data) > MAX_POLICY_BYTES:
        raise InvalidNetwork(f"{path} is larger than {MAX_POLICY_BYTES} bytes")
    return data


def _strings(what: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise InvalidNetwork(f"{what} must be a list of strings, not {type(given).__name__}: write [...]")
    return tuple(_string(what, item) for item in cast(Sequence[object], given))


def _string(what: str, given: object) -> str:
    if not isinstance(given, str | PathLike):
        raise InvalidNetwork(f"{what}: {type(given).__name__} is no string")
    return str(fspath(given))


def _place(host: str, port: int, scheme: str = "") -> str:
    name = f"[{host}]" if ":" in host else host
    return name if _SCHEME_PORTS.get(scheme) == port else f"{name}:{port}"


def _set(value: object, name: str, content: object) -> None:
    """Set a field of a frozen value while it is made."""
    object.__setattr__(value, name, content)
