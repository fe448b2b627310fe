"""Which modules of CPython's tests are run: all, some twice, and a short list with every change."""

from __future__ import annotations

from tests.cpython.running import ON_A_MOUNT

ABOUT_FILES = {
    "test_bz2", "test_dbm_dumb", "test_dbm_sqlite3", "test_file", "test_filecmp", "test_fileinput",
    "test_fileio", "test_fnmatch", "test_genericpath", "test_glob", "test_gzip", "test_io", "test_linecache",
    "test_logging", "test_lzma", "test_netrc", "test_os", "test_pathlib", "test_posix", "test_posixpath",
    "test_shelve", "test_shutil", "test_sqlite3", "test_stat", "test_tarfile", "test_tempfile",
    "test_unicode_file", "test_unicode_file_functions", "test_univnewlines", "test_zipfile", "test_zipimport",
}  # fmt: skip
"""Modules that are run twice, the second time on a mount."""

SHORT_LIST = [
    "test_asyncio.test_futures", "test_builtin", "test_class", "test_codecs", "test_collections",
    "test_dataclasses", "test_dict", "test_functools", "test_json", "test_patma", "test_posix on a mount",
    "test_shutil", "test_shutil on a mount", "test_strptime", "test_tempfile",
]  # fmt: skip
"""Modules that run with every change: a bit of everything, some ten seconds together."""


def all_of(modules: list[str]) -> list[str]:
    """All that is run of these modules, with those on a mount."""
    return modules + [module + ON_A_MOUNT for module in modules if module in ABOUT_FILES]
