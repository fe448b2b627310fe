"""Runs inside a CPython that is a WASI command, before the script: makes it run scripts as our own guest does.

The host sends this text with ``-c``; the text of our event loop (`_sandbox_loop`), and the name and the text of the
script follow it. It is never imported by the host, and must run in any CPython 3 of the last years, with nothing but
its standard library.
"""
# mypy: ignore-errors


def _start():
    import builtins
    import linecache
    import sys
    import types

    script = sys.argv.pop()
    name = sys.argv.pop()
    loop = sys.argv.pop()
    sys.modules["_sandbox_start"] = sys.modules["__main__"]  # kept: the interpreter still uses it
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = builtins
    main.__file__ = name
    linecache.cache[name] = (len(script), None, script.splitlines(keepends=True), name)

    def report(kind, value, trace):
        import traceback

        for _ in range(2):  # of this module and of this function
            trace = trace.tb_next if trace else None
        traceback.print_exception(kind, value, trace, file=sys.__stderr__)

    class Results(types.ModuleType):
        """Stands for pydantic where there is none, for one purpose: making a result plain."""

        def __getattr__(self, attribute):
            stand_ins = {"BaseModel": Wrapper, "ConfigDict": dict}
            if attribute not in stand_ins:
                raise AttributeError(attribute)
            try:
                import pydantic
            except ImportError:
                return stand_ins[attribute]
            return getattr(pydantic, attribute)

    class Wrapper:
        """As much of a model as the script needs."""

        def __init__(self, result):
            self.result = result

        def model_dump(self):
            return {"result": plain(self.result, 255, set())}

    def plain(value, depth, around):
        """What pydantic makes of a value of any type: containers and dataclasses plain, all else as it is."""
        is_dataclass = "__dataclass_fields__" in dir(type(value))
        if id(value) in around or not depth or not (is_dataclass or isinstance(value, containers)):
            return value
        around.add(id(value))

        def inner(item):
            return plain(item, depth - 1, around)

        if is_dataclass:
            made = {field: inner(getattr(value, field)) for field in type(value).__dataclass_fields__}
        elif isinstance(value, dict):
            made = {key: inner(item) for key, item in value.items()}
        else:
            kind = next(kind for kind in containers if isinstance(value, kind))
            made = kind(map(inner, value))
        around.discard(id(value))
        return made

    containers = (dict, list, tuple, set, frozenset)
    sys.modules["_sandbox_results"] = Results("_sandbox_results")
    if "asyncio" in script:
        install_event_loop(loop)
    sys.excepthook = report
    add_names_of_site()
    code = compile(script, name, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def add_names_of_site():
    """What `site` adds to the builtins; its other half looks for packages on disk."""
    try:
        import site
    except ImportError:
        return
    site.setquit()
    site.setcopyright()
    site.sethelper()


def install_event_loop(text):
    """Where there is no socket pair, the event loop of our own guest, which needs none."""
    import socket

    if hasattr(socket, "socketpair"):
        try:
            for end in socket.socketpair():
                end.close()
            return
        except OSError:
            pass
    module = {"__name__": "_sandbox_loop"}
    exec(compile(text, "_sandbox_loop.py", "exec"), module)
    module["install"]()


_start()
