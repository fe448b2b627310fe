"""Code of a user's own, host functions and displays, from the guest's side. Imported once before the snapshot.

The host is reached by one descriptor: a request is written into a buffer, `readinto` hands the buffer to the host,
which reads the request out of it and writes the answer over it. One call of the host is one round trip. Without host
functions the descriptor is not open, and nothing here is run.
"""

import ast
import asyncio
import builtins
import contextlib
import datetime
import decimal
import fractions
import hashlib
import importlib.abc
import importlib.util
import inspect
import io
import ipaddress
import linecache
import marshal
import os
import pathlib
import pickle
import random
import struct
import sys
import traceback
import types
import uuid

try:
    from pydantic_core import PydanticSerializationError, to_json
except ImportError:  # a guest of another build
    import json

    PydanticSerializationError = TypeError

    def to_json(value, **_options):
        return json.dumps(value, ensure_ascii=False, default=str).encode()


try:
    from _pickle import dumps as _pickle  # not through `_sandbox_pickle`
except ImportError:  # a guest of another build
    _pickle = pickle.dumps

try:
    from _sandbox_output import _err, _out
    from _sandbox_output import flush as _flush_lines
except ImportError:  # a guest of another build, where nothing waits
    _err = _out = None

    def _flush_lines():
        pass


CHANNEL = 1000
CALL, SUBMIT, NEXT, CANCEL, MODULE, NAMES, MORE, DISPLAY, PROGRESS = range(9)
PLAIN, TYPED, FAILED, TEXT, NOTHING, DEFERRED = range(6)
FOREVER = (1 << 63) - 1

_HEAD, _ANSWER, _NUMBER = struct.Struct("<IBI"), struct.Struct("<BII"), struct.Struct("<I")
_BUFFER_BYTES = 32 << 10


class HostFunctionError(RuntimeError):
    """A host function failed; the host knows more."""


class HostArgumentsError(TypeError):
    """Arguments do not fit a host function."""


class HostRefusedError(PermissionError):
    """The host refused a call."""


class HostBudgetError(RuntimeError):
    """A budget of this run for host functions is used up."""


_ERRORS = {kind.__name__: kind for kind in (HostFunctionError, HostArgumentsError, HostRefusedError, HostBudgetError)}


class _Channel:
    file = buffer = None


def _exchange(op, ident=0, payload=b"", _channel=_Channel):
    """One round trip: kind, id and bytes of the answer; OSError where the host offers nothing."""
    _flush_lines()
    size = len(payload) + _HEAD.size
    # Taken away meanwhile: a finaliser that calls the host, too, gets another one.
    buffer, _channel.buffer = _channel.buffer, None
    if buffer is None or len(buffer) < size:
        buffer = bytearray(max(size, _BUFFER_BYTES))
    _HEAD.pack_into(buffer, 0, len(payload), op, ident)
    buffer[_HEAD.size : size] = payload
    if _channel.file is None:
        _channel.file = io.FileIO(CHANNEL, "rb", closefd=False)
    _channel.file.readinto(buffer)
    kind, ident, size = _ANSWER.unpack_from(buffer)
    data = bytes(buffer[_ANSWER.size : _ANSWER.size + size])
    if len(buffer) <= _BUFFER_BYTES:
        _channel.buffer = buffer
    if len(data) < size:
        data += _rest(size - len(data))
    return kind, ident, data


def _rest(size, _channel=_Channel):
    """The last bytes of the answer that has just come, as many as did not fit."""
    buffer = bytearray(_ANSWER.size + size)
    _HEAD.pack_into(buffer, 0, 0, MORE, size)
    _channel.file.readinto(buffer)
    return memoryview(buffer)[_ANSWER.size :]


# --- Values of the host ---------------------------------------------------------------------------------


class Record(dict):
    """Fields of a model or a dataclass of the host: ``record.field`` and ``record["field"]``."""

    __slots__ = ()
    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __reduce_ex__(self, protocol):
        return dict, (dict(self),)


_READERS = {
    "tuple": lambda items: tuple(map(_typed, items)),
    "list": lambda items: list(map(_typed, items)),
    "set": lambda items: set(map(_typed, items)),
    "frozenset": lambda items: frozenset(map(_typed, items)),
    "dict": lambda pairs: {_typed(key): _typed(item) for key, item in pairs},
    "record": lambda pairs: Record((key, _typed(item)) for key, item in pairs),
    "bytearray": bytearray,
    "date": datetime.date.fromisoformat,
    "datetime": lambda parts: datetime.datetime.fromisoformat(parts[0]).replace(fold=parts[1]),
    "time": lambda parts: datetime.time.fromisoformat(parts[0]).replace(fold=parts[1]),
    "timedelta": lambda parts: datetime.timedelta(*parts),
    "Decimal": decimal.Decimal,
    "Fraction": lambda parts: fractions.Fraction(*parts),
    "UUID": lambda number: uuid.UUID(int=number),
    "Path": pathlib.PurePosixPath,
    "address": ipaddress.ip_address,
    "network": ipaddress.ip_network,
    "plain": lambda value: value,
}


def _typed(node):
    """Value of a node: what stands for itself, or a tuple of a name and parts."""
    if type(node) is tuple:
        return _READERS[node[0]](node[1])
    return node


def value_of(kind, data):
    """Value of an answer of the host; raises what the host said was raised."""
    if kind == PLAIN:
        return marshal.loads(data)
    if kind == TYPED:
        return _typed(marshal.loads(data))
    name, message = marshal.loads(data)
    kind = _ERRORS.get(name) or getattr(builtins, name, HostFunctionError)
    try:
        error = kind(message)
    except TypeError:  # it takes more than a text
        error = HostFunctionError(f"{name}: {message}")
    raise error


# --- Host functions -------------------------------------------------------------------------------------


class _Calls:
    last_id = 0
    futures = {}  # noqa: RUF012
    deferred = set()  # noqa: RUF012
    is_bound_only = False


json_options = {"bytes_mode": "base64", "inf_nan_mode": "constants"}


def _json(arguments):
    try:
        return to_json(arguments, **json_options)
    except (PydanticSerializationError, UnicodeError, RecursionError, ValueError) as error:
        raise HostArgumentsError(f"an argument cannot be handed to the host: {error}") from None


def _request(number, arguments):
    return _NUMBER.pack(number) + _json({name: item for name, item in arguments.items() if item is not _UNSET})


class _Unset:
    def __repr__(self):
        return "..."


_UNSET = _Unset()


def _call(number, arguments, _state=_Calls):
    """Call a host function, and wait for its value."""
    if _state.is_bound_only:
        return number, arguments
    kind, _, data = _exchange(CALL, 0, _request(number, arguments))
    return value_of(kind, data)


async def _acall(number, arguments, _state=_Calls):
    """Call a host function; other tasks go on meanwhile."""
    loop = asyncio.get_running_loop()
    ident = _state.last_id = _state.last_id + 1
    kind, _, data = _exchange(SUBMIT, ident, _request(number, arguments))
    if kind not in (NOTHING, DEFERRED):
        return value_of(kind, data)
    if kind == DEFERRED:
        _state.deferred.add(ident)
    future = _state.futures[ident] = loop.create_future()
    try:
        return await future
    finally:
        _state.deferred.discard(ident)
        if _state.futures.pop(ident, None) is not None:
            _exchange(CANCEL, ident)


def _deferred(name, number, arguments):
    """Call a host function that is answered later, perhaps in another process."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise HostFunctionError(f"{name} is answered later: await it (await {name}(...))") from None
    return _acall(number, arguments)


def _settle(ident, kind, data, _state=_Calls):
    """Give an answer to the task that waits for it."""
    future = _state.futures.pop(ident, None)
    _state.deferred.discard(ident)
    if future is None or future.done():
        return
    try:
        future.set_result(value_of(kind, data))
    except StopIteration as error:  # which no future takes
        future.set_exception(HostFunctionError(str(error)))
    except Exception as error:
        future.set_exception(error)


def _select(selector, timeout=None, _state=_Calls):
    """Wait as the event loop does: for the next timer, and for answers of the host."""
    if len(_state.futures) == len(_state.deferred):
        if timeout is None and _state.deferred:
            if selector.get_map() and (ready := _select.without_calls(selector, until_idle=True)):
                return ready
            asyncio.get_running_loop().stop()  # nothing can go on before one of them is answered
            return []
        return _select.without_calls(selector, timeout)
    ready = []
    if selector.get_map():  # connections: one request waits for both
        ready, timeout = _select.without_calls(selector, timeout, is_beside_calls=True), 0
    wait = FOREVER if timeout is None else max(0, int(timeout * 1e6))
    while len(_state.futures) > len(_state.deferred):
        kind, ident, data = _exchange(NEXT, 0, wait.to_bytes(8, "little"))
        if kind == NOTHING:
            if wait == FOREVER:
                raise RuntimeError("deadlock: every task waits, and nothing that they wait for can come any more")
            break
        _settle(ident, kind, data)
        wait = 0
    return ready


def _is_host_function(function):
    return isinstance(function, types.FunctionType) and function.__globals__.get("_call") is _call


async def _to_thread(function, /, *args, **kwargs):
    """As `asyncio.to_thread`: a host function runs beside others, and anything else at once."""
    if not _is_host_function(function):
        return await _to_thread.before(function, *args, **kwargs)
    _Calls.is_bound_only = True
    try:
        bound = function(*args, **kwargs)
    finally:
        _Calls.is_bound_only = False
    return await (bound if inspect.iscoroutine(bound) else _acall(*bound))


def _run_in_executor(loop, executor, function, *args):
    """As of any event loop: a host function runs beside others."""
    target = function.func if hasattr(function, "func") else function  # a partial
    if not _is_host_function(target):
        return _run_in_executor.before(loop, executor, function, *args)
    kwargs = getattr(function, "keywords", {})
    return loop.create_task(_to_thread(target, *getattr(function, "args", ()), *args, **kwargs))


def _module(name, source):
    module = types.ModuleType(name)
    module.__dict__.update(_call=_call, _acall=_acall, _deferred=_deferred, _UNSET=_UNSET)
    place = f"<{name} of the host>"
    exec(compile(source, place, "exec"), module.__dict__)
    return module


def _find_modules():
    """Let modules of the host be imported from now on."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)


def functions(*names):
    """Host functions by name, for the script that asks for them; their modules can be imported from then on."""
    _find_modules()
    if not names:
        return {}
    kind, _, data = _exchange(NAMES, 0, "\n".join(names).encode())
    if kind == FAILED:
        value_of(kind, data)
    found = vars(_module("tools", data.decode()))
    return {name: found[name] for name in names if name in found}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finder of modules of the host: the last to be asked, for a module that is found nowhere else."""

    def find_spec(self, name, path=None, target=None):
        if path is not None:
            return None
        try:
            kind, _, source = _exchange(MODULE, 0, name.encode())
        except (OSError, UnicodeError):
            return None
        if kind != TEXT:
            return None
        return importlib.util.spec_from_loader(name, self, origin=source.decode())

    def create_module(self, spec):
        return _module(spec.name, spec.origin)

    def exec_module(self, module):
        module.__spec__.origin = "the host"


_finder = _Finder()


# --- Displays -------------------------------------------------------------------------------------------

MAX_BUNDLE_BYTES = 8 << 20
MAX_ENTRIES = 64
_MIME_TYPES = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
    "_repr_pdf_": "application/pdf",
}


def text_of(value):
    """The ``repr`` of a value, whatever that does."""
    try:
        return str(repr(value))
    except Exception as error:
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"


def _from_mimebundle(value):
    with contextlib.suppress(Exception):
        bundle = value._repr_mimebundle_()
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        if isinstance(bundle, dict):
            return dict(bundle)
    return {}


def bundle_of(value):
    """What a value looks like, without its text: MIME type -> text or bytes."""
    if isinstance(value, type) or type(value) in _SCALARS:
        return {}
    if hasattr(value, "_ipython_canary_method_should_not_exist_"):  # it has every method: a mock, a proxy
        return {}
    bundle = _from_mimebundle(value) if hasattr(value, "_repr_mimebundle_") else {}
    for method, mime in _MIME_TYPES.items():
        if mime not in bundle and hasattr(value, method):
            with contextlib.suppress(Exception):
                shown = getattr(value, method)()
                bundle[mime] = shown[0] if isinstance(shown, tuple) else shown
    found = {}
    for mime, shown in bundle.items():
        if shown is None:  # it does not look like this
            continue
        is_json = mime == "application/json" and not isinstance(shown, str)
        part = _json_text(shown) if is_json else shown
        if isinstance(mime, str) and isinstance(part, (str, bytes)):
            found[mime] = part
    return found


def _json_text(value):
    with contextlib.suppress(HostArgumentsError):
        return _json(value).decode()


def _packed(bundle):
    if len(bundle) > MAX_ENTRIES:
        raise ValueError(f"a display has {len(bundle)} forms, {MAX_ENTRIES} at most: leave some out")
    parts = []
    for mime, shown in bundle.items():
        if not isinstance(mime, str) or not isinstance(shown, (str, bytes)):
            found = f"{type(mime).__name__} -> {type(shown).__name__}"
            raise TypeError(f"a display maps MIME types to text or bytes, not {found}: {mime!r:.100}")
        data = shown if isinstance(shown, bytes) else shown.encode("utf-8", "replace")
        name = mime.encode("utf-8", "replace")
        parts += [struct.pack("<IBI", len(name), isinstance(shown, bytes), len(data)), name, data]
    return b"".join(parts)


def _show(bundle):
    packed = _packed(bundle)
    if len(packed) > MAX_BUNDLE_BYTES:
        plain = f"<a display of {len(packed)} bytes: at most {MAX_BUNDLE_BYTES} are shown>"
        packed = _packed({"text/plain": plain})
    _flush()
    kind, _, data = _exchange(DISPLAY, 0, packed)
    if kind == FAILED:
        value_of(kind, data)


def display(*values, raw=False):
    """Show values: as what they say they look like (``_repr_html_``, ``_repr_png_`` ...), and as text.

    Args:
        values: what to show.
        raw: whether each is a bundle itself, MIME type -> text or bytes.
    """
    for value in values:
        if raw and not isinstance(value, dict):
            raise TypeError(f"display(raw=True) takes a dict, MIME type -> text or bytes, not {type(value).__name__}")
        bundle = dict(value) if raw else {"text/plain": text_of(value), **bundle_of(value)}
        try:
            _show(bundle)
        except OSError:  # nobody takes displays in this run
            print(bundle.get("text/plain", ""))


def progress(done, total=None, text=""):
    """Tell how far the work is.

    Args:
        done: how much is done.
        total: how much there is, if that is known.
        text: what is being done.
    """
    with contextlib.suppress(OSError):
        _exchange(PROGRESS, 0, _json([float(done), None if total is None else float(total), str(text)]))


# --- Cells ----------------------------------------------------------------------------------------------


class _Session:
    """What is kept from cell to cell; of code that is run once, nothing is."""

    module = runner = task = environ = None
    flags = 0


_NO_EXPRESSION = object()


def _flush():
    if _out is not None:  # also where the code has put another one in its place
        _flush_stream(_out)
    if sys.stdout is not _out:
        _flush_stream(sys.stdout)
    if sys.stderr is not _err or not _err.write_through:
        _flush_stream(sys.stderr)


def _flush_stream(stream):
    try:
        stream.flush()
    except Exception:
        return


def _compiled(source, name, flags, _kept={}):  # noqa: B006
    """Code of all statements but a last expression, and of that one; each may have to be awaited. Tracebacks find it.

    Whoever drives a session from outside gives the same source again and again: what is short is kept.
    """
    flags |= _TOP_LEVEL_AWAIT
    if (kept := _kept.get((source, flags))) is not None:
        first, last, lines = kept
        linecache.cache[name] = len(source), None, lines, name
        if first is not _NO_STATEMENTS:
            first = first.replace(co_filename=name)
        return first, last and last.replace(co_filename=name)
    lines = source.splitlines(keepends=True)
    linecache.cache[name] = len(source), None, lines, name
    found = _compiled_anew(source, name, flags)
    if len(source) > MOST_KEPT_CHARACTERS:
        return found
    if not any(type(constant) is types.CodeType for code in found if code for constant in code.co_consts):
        if len(_kept) >= MOST_KEPT_CODES:
            _kept.clear()
        _kept[source, flags] = *found, lines
    return found


MOST_KEPT_CODES, MOST_KEPT_CHARACTERS = 32, 1000
_TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def _compiled_anew(source, name, flags):
    if _may_be_an_expression(source):  # which is compiled in a third of the time
        try:
            return _NO_STATEMENTS, compile(source, name, "eval", flags, dont_inherit=True)
        except (SyntaxError, ValueError):
            return _compiled_statements(source, name, flags)
    return _compiled_statements(source, name, flags)


def _compiled_statements(source, name, flags):
    tree = compile(source, name, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    first = compile(tree, name, "exec", flags, dont_inherit=True)
    flags |= first.co_flags & _FUTURES
    return first, last and compile(ast.Expression(last.value), name, "eval", flags, dont_inherit=True)


def _may_be_an_expression(source):
    return len(source) < 200 and "\n" not in source and " = " not in source and not source.startswith(_STATEMENTS)


_STATEMENTS = "import ", "from "
_AWAITED = inspect.CO_COROUTINE
_NO_STATEMENTS = compile("", "<nothing>", "exec", dont_inherit=True)
_FUTURES = 0
for _feature in __import__("__future__").all_feature_names:
    _FUTURES |= getattr(__import__("__future__"), _feature).compiler_flag


async def _awaited(first, last, namespace):
    """Run the parts of a cell, each awaited if it is to be; the value of the last one."""
    value = None
    for code in filter(None, (first, last)):
        value = eval(code, namespace)
        if code.co_flags & _AWAITED:
            value = await value
    return value


def _flags_of(first, last):
    return first.co_flags | (0 if last is None else last.co_flags)


def _run(first, last, namespace):
    if first is not _NO_STATEMENTS:
        eval(first, namespace)
    return last and eval(last, namespace)


def _evaluated(first, last, namespace):
    """Run the parts of a cell that is not kept."""
    if not _flags_of(first, last) & _AWAITED:
        return _run(first, last, namespace)
    with asyncio.Runner() as runner:
        return runner.run(_awaited(first, last, namespace))


def _drive():
    """Let the event loop of a session run until the cell has ended, or waits for answers of the host alone."""
    loop = _Session.runner.get_loop()
    asyncio.events.set_event_loop(loop)
    if not _Session.task.done():
        loop.run_forever()
    return _Session.task.done()


def _begin(flags, first, last, namespace):
    """Run the parts of a cell of a session; whether it has ended, and its value."""
    if not flags & _AWAITED:
        return True, _run(first, last, namespace)
    if _Session.runner is None:
        _Session.runner = asyncio.Runner()
    loop = _Session.runner.get_loop()
    _Session.task = loop.create_task(_awaited(first, last, namespace))
    _Session.task.add_done_callback(lambda _: loop.stop())
    return _finish()


def _finish():
    if not _drive():
        return False, None
    task, _Session.task = _Session.task, None
    return True, task.result()


def _is_between(filename):
    return filename == "_sandbox_live.py" or filename.endswith(" of the host>")


def _described(error, name, is_compiled):
    """Report of an exception: class, message, traceback, whether the code was compiled, and the exit code."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_code.co_filename != name:
        place = place.tb_next
    error = error.with_traceback(place)
    while place is not None:  # what stands between the code and the host is no matter of its author's
        following = place.tb_next
        while following is not None and _is_between(following.tb_frame.f_code.co_filename):
            following = following.tb_next
        place.tb_next, place = following, following
    code = None
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if code == 1 and error.code != 1:  # it is the last word of a program
            os.write(2, f"{error.code}\n".encode("utf-8", "backslashreplace"))
    try:
        from _sandbox_guest import _source, report

        _source.line_count = 0  # nothing of it is a tool's, as what ran before may have been
        kind, message, text, shown = report(error)
    except ImportError:
        kind, message = type(error).__qualname__, str(error)
        text = shown = "".join(traceback.format_exception(error))
    if code is None:
        with contextlib.suppress(Exception):
            os.write(2, shown.encode("utf-8", "backslashreplace"))
    return kind, message, text, is_compiled, code


def _pickled(value):
    """A value as a tool's result is handed over; None for what is no data."""
    if type(value) in _SCALARS:
        return _pickle(value, 4)
    try:
        wrapped = _wrapper()(result=value).model_dump()["result"] if _wrapper() else value
        return _dumps(wrapped)
    except MemoryError:
        raise
    except Exception:
        return None


_SCALARS = frozenset({type(None), bool, int, float, str, bytes})


def _wrapper(_made=[]):  # noqa: B006
    if not _made:
        try:
            from typing import Any

            from pydantic import ConfigDict, create_model

            _made.append(
                create_model("_Result", __config__=ConfigDict(arbitrary_types_allowed=True), result=(Any, ...))
            )
        except ImportError:
            _made.append(None)
    return _made[0]


def _dumps(value):
    try:
        from _sandbox_pickle import _ResultPickler
    except ImportError:
        return pickle.dumps(value, 4)
    file = io.BytesIO()
    _ResultPickler(file, 4).dump(value)
    return file.getvalue()


NO_VALUE, VALUE = b"\0", b"\1"
_TEXT_SIZE = struct.Struct("<I")


def _payload(value, text, error, is_paused=False):
    """What tells of a cell: a pickle; shorter for one without a last expression, and for one whose value is data."""
    if value is not None:
        try:
            shown = text.encode()
        except UnicodeEncodeError:  # it has half a character
            return pickle.dumps((value, text, error, is_paused), 4)
        return b"".join((VALUE, _TEXT_SIZE.pack(len(shown)), shown, value))
    if text is error is None and not is_paused:
        return NO_VALUE
    return pickle.dumps((value, text, error, is_paused), 4)


def _written(marker, payload, _md5=hashlib.md5):
    """Write the frame of a cell, after everything that it printed."""
    _flush()
    checksum = _md5(payload, usedforsecurity=False).hexdigest().encode()
    frame = marker + struct.pack(">I", len(payload)) + checksum + payload
    while frame:
        frame = frame[os.write(1, frame) :]


def _shown(found):
    """Value and text of what a cell ends in; what it looks like is shown."""
    if type(found) in _SCALARS:
        return _pickle(found, 4), repr(found)
    text = text_of(found)
    if bundle := bundle_of(found):
        with contextlib.suppress(OSError, HostBudgetError, ValueError):  # its text is there all the same
            _show({"text/plain": text, **bundle})
    return _pickled(found), text


def run_cell(request, marker):
    """Run code of a user's own, and write a frame with its value, or with what it raised.

    Args:
        request: code, file name of it in tracebacks, node of the inputs, names of host functions that it mentions;
            None if there is no host function.
        marker: what opens the frame.
    """
    namespace = sys.modules["__main__"].__dict__
    namespace.pop("__file__", None)
    _written(marker, _run_once(namespace, *request))


def _run_once(namespace, source, name, inputs, wanted):
    value = text = error = None
    is_compiled = False
    try:
        first, last = _prepared(source, name, inputs, wanted, namespace, 0)
        is_compiled = True
        found = _evaluated(first, last, namespace)
        if last is not None:
            value, text = _shown(found)
    except BaseException as raised:
        value = text = None
        error = _described(raised, name, is_compiled)
    return _payload(value, text, error)


def _prepared(source, name, inputs, wanted, namespace, flags):
    """Give a namespace what the code finds in it, and compile the code."""
    if wanted is not None:
        _find_modules()
    if wanted:
        namespace.update(functions(*[n for n in wanted if n not in namespace or _is_host_function(namespace[n])]))
    if inputs[1]:
        namespace.update(_typed(inputs))
    return _compiled(source, name, flags)


# --- Sessions -------------------------------------------------------------------------------------------


def _resume_process(is_fork, is_new):
    """Bring back what is of the session: the module, and where the entry point set them anew, environment and the like.

    Args:
        is_fork: whether the session was forked or loaded since its last call.
        is_new: whether environment and random numbers are new.
    """
    if _Session.module is None:
        _Session.module = _main_module()
        _Session.random = random.Random(random.getrandbits(256))
        for method in _RANDOM_METHODS:
            setattr(random, method, getattr(_Session.random, method))
    elif is_fork:
        _Session.random.seed(int.from_bytes(os.urandom(32), "little"))
    if is_fork and (net := sys.modules.get("_sandbox_net")) is not None:
        net.forget()
    sys.modules["__main__"] = _Session.module
    if is_new:
        _resume_environ()
    return _Session.module.__dict__


def _resume_environ():
    if _Session.environ is None:
        _Session.given = dict(_environ)
        return
    for key in {*os.environ} - {*_Session.environ}:
        del os.environ[key]
    os.environ.update(_Session.environ)


_environ = os.environ._data
_RANDOM_METHODS = [name for name in random.__all__ if getattr(getattr(random, name), "__self__", None) is random._inst]


def _leave_process():
    if _Session.environ is not None or _environ != _Session.given:
        _Session.environ = dict(os.environ)


def answer(data, is_new):
    """Serve a call. Called by the entry point.

    Args:
        data: name of what is called (`_SERVED`), and its arguments, marshalled.
        is_new: whether environment and random numbers are new.

    Returns:
        What tells of it.
    """
    name, arguments = marshal.loads(data)
    payload = _SERVED[name](is_new, *arguments)
    _flush()
    return payload


def _main_module():
    """A new module for code of a user's own, which has no file."""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins.__dict__
    return module


def _single_cell(is_new, *request):
    return _run_once(_main_module().__dict__, *request)


def _session_cell(is_new, source, name, inputs, wanted, is_fork):
    """Run a cell of a session: its names are kept for the next one. See `_resume_process` and `run_cell`."""
    namespace = _resume_process(is_fork, is_new)

    def begin():
        first, last = _prepared(source, name, inputs, wanted, namespace, _Session.flags)
        _Session.has_value, _Session.name = last is not None, name
        flags = _flags_of(first, last)
        _Session.flags |= flags & _FUTURES
        _Session.is_compiled = True
        return _begin(flags, first, last, namespace)

    _Session.is_compiled = False
    return _session_payload(begin, namespace, name)


def _resumed_cell(is_new, answers, is_fork):
    """Go on with a cell that was paused; of each answer there are its number, its kind and its bytes."""
    namespace = _resume_process(is_fork, is_new)

    def begin():
        for ident, kind, data in answers:
            _settle(ident, kind, data)
        return _finish()

    return _session_payload(begin, namespace, _Session.name)


_SERVED = {"run": _single_cell, "cell": _session_cell, "resume": _resumed_cell}


def _session_payload(begin, namespace, name):
    value = text = error = None
    has_ended = True
    try:
        has_ended, found = begin()
        if has_ended and _Session.has_value:
            value, text = _shown(found)
            namespace["_"] = found
    except BaseException as raised:
        value = text = None
        _Session.task = None
        error = _described(raised, name, _Session.is_compiled)
    _leave_process()
    return _payload(value, text, error, not has_ended)


def install():
    """Make the channel known to imports and to the event loop, before the snapshot."""
    sys.modules["_sandbox_live"] = sys.modules[__name__]
    builtins.display, builtins.progress = display, progress
    from asyncio.base_events import BaseEventLoop

    _to_thread.before, asyncio.to_thread = asyncio.to_thread, _to_thread
    asyncio.threads.to_thread = _to_thread
    _run_in_executor.before = BaseEventLoop.run_in_executor
    BaseEventLoop.run_in_executor = _run_in_executor
    wait_with(type(asyncio.new_event_loop()._selector))


def wait_with(selector):
    """Let the event loops that have a class of selectors wait for answers of the host, too."""
    _select.without_calls, selector.select = selector.select, _select
