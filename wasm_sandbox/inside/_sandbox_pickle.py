"""Results of a tool's own classes, pickled so that a host that imports nothing can tell what they are.

In a pickle, an enum member, an exception and a subclass of `str` look alike: a class that only the tool
has, called with one argument. So when the envelope of a result is pickled, members of the tool's enums
and instances of subclasses of plain types are written as their plain value, and every other instance of
a class of the tool as a refusal that names the class. All other pickling is untouched.
"""

import collections
import datetime
import decimal
import enum
import fractions
import io
import ipaddress
import pathlib
import pickle
import uuid

ENVELOPE = ["results", "agent_state"]

_EXACT = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    complex: lambda number: complex(*complex.__getnewargs__(number)),
    bytes: lambda data: memoryview(data).tobytes(),
    bytearray: lambda data: bytearray(memoryview(data)),
    tuple: lambda items: tuple.__getitem__(items, slice(None)),
    list: lambda items: list.__getitem__(items, slice(None)),
    set: lambda items: set(set.__iter__(items)),
    frozenset: lambda items: frozenset(frozenset.__iter__(items)),
}

# Their own way to pickle is right, but for the name of the class.
_REBASED = {
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, fractions.Fraction,
    uuid.UUID, pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath,
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network,
    ipaddress.IPv4Interface, ipaddress.IPv6Interface,
    collections.deque, collections.OrderedDict, collections.Counter, collections.defaultdict,
}  # fmt: skip


def plain(value):
    """Stands for its argument."""
    return value


def refuse(class_name):
    """Stands for an instance that is no plain data."""
    raise TypeError(f"{class_name} is no plain data")


def _rebased(value, base):
    function, arguments, *rest = base.__reduce_ex__(value, 4)
    own = type(value)
    parts = [base if function is own else function, tuple(base if a is own else a for a in arguments), *rest]
    if base is not uuid.UUID and len(parts) > 2:
        parts[2] = None  # attributes that the subclass added
    return tuple(parts)


class _ResultPickler(pickle.Pickler):
    def reducer_override(self, value):
        own = type(value)
        if own.__module__ != "__main__":
            return NotImplemented
        if isinstance(value, enum.Enum):
            return plain, (value._value_,)
        for base in own.__mro__:
            if base in _EXACT:
                return plain, (_EXACT[base](value),)
            if base is dict:
                return plain, (dict.copy(value),)
            if base in _REBASED:
                return _rebased(value, base)
        return refuse, (own.__qualname__,)


def install(_dumps=pickle.dumps):
    """Pickle the envelopes of results with this module, and everything else as ever."""

    def dumps(obj, protocol=None, *, fix_imports=True, buffer_callback=None):
        if type(obj) is not dict or list(obj) != ENVELOPE or protocol is not None or buffer_callback is not None:
            return _dumps(obj, protocol, fix_imports=fix_imports, buffer_callback=buffer_callback)
        file = io.BytesIO()
        _ResultPickler(file).dump(obj)
        return file.getvalue()

    dumps.__doc__ = _dumps.__doc__
    pickle.dumps = dumps
