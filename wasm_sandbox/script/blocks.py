"""The fixed texts of which an execution script consists."""

from __future__ import annotations

import re

WORD = re.compile(r"[^\W\d]\w*")
"""Word of a source that may be a name."""

RESULT_VAR_NAME = "result_ZQqiequkcFwRwwGQMqkt"
GUARD = f"{RESULT_VAR_NAME}_guard"

IMPORTS = """\
from typing import *
import pickle
import sys
import base64
import struct
import hashlib"""

CLIENT_IMPORT = """\
try:
    from letta_client import Letta
except ImportError:
    Letta = None"""

CLIENT = """\
# Initialize Letta client for tool execution
import os
client = None
if Letta is not None and os.getenv('LETTA_API_KEY'):
    # Check letta_client version to use correct parameter name
    from packaging import version as pkg_version
    import letta_client as lc_module
    lc_version = pkg_version.parse(lc_module.__version__)
    if lc_version < pkg_version.parse('1.0.0'):
        client = Letta(
            token=os.getenv('LETTA_API_KEY')
        )
    else:
        client = Letta(
            api_key=os.getenv('LETTA_API_KEY')
        )"""

# Fields win over the methods of dict, as in the models that tools were written for. The names that are read
# after the tool has run are bound as defaults, where a tool cannot reach them by accident.
AGENT_STATE = """\
class AgentState(dict):
    __slots__ = ()
    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__

    def __getattribute__(self, name, item=dict.__getitem__, other=dict.__getattribute__, missing=KeyError):
        if name[:2] != '__':
            try:
                return item(self, name)
            except missing:
                pass
        return other(self, name)

def _agent_state_as(mapping, value, is_a=isinstance, dict=dict, list=list, tuple=tuple, hasattr=hasattr):
    def rebuilt(value):
        if is_a(value, dict):
            return mapping({key: rebuilt(item) for key, item in dict.items(value)})
        if is_a(value, (list, tuple)):
            return (list if is_a(value, list) else tuple)([rebuilt(item) for item in value])
        return value.model_dump() if hasattr(value, 'model_dump') else value
    return rebuilt(value)"""

SERIALIZE = """\
try:
    from pydantic import BaseModel, ConfigDict
    from typing import Any

    class _TempResultWrapper(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        result: Any

    _wrapped = _TempResultWrapper(result=_function_result)
    _serialized_result = _wrapped.model_dump()['result']
except ImportError:
    print("Pydantic not available in sandbox environment, falling back to string conversion")
    _serialized_result = str(_function_result)
except Exception as e:
    print(f"Failed to serialize result with Pydantic wrapper: {e}")
    _serialized_result = str(_function_result)
"""

EXPLAIN = f"{RESULT_VAR_NAME}_explain"

# For sources with serializers of their own: what cannot be serialized is named, and is no text with success.
EXPLAINER = f"""\
def {EXPLAIN}(value, error, is_a=isinstance, get=getattr, has=hasattr, dict=dict, items=(list, tuple, set, frozenset)):
    from pydantic_core import SchemaSerializer
    dump = SchemaSerializer({{'type': 'any'}}).to_python

    def fails(attempt, *arguments, **options):
        try:
            attempt(*arguments, **options)
        except Exception:
            return True
        return False

    def place(value, path):
        kind = type(value)
        if is_a(value, dict):
            parts = [(f'{{path}}[{{key!r}}]', part) for key, part in value.items()]
        elif is_a(value, items):
            parts = [(f'{{path}}[{{index}}]', part) for index, part in enumerate(value)]
        elif has(kind, '__pydantic_serializer__'):
            decorators = get(kind, '__pydantic_decorators__', None)
            if get(decorators, 'model_serializers', None):
                return path
            names = [*get(kind, '__pydantic_fields__', ()), *(get(value, '__pydantic_extra__', None) or ())]
            names += get(decorators, 'computed_fields', ())
            serialize = kind.__pydantic_serializer__.to_python
            found = next((name for name in names if fails(serialize, value, include={{name}})), None)
            if found is None:
                return path
            path = f'{{path}}.{{found}}'
            if found in get(decorators, 'computed_fields', ()) or not fails(dump, get(value, found)):
                return path
            return place(get(value, found), path)
        elif has(kind, '__dataclass_fields__'):
            parts = [(f'{{path}}.{{name}}', get(value, name, None)) for name in kind.__dataclass_fields__]
        else:
            parts = []
        found = next((part for part in parts if fails(dump, part[1])), None)
        return place(found[1], found[0]) if found else path

    if 'unhashable type' in str(error):
        return
    try:
        where = place(value, 'result')
    except RecursionError:
        where = 'result'
    raise RuntimeError(
        f'{{where}} cannot be serialized: {{error}}: correct its serializer, or return plain data'
    ) from error"""

PICKLE = f"{RESULT_VAR_NAME}_pkl = pickle.dumps({RESULT_VAR_NAME})"

BASE64 = f"base64.b64encode({RESULT_VAR_NAME}_pkl).decode('utf-8')"

FRAME = """\
data_checksum = hashlib.md5({RV}_pkl).hexdigest().encode('ascii')
{RV}_msg = (
  {marker!r} +
  struct.pack('>I', len({RV}_pkl)) +
  data_checksum +
  {RV}_pkl
)
sys.stdout.buffer.write({RV}_msg)
sys.stdout.buffer.flush()"""

GUARD_HEAD = f"""\
def {GUARD}(positional, named, agent_state, agent_state_as):
    import asyncio
    import base64
    import builtins
    import hashlib
    import inspect
    import pickle
    import struct
    import sys
    from builtins import Exception, ImportError, dict, len, open, print, str
    try:
        from pydantic import BaseModel, ConfigDict
        from typing import Any

        class _TempResultWrapper(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            result: Any
    except ImportError:
        _TempResultWrapper = None
    stdout = sys.stdout.buffer

    async def settled(value):
        while inspect.isawaitable(value):
            value = await value
        return value

    def serialized(value):
        if _TempResultWrapper is None:
            print("Pydantic not available in sandbox environment, falling back to string conversion")
            return str(value)
        try:
            return _TempResultWrapper(result=value).model_dump()['result']
        except Exception as e:
            print(f"Failed to serialize result with Pydantic wrapper: {{e}}")
            return str(value)
"""

BIND = f"{RESULT_VAR_NAME}_bind"

# Arguments of a tool whose schema was derived, as its annotations say. What pydantic knows nothing of stays as it is.
GUARD_BIND = f"""\
    def bind(tool):
        nonlocal positional, named
        try:
            from functools import update_wrapper
            from pydantic import ConfigDict, TypeAdapter, validate_call
            from types import SimpleNamespace
            from typing import Any, get_type_hints
            parameters = inspect.signature(tool).parameters
        except (ImportError, TypeError, ValueError):
            return
        names = getattr(inspect.unwrap(tool), '__globals__', {{}})
        hints = {{}}
        for name, parameter in parameters.items():
            hints[name] = Any
            if parameter.annotation is not parameter.empty and name not in ('agent_state', 'agent_id'):
                try:
                    one = SimpleNamespace(__annotations__={{name: parameter.annotation}})
                    hint = get_type_hints(one, names, include_extras=True)[name]
                    TypeAdapter(hint)
                    hints[name] = hint
                except Exception:
                    pass

        def collect(*args, **kwargs):
            return args, kwargs

        update_wrapper(collect, tool)
        collect.__annotations__ = hints
        positional, named = validate_call(collect)(*positional, **named)

    builtins.{BIND} = bind
"""

GUARD_PICKLE = """\
        envelope = {
            "results": serialized(value),
            "agent_state": agent_state if agent_state_as is None else agent_state_as(dict, agent_state),
        }
        payload = pickle.dumps(envelope, protocol=4)"""

GUARD_FRAME = """\
        checksum = hashlib.md5(payload, usedforsecurity=False).hexdigest().encode('ascii')
        try:
            sys.stdout.flush()
        except Exception:
            pass
        out = open(1, 'wb', closefd=False) if stdout.closed else stdout
        out.write({marker!r} + struct.pack('>I', len(payload)) + checksum + payload)
        out.flush()"""

GUARD_BASE64 = """\
        return base64.b64encode(payload).decode('utf-8')"""
