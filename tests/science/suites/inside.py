"""Runs inside the guest: one test file of numpy or pandas. The host reads this as text; `tell` is a host function."""
# mypy: ignore-errors
# ruff: noqa: F821


def run_file(file: str, leave_out: list[str]) -> dict:
    """Run the tests of a file below ``/suite``, which holds the source of numpy or of pandas.

    Args:
        file: its path, such as ``numpy/fft/tests/test_helper.py``.
        leave_out: names of tests that are not started.

    Returns:
        What the last call of `tell` did not tell, and the exit code of pytest.
    """
    import importlib
    import os
    import sys
    import types

    report = tell
    os.makedirs("/tmp/work", exist_ok=True)
    os.chdir("/tmp/work")
    os.getuid = lambda: 0
    os.umask = lambda mask: 0o22
    # The libraries are frozen: what only their sources have (tests, data, helpers) is found beside those.
    package = file.partition("/")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        module = sys.modules[name]
        place = f"/suite/{name.replace('.', '/')}"
        if hasattr(module, "__path__") and os.path.isdir(place):
            module.__path__ = [*module.__path__, place]
    importlib.invalidate_caches()

    # Files that use these in some tests import them for all.
    class Absent(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {"__init__": unavailable, "__class_getitem__": classmethod(lambda cls, item: cls)})

    def unavailable(*args, **kwargs):
        raise NotImplementedError("this module is not in the guest")

    for name in ("ctypes", "ctypes.util", "mmap"):
        if name not in sys.modules:
            sys.modules[name] = Absent(name)

    import numpy as np
    import pytest

    # numpy's C modules for its tests are not in the guest: tests that use them skip themselves. Files that make a value
    # of theirs when they are imported get one that nothing else is done with.
    class Untested:
        def __init__(self, module, name):
            self.module = module
            self.__name__ = name  # pytest's, too, for a parameter

        def __call__(self, *args, **kwargs):
            if running:
                pytest.skip(f"requires {self.module}.{self.__name__}")
            return self

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Untested(self.module, f"{self.__name__}.{name}")

        def __reduce_ex__(self, protocol):
            return self()

        @property
        def dtype(self):
            self()
            return np.dtype(object)

    class UntestedModule(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Untested(self.__name__, name)

    running = []  # the test that runs
    for name in ("multiarray", "umath", "rational", "struct_ufunc", "operand_flag"):
        module = sys.modules[f"numpy._core._{name}_tests"] = UntestedModule(f"numpy._core._{name}_tests")
        setattr(sys.modules["numpy._core"], f"_{name}_tests", module)
    sys.modules["numpy._core._multiarray_tests"].get_fpu_mode = int  # asked for around every test

    finished = []

    def short(nodeid):
        return nodeid.replace("../", "").rpartition("suite/")[2].removeprefix(file).removeprefix("::")

    class Plugin:
        def pytest_collection_modifyitems(self, items):
            items[:] = [item for item in items if short(item.nodeid) not in left_out]

        def pytest_collectreport(self, report):
            if report.failed:
                finished.append(["(collection)", "error", str(report.longrepr)[-3000:]])
            elif report.skipped:
                finished.append(["(all)", "skipped", str(report.longrepr)[-500:]])

        def pytest_runtest_logstart(self, nodeid):
            told = finished[:]
            finished.clear()
            running.append(nodeid)
            report(told, short(nodeid))

        def pytest_runtest_logreport(self, report):
            if report.failed:
                outcome = "failure" if report.when == "call" else "error"
                finished.append([short(report.nodeid), outcome, str(report.longrepr)[-3000:]])
            elif report.skipped and not hasattr(report, "wasxfail"):
                finished.append([short(report.nodeid), "skipped", str(report.longrepr)[-500:]])

        def pytest_runtest_logfinish(self, nodeid):
            finished.append([short(nodeid), "stopped", ""])
            running.clear()

    left_out = set(leave_out)
    blocked = "cacheprovider faulthandler logging unraisableexception threadexception hypothesispytest"
    options = [word for name in blocked.split() for word in ("-p", f"no:{name}")]
    options += ["-q", "--tb=short", "--capture=sys", "--import-mode=importlib", "--rootdir=/suite"]
    options += ["-c", "/etc/pytest.ini", "-m", "not slow and not network and not db", f"/suite/{file}"]
    try:
        code = pytest.main(options, plugins=[Plugin()])
    except pytest.skip.Exception as reason:  # of a conftest.py, which skips all of its directory
        finished.append(["(all)", "skipped", str(reason)])
        code = pytest.ExitCode.NO_TESTS_COLLECTED
    return {"finished": finished, "code": int(code)}
