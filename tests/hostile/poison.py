"""Guests that spoil whatever they can reach, and one that tells whether anything is spoilt. Also a script."""

from __future__ import annotations

import sys
import time

from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool

POISONS = {
    "builtins": """
    import builtins
    for name in list(vars(builtins)):
        if name not in ("len", "setattr", "print", "__import__", "__build_class__"):
            setattr(builtins, name, print)
    """,
    "modules": """
    import sys
    for name, module in list(sys.modules.items()):
        if name not in ("sys", "builtins", "__main__"):
            vars(module).clear()
    sys.modules.clear()
    """,
    "attributes": """
    import json, collections, datetime, decimal, enum, typing, re, os
    json.dumps = json.loads = lambda *a, **k: "poison"
    collections.OrderedDict = collections.namedtuple = None
    datetime.datetime = decimal.Decimal = enum.Enum = typing.Any = re.compile = None
    os.environ["POISON"] = "1"
    decimal.getcontext().prec = 1
    """,
    "interpreter": """
    import sys, gc, locale
    sys.setrecursionlimit(50)
    sys.path[:] = ["poison"]; sys.meta_path.clear(); sys.path_hooks.clear()
    sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)
    sys.excepthook = sys.unraisablehook = sys.displayhook = lambda *a: None
    sys.set_int_max_str_digits(640)
    sys.stdout = sys.stderr = sys.__stdout__ = None
    gc.disable(); gc.freeze(); gc.set_threshold(1)
    """,
    "codecs": """
    import codecs
    codecs.register(lambda name: None)
    codecs.register_error("strict", lambda e: ("poison", e.end))
    codecs.lookup("utf-8").encode
    import encodings; encodings._cache.clear(); encodings.aliases.aliases.clear()
    """,
    "pickle": """
    import pickle, copyreg
    copyreg.pickle(int, lambda n: (int, (666,)))
    copyreg.dispatch_table.clear()
    pickle.dumps = lambda *a, **k: b"poison"
    """,
    "pydantic": """
    import pydantic, pydantic_core, pydantic.main
    pydantic.BaseModel.model_dump = lambda *a, **k: {"result": "poison"}
    pydantic.main.BaseModel.__init__ = lambda *a, **k: None
    pydantic_core.to_json = None
    pydantic.BaseModel = pydantic.main.BaseModel = None
    """,
    "pydantic's inside": """
    import gc, pydantic._internal._model_construction as construction, pydantic_core
    from pydantic import BaseModel
    for cls in [c for c in gc.get_objects() if isinstance(c, type) and c.__module__.startswith("pydantic")]:
        for name in ("__pydantic_validator__", "__pydantic_serializer__", "__pydantic_core_schema__", "__init__"):
            try: setattr(cls, name, None)
            except BaseException: pass
    construction.ModelMetaclass.__new__ = construction.complete_model_class = None
    vars(pydantic_core).clear()
    """,
    "functions of the library": """
    import gc, types
    evil = (lambda *a, **k: "poison").__code__
    for function in [g for g in gc.get_objects() if isinstance(g, types.FunctionType)]:
        try: function.__code__, function.__defaults__, function.__kwdefaults__ = evil, ("poison",), {"poison": 1}
        except BaseException: pass
    """,
    "objects that all share": """
    import gc, http, json, re, sys
    for member in http.HTTPStatus: member._value_ = member.phrase = "poison"
    for thing in gc.get_objects():
        if isinstance(thing, (list, set)) and thing is not sys.path:
            try: thing.clear()
            except BaseException: pass
    re.purge(); json.decoder.JSONDecoder.decode = json._default_encoder = None
    """,
    "types": """
    import gc
    class Meta(type): pass
    for cls in [c for c in gc.get_objects() if isinstance(c, type)][:3000]:
        try: cls.poison = 1; cls.__repr__ = cls.__init__ = lambda *a: None
        except BaseException: pass
    """,
    "interned": """
    import sys
    for n in range(100_000): sys.intern(f"poison{n}")
    """,
    "memory": """
    held = [bytes([n % 256]) * 100_000 for n in range(1500)]
    for n in range(0, 1500, 2): held[n] = None
    """,
    "random": """
    import random, time
    random.seed(1); random.random = lambda: 0.5
    time.time = time.monotonic = lambda: 0
    """,
    "bytecode": """
    import types
    code = (lambda: None).__code__
    types.FunctionType(code.replace(co_code=bytes([100, 255] * 500), co_consts=()), {})()
    """,
    "native stack": "t = ()\nfor _ in range(600_000): t = (t,)\nhash(t)",
    "exit functions": "import atexit, os\natexit.register(os._exit, 7)",
    "a warm abort": "import os; os.abort()",
    "open files": "import os\nos.close(1); os.close(2); os.close(0)",
    "constants": """
    import gc
    for t in [t for t in gc.get_objects() if type(t) is dict][:5000]:
        try: t["poison"] = t
        except BaseException: pass
    """,
    "asyncio": """
    import asyncio
    asyncio.run = lambda c: "poison"
    asyncio.set_event_loop_policy(None)
    """,
}

CLEAN = """
import asyncio, builtins, codecs, collections, copyreg, datetime, decimal, enum, gc, http, json, os, pickle, re, sys
import pydantic, typing

class Colour(enum.Enum):
    RED = 1

class Model(pydantic.BaseModel):
    a: int
    b: list[str] = []

async def later():
    await asyncio.sleep(0)
    return 7

def f() -> dict:
    return {
        "builtins": hash(str(sorted((k, str(type(v))) for k, v in vars(builtins).items()))),
        "modules": sorted(sys.modules),
        "environ": dict(os.environ),
        "interpreter": [sys.getrecursionlimit(), sys.path, len(sys.meta_path), len(sys.path_hooks), gc.isenabled(),
                        gc.get_threshold(), sys.gettrace(), sys.get_int_max_str_digits(), len(copyreg.dispatch_table)],
        "json": json.dumps({"a": [1, 2.5, None]}, sort_keys=True),
        "pydantic": Model(a="5", b=["x"]).model_dump_json(),
        "schema": json.dumps(Model.model_json_schema()),
        "decimal": str(decimal.Decimal(1) / 3),
        "time": str(datetime.datetime(2024, 1, 2)),
        "status": [http.HTTPStatus(404).phrase, http.HTTPStatus.OK + 0],
        "regex": re.sub(r"(\\w)", r"<\\1>", "ab"),
        "codecs": "é\\ud800".encode("utf-8", "backslashreplace"),
        "pickle": pickle.loads(pickle.dumps([1, "a", Colour.RED.value])),
        "asyncio": asyncio.run(later()),
        "types": [repr(int), repr(collections.OrderedDict(a=1)), hasattr(int, "poison"), typing.get_type_hints(f)],
        "hash": hash("abc"),
        "addresses": [id(object), id(json), id(None), id(sys.modules)],
        "allocator": sys.getallocatedblocks() // 1000,
    }
"""


def poisoned(name: str) -> ToolExecutionResult:
    return run_tool(
        Tool(name="f", source_code=f"def f():{_indented(POISONS[name])}"), limits=Limits(timeout_seconds=20)
    )


def clean() -> tuple[object, list[str] | None, list[str] | None]:
    result = run_tool(Tool(name="f", source_code=CLEAN.replace("typing.get_type_hints(f)", "str(f)[:11]")))
    assert result.error is None, result.error
    return result.func_return, result.stdout, result.stderr


def _indented(body: str) -> str:
    import textwrap

    return "\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")


def main(runs: int) -> None:
    began, first = time.monotonic(), clean()
    names = list(POISONS)
    for n in range(runs):
        poisoned(names[n % len(names)])
        assert clean() == first, f"run {n}, after {names[n % len(names)]}"
    print(
        f"{runs} poisoned runs, each followed by a clean one that was like the first, {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
