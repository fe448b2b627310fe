"""Report: a tool that returns a member of an enumeration of the library gives an error, or a member.

The kind: every enumeration that a module of the guest's standard library, or of pydantic, defines. A member arrives as
its value, wherever it is in the result, as one of the tool's own enumerations does.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import Limits, Tool, run_tool

ALL_OF_THEM = """
import contextlib, enum, importlib, io, sys

LIBRARIES = {*sys.stdlib_module_names, "pydantic", "pydantic_core"}
LEFT_OUT = {"antigravity", "this", "idlelib", "test", "__main__"}

def members():
    for name in sorted(sys.stdlib_module_names - LEFT_OUT):
        with contextlib.suppress(BaseException), contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(name)
    found = {}
    def walk(owner, module):
        for thing in list(vars(owner).values()):
            if isinstance(thing, type) and thing.__module__ == module:
                if issubclass(thing, enum.Enum):
                    found.update({f"{module}.{thing.__qualname__}.{n}": m for n, m in thing.__members__.items()})
                elif thing is not owner and owner.__class__ is not type:
                    walk(thing, module)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in LIBRARIES - LEFT_OUT:
            walk(module, name)
    return found

def everything():
    found = members()
    return [[name, member, getattr(member, "_value_")] for name, member in found.items()]
"""


def test_each_member_of_each_enumeration_arrives_as_its_value() -> None:
    tool = Tool(name="everything", source_code=ALL_OF_THEM)
    result = run_tool(tool, limits=Limits(fuel=None, memory_bytes=1 << 30))
    assert result.error is None, result.error
    assert len({name.rpartition(".")[0] for name, _, _ in result.func_return}) > 25
    for name, member, value in result.func_return:
        assert type(member) is type(value) in (int, str, tuple, type(None)), name
        assert member == value, name


NAMED = {
    "calendar.MONDAY": 0,
    "re.I": 2,
    "re.I | re.M": 10,
    "re.NOFLAG": 0,
    "signal.SIGINT": 2,
    "HTTPStatus.OK": 200,
    "HTTPMethod.GET": "GET",
    "uuid.SafeUUID.unknown": None,
    "socket.AF_INET": 1,
    "pstats.SortKey.TIME": "time",
    "inspect.Parameter.VAR_KEYWORD": 4,
}
IMPORTS = "import calendar, inspect, pstats, re, signal, socket, uuid\nfrom http import HTTPMethod, HTTPStatus\n"


@settings(max_examples=15)
@given(st.data())
def test_members_anywhere_in_a_result_are_their_values(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(NAMED)))
    other = data.draw(st.sampled_from(sorted(NAMED)))
    shape, expected = data.draw(
        st.sampled_from(
            [
                (f"{name}", NAMED[name]),
                (f"[{name}, ({other},)]", [NAMED[name], (NAMED[other],)]),
                (f"{{{name}: {other}}}", {NAMED[name]: NAMED[other]}),
                (f"{{{name}}}", {NAMED[name]}),
            ]
        )
    )
    result = run_tool(Tool(name="f", source_code=f"{IMPORTS}def f():\n    return {shape}\n"))
    assert (result.error, repr(result.func_return)) == (None, repr(expected))


def test_a_class_itself_is_refused_as_ever() -> None:
    result = run_tool(Tool(name="f", source_code=f"{IMPORTS}def f():\n    return HTTPStatus\n"))
    assert result.error is not None
    assert "http.HTTPStatus" in result.error.message
