"""Runs inside the guest: one test module of CPython. The host reads this as text; `tell` is a host function."""
# mypy: ignore-errors
# ruff: noqa: F821


def run_module(module: str, leave_out: list[str], has: list[str]) -> dict:
    """Run the tests of a module or package below ``test``.

    Args:
        module: its name, without ``test.``.
        leave_out: ids of tests that are not started.
        has: what CPython's tests take WASI not to have, and the tests of this module can do without: "sockets",
            "subprocesses"; any other word is one of CPython's C modules for tests: only the tests that call it skip
            themselves, and not all.

    Returns:
        Number of tests that were started, and what the last call of `tell` did not tell.
    """
    import os
    import sys
    import traceback
    import types
    import unittest

    def absent(word):
        module = types.ModuleType(word)

        def look_up(attribute):
            if attribute.startswith("__"):
                raise AttributeError(attribute)

            def skip(*args, **kwargs):
                raise unittest.SkipTest(f"requires {word}.{attribute}")

            return skip

        module.__getattr__ = look_up
        return module

    report = tell
    sys.path.insert(0, "/cpython/Lib")
    os.makedirs("/tmp/work", exist_ok=True)
    os.chdir("/tmp/work")
    from test import support

    support.use_resources = []  # as CPython's own runner has it when nothing is asked for
    # It asks modules that are not in the guest for these.
    support.MISSING_C_DOCSTRINGS = not list.append.__doc__
    support.HAVE_DOCSTRINGS = bool(list.append.__doc__)
    support.requires_docstrings = unittest.skipUnless(support.HAVE_DOCSTRINGS, "test requires docstrings")
    support.has_no_debug_ranges = lambda: all(place[2] is None for place in run_module.__code__.co_positions())
    support.skip_if_suppress_immortalization = lambda: lambda test: test
    for word in has:
        if word == "sockets":
            support.has_socket_support = True
        elif word == "subprocesses":
            support.has_subprocess_support = True
        else:
            sys.modules[word] = absent(word)
    prefix = f"test.{module}."

    def name(test):
        if isinstance(test, unittest.case._SubTest):
            test = test.test_case
        return test.id().replace(prefix, "")

    class Result(unittest.TestResult):
        def __init__(self):
            super().__init__()
            self.finished = []

        def startTest(self, test):
            super().startTest(test)
            told, self.finished = self.finished, []
            report(told, name(test))

        def note(self, test, outcome, detail=""):
            self.finished.append([name(test), outcome, detail])

        def stopTest(self, test):
            super().stopTest(test)
            self.finished.append([name(test), "stopped", ""])

        def failed(self, test, outcome, error):
            kind, value, trace = error
            try:
                lines = traceback.format_exception(kind, value, trace)
                text = "".join(lines)
            except BaseException as problem:
                text = f"{kind.__name__}, and {type(problem).__name__} while it was written"
            if len(text) > 3000:
                text = f"{text[:1000]}\n...\n{text[-2000:]}"
            self.note(test, outcome, text)

        def addError(self, test, err):
            self.failed(test, "error", err)

        def addFailure(self, test, err):
            self.failed(test, "failure", err)

        def addSubTest(self, test, subtest, err):
            if err is not None:
                self.failed(test, "failure" if issubclass(err[0], test.failureException) else "error", err)

        def addSkip(self, test, reason):
            self.note(test, "skipped", reason)

        def addSuccess(self, test):
            self.note(test, "success")

        def addExpectedFailure(self, test, err):
            self.note(test, "success")

        def addUnexpectedSuccess(self, test):
            self.note(test, "failure", "unexpected success")

        def addDuration(self, test, elapsed):
            pass

    def without(suite):
        for index, test in enumerate(suite):
            if isinstance(test, unittest.TestSuite):
                without(test)
            elif test is not None and name(test) in left_out:
                suite._tests[index] = unittest.TestSuite()

    left_out = set(leave_out)
    result = Result()
    try:
        suite = unittest.TestLoader().loadTestsFromName(f"test.{module}")
    except unittest.SkipTest as skip:  # of a package that is above the module
        return {"started": 0, "finished": [["(all)", "skipped", str(skip)]]}
    without(suite)
    suite(result)
    return {"started": result.testsRun, "finished": result.finished}
