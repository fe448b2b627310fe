"""CPython's own regression tests, run in the guest: `python -m tests.cpython` runs all, `test_short_list` a few."""
