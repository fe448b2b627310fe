"""Plain data in a pickle: the classes it may name, and how each is built from checked arguments.

This table is all that a pickle can reach. A builder gets arguments that are already plain data, checks
their exact types and their sizes, and only then builds. Whatever it raises other than
:class:`ForbiddenPickle` is reported as :class:`CorruptedPickle` by the decoder (``safe_pickle.py``).
"""

from __future__ import annotations

import builtins
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, auto
from fractions import Fraction
from functools import lru_cache, partial
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from operator import eq
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo, available_timezones

ADVICE = "return plain data, a dataclass or a pydantic model"

# gcd, division and comparison with a Decimal are quadratic in the width of an int.
_MAX_ARITHMETIC_BYTES = 1024
_MAX_DECIMAL_TEXT = 10_000
_MAX_ADDRESS_TEXT = 256
_MAX_PATH_PARTS = 256
_MAX_EXCEPTION_ARGS = 32
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+/-]{1,64}")

# CPython keys str and bytes hashes with a per-process secret; all other hashes a guest can compute.
_SECRET_HASHES = frozenset({str, bytes})
_INT = frozenset({int})
_MAX_EQUAL_HASHES = 16
# A pair of keys that meet costs a few nanoseconds at most: one or two seconds for this many.
_MAX_KEY_PAIRS = 2_000_000_000


_PIECE = 4096
"""So many values are worked on in one call of the interpreter, which gives other threads no turn: milliseconds."""


def pieces(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The items, a few thousand at a time; an even number, if there are more."""
    if len(items) <= _PIECE:
        yield items
        return
    for start in range(0, len(items), _PIECE):
        yield items[start : start + _PIECE]


def are_all(kinds: frozenset[type], items: Sequence[Any]) -> bool:
    """Whether every item is exactly of one of the types."""
    if len(items) <= _PIECE:
        return kinds.issuperset(map(type, items))
    return all(kinds.issuperset(map(type, piece)) for piece in pieces(items))


class DecodeError(ValueError):
    """The payload was not decoded. One of the two subclasses says why."""


class CorruptedPickle(DecodeError):
    """The payload is not a well-formed pickle."""


class ForbiddenPickle(DecodeError):
    """The payload holds something other than plain data, or more of it than the limits allow."""


def instance_refused(class_name: str) -> ForbiddenPickle:
    """The error for an instance of a class that the tool defines."""
    return ForbiddenPickle(
        f"the result holds an instance of {printable(class_name)}, a class the tool defines: {ADVICE}"
        " (a dataclass or model that contains itself, or is nested too deeply, is no plain data either)"
    )


def printable(name: str) -> str:
    """A name that a guest chose, made safe to show: one short line."""
    return name if len(name) <= 80 and name.isprintable() else ascii(name[:80])


class KeyGuard:
    """Bounds the time that hashing and comparing keys takes over one whole decoding.

    Dict and set are quadratic when hashes collide, and a guest can make any hash but a string's collide:
    equal hashes, or different ones that are probed in the same places. Hence few keys with one hash, and a
    budget on the pairs of keys that could meet. Consecutive small ints do not count, they cannot collide.
    """

    __slots__ = ("_pairs",)

    def __init__(self) -> None:
        self._pairs = 0

    def admit(self, keys: Sequence[Any]) -> None:
        """Check the keys that one container is about to get.

        Raises:
            TypeError: if a key is not hashable.
            ForbiddenPickle: too many keys that can collide.
        """
        if are_all(_SECRET_HASHES, keys):
            return
        keys = [key for key in keys if type(key) not in _SECRET_HASHES]
        # A table of n keys has more than 1.5 * n slots, so these ints hardly share any.
        if are_all(_INT, keys) and min(map(min, pieces(keys))) >= 0 and max(map(max, pieces(keys))) < 2 * len(keys):
            return
        self._pairs += len(keys) ** 2
        if self._pairs > _MAX_KEY_PAIRS:
            raise ForbiddenPickle(
                "the result holds a dict or set with too many keys that are not strings: "
                "use strings as keys, or return a list"
            )
        if len(keys) > _MAX_EQUAL_HASHES:
            hashes = sorted(map(hash, keys))
            if any(map(eq, hashes, hashes[_MAX_EQUAL_HASHES:])):
                raise ForbiddenPickle("the result holds a dict or set with keys that collide on purpose")


class Fill(Enum):
    """Which opcodes fill a container."""

    ITEMS = auto()
    """APPEND and APPENDS."""
    PAIRS = auto()
    """SETITEM and SETITEMS; keys and values alternate."""
    MEMBERS = auto()
    """ADDITEMS."""
    NOTHING = auto()
    """None: its content came with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Container:
    """A container that collects its content in a plain list and is built when the content is complete."""

    fill: Fill
    finish: Callable[[Any, KeyGuard], object]


class Opened(NamedTuple):
    """What a builder returns for a container that is still to be filled."""

    container: Container
    content: list[Any] | dict[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class PlainClass:
    """A class (or function) that a pickle may name.

    Attributes:
        name: dotted, for messages.
        build: makes a value from arguments; ``None`` if it cannot be called by a pickle.
        kind: the class itself, where it may serve as ``default_factory`` or as the base that protocols 0
            and 1 spell out; ``None`` otherwise.
        takes_class: whether another ``PlainClass`` may be among the arguments.
        is_made: whether a pickle makes instances by ``__new__``, with the arguments of ``build``.
        complete: makes a value from its state, where instances are made without arguments and then get state.
        cost: how many plain values one counts as besides its arguments: by the time that it takes to build.
    """

    name: str
    build: Callable[[tuple[Any, ...]], object] | None = None
    kind: type | None = None
    takes_class: bool = False
    is_made: bool = False
    complete: Callable[[object], object] | None = None
    cost: int = 10


# Containers


def _finish_list(items: list[Any], _: KeyGuard) -> object:
    return items


def _finish_dict(pairs: list[Any], keys: KeyGuard) -> object:
    names = pairs[::2]
    keys.admit(names)
    if len(pairs) <= _PIECE:
        return dict(zip(names, pairs[1::2]))  # noqa: B905 - it is time that counts; they are pairs
    return _filled({}, pairs)


def _finish_ordered(pairs: list[Any], keys: KeyGuard) -> object:
    keys.admit(pairs[::2])
    return _filled(OrderedDict(), pairs)


def _finish_default(factory: type | None, pairs: list[Any], keys: KeyGuard) -> object:
    keys.admit(pairs[::2])
    return _filled(defaultdict(factory), pairs)


def _finish_counter(counts: dict[Any, Any], _: KeyGuard) -> object:
    return Counter(counts)  # the keys were admitted when the dict was built


def _finish_set(members: list[Any], keys: KeyGuard) -> object:
    keys.admit(members)
    return _gathered(members)


def _finish_frozenset(members: list[Any], keys: KeyGuard) -> object:
    keys.admit(members)
    return frozenset(_gathered(members))


def _filled(mapping: dict[Any, Any], pairs: list[Any]) -> dict[Any, Any]:
    for piece in pieces(pairs):
        mapping.update(zip(piece[::2], piece[1::2], strict=True))
    return mapping


def _gathered(members: list[Any]) -> set[Any]:
    gathered: set[Any] = set()
    for piece in pieces(members):
        gathered.update(piece)
    return gathered


def _finish_deque(maxlen: int | None, items: list[Any], _: KeyGuard) -> object:
    return deque(items, maxlen)


LIST = Container(Fill.ITEMS, _finish_list)
DICT = Container(Fill.PAIRS, _finish_dict)
SET = Container(Fill.MEMBERS, _finish_set)
FROZENSET = Container(Fill.NOTHING, _finish_frozenset)
_WHOLE_SET = Container(Fill.NOTHING, _finish_set)
_ORDERED = Container(Fill.PAIRS, _finish_ordered)
_COUNTER = Container(Fill.NOTHING, _finish_counter)


# Builders. TypeError and ValueError say "not what pickle.dumps writes"; no message is needed.


def _check_types(args: tuple[Any, ...], *kinds: type | tuple[type, ...]) -> None:
    """Exact types: a bool is no int here, and a subclass is no match."""
    if len(args) != len(kinds):
        raise TypeError
    for value, kind in zip(args, kinds, strict=True):
        if type(value) not in (kind if isinstance(kind, tuple) else (kind,)):
            raise TypeError


def _check_width(*numbers: int) -> None:
    if any(number.bit_length() > 8 * _MAX_ARITHMETIC_BYTES for number in numbers):
        raise ForbiddenPickle(
            f"the result holds a range or Fraction with an int of more than {_MAX_ARITHMETIC_BYTES} bytes"
        )


def _latin1(args: tuple[Any, ...]) -> bytes:
    _check_types(args, str, str)
    text, encoding = args
    if encoding not in ("latin1", "latin-1"):
        raise ValueError
    return text.encode("latin-1")  # type: ignore[no-any-return]  # its type was checked


def _build_bytes(args: tuple[Any, ...]) -> bytes:
    _check_types(args)
    return b""


def _build_bytearray(args: tuple[Any, ...]) -> bytearray:
    if not args:
        return bytearray()
    if len(args) == 2:
        return bytearray(_latin1(args))
    _check_types(args, bytes)  # an int here would be a size
    return bytearray(args[0])


def _build_complex(args: tuple[Any, ...]) -> complex:
    _check_types(args, float, float)
    return complex(*args)


def _build_range(args: tuple[Any, ...]) -> range:
    _check_types(args, int, int, int)
    _check_width(*args)
    return range(*args)


def _build_slice(args: tuple[Any, ...]) -> slice:
    bound = (type(None), int, float, str, bytes)
    _check_types(args, bound, bound, bound)
    return slice(*args)


def _build_set(container: Container, args: tuple[Any, ...]) -> Opened:
    _check_types(args, list)
    return Opened(container, args[0])


def _build_ordered(args: tuple[Any, ...]) -> Opened:
    _check_types(args)
    return Opened(_ORDERED, [])


def _build_counter(args: tuple[Any, ...]) -> Opened:
    if not args:
        return Opened(_COUNTER, {})
    _check_types(args, dict)
    return Opened(_COUNTER, args[0])


def _build_defaultdict(args: tuple[Any, ...]) -> Opened:
    factory: type | None = None
    if args:
        _check_types(args, (PlainClass, type(None)))
        if args[0] is not None:
            factory = args[0].kind
            if factory is None or factory is object:
                raise ForbiddenPickle(
                    f"the result holds a defaultdict whose factory is {args[0].name}: return a plain dict"
                )
    return Opened(Container(Fill.PAIRS, partial(_finish_default, factory)), [])


def _build_deque(args: tuple[Any, ...]) -> Opened:
    maxlen: int | None = None
    if args:
        _check_types(args, tuple, int)
        if args[0]:
            raise ValueError
        maxlen = args[1]
    return Opened(Container(Fill.ITEMS, partial(_finish_deque, maxlen)), [])


def _check_zone(zone: tzinfo | None) -> None:
    # Exactly these: another tzinfo would be code that runs on comparison.
    if zone is not None and type(zone) not in (timezone, ZoneInfo):
        raise TypeError


def _build_date(args: tuple[Any, ...]) -> date:
    _check_types(args, bytes)
    year_high, year_low, month, day = args[0]
    return date(year_high << 8 | year_low, month, day)


# The pickle forms of datetime and time are parsed here because their constructors do not check them.


def _build_datetime(args: tuple[Any, ...]) -> datetime:
    _check_types(args[:1], bytes)
    (zone,) = args[1:] or (None,)
    _check_zone(zone)
    year_high, year_low, month, day, hour, minute, second, *micro = args[0]
    return datetime(
        year_high << 8 | year_low,
        month & 0x7F,
        day,
        hour,
        minute,
        second,
        _microsecond(micro),
        zone,
        fold=month >> 7,
    )


def _build_time(args: tuple[Any, ...]) -> time:
    _check_types(args[:1], bytes)
    (zone,) = args[1:] or (None,)
    _check_zone(zone)
    hour, minute, second, *micro = args[0]
    return time(hour & 0x7F, minute, second, _microsecond(micro), zone, fold=hour >> 7)


def _microsecond(octets: list[int]) -> int:
    high, middle, low = octets
    return high << 16 | middle << 8 | low


def _build_timedelta(args: tuple[Any, ...]) -> timedelta:
    _check_types(args, int, int, int)
    return timedelta(*args)


def _build_timezone(args: tuple[Any, ...]) -> timezone:
    _check_types(args, timedelta, *[str] * (len(args) - 1))
    return timezone(*args)


def _build_offset(args: tuple[Any, ...]) -> timezone:
    """pydantic's own fixed offset, in seconds, as the standard library's."""
    _check_types(args, int)
    return timezone(timedelta(seconds=args[0]))


@lru_cache(maxsize=1)
def _host_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def zones_are_known() -> bool:
    """Whether this process has looked already which time zones its host has."""
    return _host_zones.cache_info().currsize > 0


# ZoneInfo's own cache forgets: reading the same files again and again would be slow.
@lru_cache(maxsize=1024)
def _host_zone(key: str) -> ZoneInfo:
    return ZoneInfo(key)


def _build_zone(args: tuple[Any, ...]) -> ZoneInfo:
    _check_types(args, str, (bool, int))
    key = args[0]
    # ZoneInfo would open a file, or import a package, by this name: it only gets names known beforehand.
    if not _ZONE_KEY.fullmatch(key) or key not in _host_zones():
        raise ForbiddenPickle(
            f"the result holds the time zone {printable(key)}, which this host does not know: "
            "install tzdata on the host, or return times in UTC"
        )
    return _host_zone(key)


def _build_decimal(args: tuple[Any, ...]) -> Decimal:
    _check_types(args, str)
    if len(args[0]) > _MAX_DECIMAL_TEXT:
        raise ForbiddenPickle(f"the result holds a Decimal of more than {_MAX_DECIMAL_TEXT} characters")
    return Decimal(args[0])


def _build_fraction(args: tuple[Any, ...]) -> Fraction:
    _check_types(args, int, int)
    _check_width(*args)
    return Fraction(*args)


def _build_path(kind: type[PurePosixPath] | type[PureWindowsPath], args: tuple[Any, ...]) -> object:
    if len(args) > _MAX_PATH_PARTS:
        raise ValueError
    _check_types(args, *[str] * len(args))
    return kind(*args)


def _build_address(kind: type[IPv4Address] | type[IPv6Address], args: tuple[Any, ...]) -> object:
    _check_types(args, (int, str))
    return kind(_short(args[0]))


def _build_network(kind: Callable[[str], object], args: tuple[Any, ...]) -> object:
    _check_types(args, str)
    return kind(_short(args[0]))


def _short(address: Any) -> Any:
    if type(address) is str and len(address) > _MAX_ADDRESS_TEXT:
        raise ValueError
    return address


def _build_enum_value(args: tuple[Any, ...]) -> object:
    """Value of a member, as of the enumerations that a tool defines."""
    _check_types(args, (int, str, type(None)))
    return args[0]


def _build_purpose(args: tuple[Any, ...]) -> object:
    _check_types(args, tuple)
    return args[0]


def _build_asn1_object(args: tuple[Any, ...]) -> object:
    """Value of a member of `ssl.Purpose`, as a plain tuple."""
    _check_types(args, int, str, str, str)
    return args


def _build_exception(kind: type[Exception], args: tuple[Any, ...]) -> Exception:
    if len(args) > _MAX_EXCEPTION_ARGS:
        raise ForbiddenPickle(f"the result holds an exception with more than {_MAX_EXCEPTION_ARGS} arguments")
    return kind(*args)


def _build_plain(args: tuple[Any, ...]) -> object:
    (value,) = args
    return value


def _refuse_instance(args: tuple[Any, ...]) -> object:
    _check_types(args, str)
    raise instance_refused(args[0])


def _build_text(args: tuple[Any, ...]) -> str:
    _check_types(args, str)
    return args[0]  # type: ignore[no-any-return]  # its type was checked


def _build_int(args: tuple[Any, ...]) -> int:
    _check_types(args, int)
    return args[0]  # type: ignore[no-any-return]  # its type was checked


# State that BUILD may add


def _only_state(state: object, field: str, kind: type) -> Any:
    if type(state) is not dict or state.keys() != {field}:
        raise TypeError
    _check_types((state[field],), kind)
    return state[field]


def _url_text(state: object) -> str:
    return _only_state(state, "_url", str)  # type: ignore[no-any-return]  # its type was checked


def _masked_text(state: object) -> str:
    """As pydantic shows a secret; the secret itself goes no further."""
    return "*" * 10 if _only_state(state, "_secret_value", str) else ""


def _masked_bytes(state: object) -> bytes:
    return b"*" * 10 if _only_state(state, "_secret_value", bytes) else b""


def _build_uuid(state: object) -> UUID:
    """A UUID from the state that it pickles as."""
    if type(state) is not dict or not {"int"} <= state.keys() <= {"int", "is_safe"}:
        raise TypeError
    _check_types((state["int"],), int)
    safety = state.get("is_safe")
    _check_types((safety,), (int, type(None)))
    return UUID(int=state["int"], is_safe=SafeUUID(safety))


def add_exception_state(error: object, state: object) -> None:
    """Keep the notes of an exception and drop its other attributes, such as ``ImportError.path``."""
    if not isinstance(error, Exception) or type(state) is not dict:
        raise TypeError
    notes = state.get("__notes__", [])
    _check_types((notes,), list)
    if not {str}.issuperset(map(type, notes)):
        raise TypeError
    error.__notes__ = notes


# The table

GETATTR = PlainClass("builtins.getattr")
"""Protocols below 4 and ZoneInfo name a nested class or a class method with it; only these two uses exist."""
RECONSTRUCTOR = PlainClass("copyreg._reconstructor")
"""How protocols 0 and 1 write instances of Python classes."""
ZONE_CLASS = PlainClass("zoneinfo.ZoneInfo")
ZONE_BUILDER = PlainClass("zoneinfo.ZoneInfo._unpickle", _build_zone, cost=100)

# pydantic's addresses, of one host and of several: they arrive as text. Those that a subclass refines are among them.
_URL_CLASSES = (
    *("AnyUrl", "AnyHttpUrl", "HttpUrl", "AnyWebsocketUrl", "WebsocketUrl", "FileUrl", "FtpUrl", "CockroachDsn"),
    *("AmqpDsn", "RedisDsn", "KafkaDsn", "MySQLDsn", "MariaDBDsn", "ClickHouseDsn", "SnowflakeDsn"),
    *("PostgresDsn", "MongoDsn", "NatsDsn"),
)

# Enumerations of the standard library, of CPython 3.11 to 3.14, and of what is installed beside it.
_ENUMERATIONS = (
    *("_colorize.ANSIColors", "ast._Precedence", "asyncio.constants._SendfileMode", "asyncio.locks._BarrierState"),
    *("asyncio.runners._State", "asyncio.sslproto.AppProtocolState", "asyncio.sslproto.SSLProtocolState"),
    *("asyncio.taskgroups._State", "asyncio.timeouts._State", "calendar.Day", "calendar.Month"),
    *("enum.EnumCheck", "enum.FlagBoundary", "http.HTTPMethod", "http.HTTPStatus", "inspect.BufferFlags"),
    *("inspect._ParameterKind", "annotationlib.Format", "plistlib.PlistFormat", "pstats.SortKey"),
    *("py_compile.PycInvalidationMode", "re.RegexFlag", "re._constants.RegexFlag", "signal.Handlers"),
    *("signal.Sigmasks", "signal.Signals", "socket.AddressFamily", "socket.AddressInfo", "socket.MsgFlag"),
    *("socket.SocketKind", "ssl.AlertDescription", "ssl.Options", "ssl.SSLErrorNumber"),
    *("ssl.TLSVersion", "ssl.VerifyFlags", "ssl.VerifyMode", "ssl._SSLMethod", "ssl._TLSAlertType"),
    *("ssl._TLSContentType", "ssl._TLSMessageType", "symtable.SymbolTableType", "tkinter.EventType", "uuid.SafeUUID"),
    *("pydantic.types.PaymentCardBrand", "typing_inspection.introspection.AnnotationSource"),
)

# Names that protocols 0 to 2 write in the spelling of Python 2, in today's spelling.
_MODULE_TODAY = {"__builtin__": "builtins", "exceptions": "builtins", "copy_reg": "copyreg"}
_NAME_TODAY = {"xrange": "range", "unicode": "str", "long": "int"}


def _entries() -> Iterable[PlainClass]:
    yield from (GETATTR, RECONSTRUCTOR, ZONE_CLASS)
    yield PlainClass("_codecs.encode", _latin1)

    for kind in (object, str, int, float, list, dict, tuple):
        yield PlainClass(f"builtins.{kind.__name__}", kind=kind)
    yield PlainClass("builtins.set", partial(_build_set, _WHOLE_SET), set)
    yield PlainClass("builtins.frozenset", partial(_build_set, FROZENSET))
    yield PlainClass("builtins.bytes", _build_bytes, bytes)
    yield PlainClass("builtins.bytearray", _build_bytearray)
    yield PlainClass("builtins.complex", _build_complex, complex)
    yield PlainClass("builtins.range", _build_range)
    yield PlainClass("builtins.slice", _build_slice)
    for name, thing in vars(builtins).items():
        if isinstance(thing, type) and issubclass(thing, Exception) and thing.__module__ == "builtins":
            yield PlainClass(f"builtins.{name}", partial(_build_exception, thing))

    # How our own guest writes values of the classes that a tool defines (`_sandbox_pickle`).
    yield PlainClass("_sandbox_pickle.plain", _build_plain)
    yield PlainClass("_sandbox_pickle.refuse", _refuse_instance)

    yield PlainClass("collections.OrderedDict", _build_ordered)
    yield PlainClass("collections.Counter", _build_counter)
    yield PlainClass("collections.defaultdict", _build_defaultdict, takes_class=True)
    yield PlainClass("collections.deque", _build_deque)

    yield PlainClass("datetime.date", _build_date)
    yield PlainClass("datetime.datetime", _build_datetime)
    yield PlainClass("datetime.time", _build_time)
    yield PlainClass("datetime.timedelta", _build_timedelta)
    yield PlainClass("datetime.timezone", _build_timezone)
    yield PlainClass("pydantic_core._pydantic_core.TzInfo", _build_offset)

    # What pydantic's own types of values are to a host that need not have pydantic: text, masked text, a number.
    for name in ("Url", "MultiHostUrl"):
        yield PlainClass(f"pydantic_core._pydantic_core.{name}", _build_text, is_made=True)
    for name in _URL_CLASSES:
        yield PlainClass(f"pydantic.networks.{name}", complete=_url_text)
    yield PlainClass("pydantic.types.SecretStr", complete=_masked_text)
    yield PlainClass("pydantic.types.SecretBytes", complete=_masked_bytes)
    yield PlainClass("pydantic.types.ByteSize", _build_int, is_made=True)

    yield PlainClass("decimal.Decimal", _build_decimal)
    yield PlainClass("fractions.Fraction", _build_fraction)

    # A guest's path names nothing on the host: it arrives as a pure path, of the guest's flavour.
    for module in ("pathlib", "pathlib._local"):
        for name in ("PosixPath", "PurePosixPath"):
            yield PlainClass(f"{module}.{name}", partial(_build_path, PurePosixPath))
        for name in ("WindowsPath", "PureWindowsPath"):
            yield PlainClass(f"{module}.{name}", partial(_build_path, PureWindowsPath))

    for address in (IPv4Address, IPv6Address):
        yield PlainClass(f"ipaddress.{address.__name__}", partial(_build_address, address), cost=20)
    for network in (IPv4Network, IPv6Network, IPv4Interface, IPv6Interface):
        yield PlainClass(f"ipaddress.{network.__name__}", partial(_build_network, network), cost=50)

    yield PlainClass("uuid.UUID", complete=_build_uuid, cost=25)
    for name in _ENUMERATIONS:
        yield PlainClass(name, _build_enum_value)
    yield PlainClass("ssl.Purpose", _build_purpose)
    yield PlainClass("ssl._ASN1Object", _build_asn1_object, is_made=True)


TABLE: dict[tuple[str, str], PlainClass] = {
    (entry.name.rpartition(".")[0], entry.name.rpartition(".")[2]): entry for entry in _entries()
}
"""Module and name of each class that a result may hold -> what is made of it."""


def find_class(module: str, name: str) -> PlainClass:
    """The entry for a name in a pickle; a table look-up, never an import or an attribute access.

    Raises:
        ForbiddenPickle: the name is not in the table.
    """
    today = _MODULE_TODAY.get(module)
    found = TABLE.get((today, _NAME_TODAY.get(name, name)) if today else (module, name))
    if found is None:
        raise ForbiddenPickle(
            f"the result refers to {printable(f'{module}.{name}')}, which is not plain data: {ADVICE}"
        )
    return found
