"""Values of numpy and pandas, from the guest's side: results as plain data, arguments as what annotations say.

Installed before the snapshot of a guest that has both. The host knows nothing of either: what it reads is numbers,
text, dates, lists and dicts.
"""

import datetime
import enum
import io
import pickle
import typing
import zoneinfo

import _sandbox_live
import _sandbox_pickle
import numpy as np
import pandas as pd
from pydantic._internal._generate_schema import GenerateSchema
from pydantic_core import PydanticSerializationError, core_schema

MAX_CELLS = 500_000
"""Cells of one array or table of a result: as records of one column they come to what the host decodes at most."""

_ZONES = datetime.timezone, zoneinfo.ZoneInfo


# --- Results --------------------------------------------------------------------------------------------


def _check_size(cells, what):
    if cells > MAX_CELLS:
        raise ValueError(
            f"the {what} has {cells} cells, and at most {MAX_CELLS} of one are returned: return less of it (head, a "
            "sum, a sample), or write it to a file"
        )


def _datetime(value):
    try:
        found = value.to_pydatetime(warn=False)
    except ValueError:  # a year that no datetime has
        return str(value)
    if found.tzinfo is None or isinstance(found.tzinfo, _ZONES):
        return found
    return found.replace(tzinfo=datetime.timezone(found.utcoffset()))


def _timedelta(value):
    try:
        return value.to_pytimedelta()
    except (ValueError, OverflowError):
        return str(value)


def _times(array):
    """Dates, datetimes or timedeltas; None for NaT, and ISO text in place of a date that Python has none for."""
    if np.datetime_data(array.dtype)[0] in ("ns", "ps", "fs", "as"):
        array = array.astype(f"{array.dtype.kind}8[us]")
    found = array.astype(object)
    if array.dtype.kind == "M":
        for at, value in enumerate(found.flat):
            if type(value) is int:
                found.flat[at] = str(array.flat[at])
    return found.tolist()


def _structured(array):
    """Records of an array with named fields."""
    if array.ndim > 1:
        return [_structured(part) for part in array]
    fields = {name: _array(array[name]) for name in array.dtype.names}
    if array.ndim == 0:
        return fields
    return [dict(zip(fields, row)) for row in zip(*fields.values())]  # noqa: B905 - fields of one array


def _array(array):
    """Nested lists of an array; a bare value of one without dimensions."""
    if isinstance(array, np.ma.MaskedArray):
        plain = _array(array.filled()) if array.dtype.kind in "mMgG" else None
        return array.tolist() if plain is None else _masked(plain, np.ma.getmaskarray(array).tolist())
    kind = array.dtype.kind
    if array.dtype.names:
        return _structured(array)
    if kind in "mM":
        return _times(array)
    if array.dtype.char in "gG":  # wider than any number of Python
        array = array.astype(complex if kind == "c" else float)
    return array.tolist()


def _masked(values, mask):
    if isinstance(mask, list):
        return [_masked(value, part) for value, part in zip(values, mask)]  # noqa: B905 - of one shape
    return None if mask else values


def _generic(value):
    if value.dtype.names or value.dtype.kind in "mM" or value.dtype.char in "gG":
        return _array(np.asarray(value))
    return value.item()


def _ndarray(array):
    _check_size(array.size, "array")
    return _array(array)


def _column(values):
    """Values of a Series, an Index or an array of pandas: those that are missing are None, but for NaN of floats."""
    if isinstance(values, pd.MultiIndex):
        return values.to_list()
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        return _array(np.asarray(values))
    if isinstance(dtype, pd.CategoricalDtype):
        held = pd.Categorical(values)
        categories = [*_column(held.categories), None]  # -1 is what is missing
        return [categories[code] for code in held.codes.tolist()]
    if isinstance(dtype, pd.SparseDtype):
        return _array(np.asarray(values))
    missing = pd.isna(values)
    found = zip(values, missing.tolist())  # noqa: B905 - of one length
    return [None if is_missing else _plain_or_same(value) for value, is_missing in found]


def _plain_or_same(value):
    plain = plain_of(value)
    return value if plain is NotImplemented else plain


def _list(values):
    _check_size(len(values), type(values).__name__)
    return _column(values)


def _says_something(index):
    """Whether an index is more than the numbers of rows."""
    if isinstance(index, pd.MultiIndex) or index.name is not None:
        return True
    return not pd.api.types.is_integer_dtype(index.dtype)


def _levels(index):
    """Columns of an index, by their names."""
    if not isinstance(index, pd.MultiIndex):
        return [("index" if index.name is None else index.name, index)]
    names = (f"level_{at}" if name is None else name for at, name in enumerate(index.names))
    return [(name, index.get_level_values(at)) for at, name in enumerate(names)]


def _rows(columns, what):
    """Records of columns, which are names and values, all of one length."""
    _check_size(sum(len(values) for _, values in columns), what)
    names = [name for name, _ in columns]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise ValueError(f"the {what} has two columns named {twice!r}, of which a record holds one: rename one")
    names = [_plain_or_same(name) for name in names]
    lists = [_column(values) for _, values in columns]
    return [dict(zip(names, row)) for row in zip(*lists)]  # noqa: B905 - all of one length


def _frame(frame):
    columns = [(name, frame.iloc[:, at]) for at, name in enumerate(frame.columns)]
    if len(frame) and _says_something(frame.index):
        columns = _levels(frame.index) + columns
    return _rows(columns, "DataFrame") if columns else [{} for _ in range(len(frame))]


def _series(series):
    if not len(series) or not _says_something(series.index):
        return _list(series)
    return _rows([*_levels(series.index), ("value" if series.name is None else series.name, series)], "Series")


_PLAIN = (
    (np.ndarray, _ndarray),
    (np.generic, _generic),
    (pd.DataFrame, _frame),
    (pd.Series, _series),
    ((pd.Index, pd.api.extensions.ExtensionArray), _list),
    ((type(pd.NaT), type(pd.NA)), lambda _: None),
    (pd.Timestamp, _datetime),
    (pd.Timedelta, _timedelta),
    (pd.Interval, lambda value: {"left": value.left, "right": value.right, "closed": value.closed}),
    (pd.Period, str),
    (pd.tseries.offsets.BaseOffset, lambda value: value.freqstr),
    ((np.dtype, pd.api.extensions.ExtensionDtype), str),
)
_KINDS = tuple(kind for kinds, _ in _PLAIN for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


def plain_of(value):
    """Plain data of a value of numpy or pandas; NotImplemented for any other.

    Raises:
        ValueError: if it holds more than a result may, or no records can be made of it.
    """
    if not isinstance(value, _KINDS):
        return NotImplemented
    return next(make for kinds, make in _PLAIN if isinstance(value, kinds))(value)


def _text_of(value):
    """The text of an instance of a package's subclass of `str`, as XPath gives, and the value of an element of
    lxml.objectify that has one; NotImplemented for any other."""
    own = type(value)
    if own.__module__ == "lxml.objectify" and hasattr(own, "pyval"):
        return value.pyval
    if isinstance(value, str) and own.__module__ != "__main__" and not isinstance(value, enum.Enum):
        return str.__str__(value)
    return NotImplemented


class _Pickler(_sandbox_pickle._ResultPickler):
    def reducer_override(self, value):
        plain = plain_of(value)
        if plain is NotImplemented:
            plain = _text_of(value)
        return super().reducer_override(value) if plain is NotImplemented else (_sandbox_pickle.plain, (plain,))


def _dumps(envelope, protocol):
    file = io.BytesIO()
    _Pickler(file, protocol).dump(envelope)
    return file.getvalue()


def _without_nat(value):
    """Containers as they are, with None for NaT, which pydantic takes for a datetime that has no year."""
    if isinstance(value, dict):
        return {key: _without_nat(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_without_nat(item) for item in value]
    return None if value is pd.NaT else value


def _in_json(value):
    """What an argument of a host function is in JSON, if pydantic knows nothing of it."""
    plain = plain_of(value)
    if plain is NotImplemented:
        raise PydanticSerializationError(f"Unable to serialize unknown type: {type(value)}")
    return plain


# --- Arguments ------------------------------------------------------------------------------------------

_NO_TABLES = {
    b"ARROW1": "Arrow", b"\xff\xff\xff\xff": "Arrow", b"PAR1": "Parquet", b"PK\x03\x04": "Excel",
}  # fmt: skip
_ROWS = "records (a list of objects), columns (an object of lists), or CSV as bytes"


def _checked(make):
    """A validator: what numpy and pandas raise says what is wrong with an argument."""

    def validate(value):
        try:
            return make(value)
        except (TypeError, ValueError, OverflowError, LookupError) as error:
            raise ValueError(str(error) or type(error).__name__) from error

    return core_schema.no_info_plain_validator_function(validate)


def _to_frame(kind):
    def make(value):
        if isinstance(value, kind):
            return value
        if isinstance(value, (bytes, str)):
            data = value.encode() if isinstance(value, str) else value
            name = next((name for start, name in _NO_TABLES.items() if data.startswith(start)), None)
            if name is not None:
                raise ValueError(f"{name} cannot be read as an argument: give {_ROWS}")
            return kind(pd.read_csv(io.BytesIO(data)))
        if not isinstance(value, (list, dict, np.ndarray, pd.Series)):
            raise TypeError(f"a DataFrame is made of {_ROWS}, not of {type(value).__name__}")
        return kind(value)

    return make


def _to_values(kind):
    def make(value):
        if isinstance(value, kind):
            return value
        if not isinstance(value, (list, tuple, dict, range, np.ndarray, pd.Index, pd.Series)):
            raise TypeError(f"a {kind.__name__} is made of a list, not of {type(value).__name__}")
        return kind(value)

    return make


def _to_array(kind, dtype):
    def make(value):
        if isinstance(value, kind) and dtype in (None, value.dtype.type):
            return value
        if isinstance(value, dict) and value.keys() == {"dtype", "shape", "data"}:
            data, of = value["data"], np.dtype(value["dtype"])
            array = np.frombuffer(data, of) if isinstance(data, bytes) else np.array(data, of)
            array = array.reshape(value["shape"]).copy()
        elif isinstance(value, bytes) and value.startswith(b"\x93NUMPY"):
            array = np.load(io.BytesIO(value), allow_pickle=False)
        elif isinstance(value, (list, tuple, int, float, complex, np.ndarray, pd.Series, pd.Index)):
            array = np.array(value)
        else:
            raise TypeError(
                f"an array is made of a list (or of the bytes of a .npy file), not of {type(value).__name__}"
            )
        if array.dtype.kind == "O" and dtype is not np.object_:
            raise ValueError("an array is made of numbers, texts or booleans, all of one kind")
        return array if dtype is None else array.astype(dtype)

    return make


def _dtype_of(annotation):
    """Scalar type in `NDArray[float64]`, and in what that stands for; None if there is none."""
    for part in typing.get_args(annotation):
        for kind in (part, *typing.get_args(part)):
            if isinstance(kind, type) and issubclass(kind, np.generic) and not kind.__subclasses__():
                return kind
    return None


def _schema_of(annotation):
    """Schema of a class of numpy or pandas; None for any other."""
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return None
    if issubclass(kind, pd.DataFrame):
        return _checked(_to_frame(kind))
    if issubclass(kind, (pd.Series, pd.Index)):
        return _checked(_to_values(kind))
    if issubclass(kind, np.ndarray):
        return _checked(_to_array(kind, _dtype_of(annotation)))
    if issubclass(kind, (np.generic, pd.Timestamp, pd.Timedelta)):
        return _checked(lambda value: value if isinstance(value, kind) else kind(value))
    return None


def _on_envelopes(dumps):
    """`pickle.dumps`, but for the envelopes of results, with whatever protocol."""

    def wrapped(obj, protocol=None, **options):
        if type(obj) is dict and list(obj) == _sandbox_pickle.ENVELOPE and not options:
            return _dumps(obj, protocol)
        return dumps(obj, protocol, **options)

    wrapped.__doc__ = dumps.__doc__
    return wrapped


def _bearing_nat(to_json):
    """What makes JSON of arguments for the host, with null for NaT."""

    def wrapped(arguments):
        try:
            return to_json(arguments)
        except _sandbox_live.HostArgumentsError:
            return to_json(_without_nat(arguments))

    return wrapped


def install(_unknown=GenerateSchema._unknown_type_schema):
    """Give results, host functions and annotations what is above. Annotations: where pydantic knew none."""

    def unknown(self, annotation):
        schema = _schema_of(annotation)
        return _unknown(self, annotation) if schema is None else schema

    _sandbox_pickle._ResultPickler = _Pickler
    pickle.dumps = _on_envelopes(pickle.dumps)
    _sandbox_live.json_options["fallback"] = _in_json
    _sandbox_live._json = _bearing_nat(_sandbox_live._json)
    GenerateSchema._unknown_type_schema = unknown
