"""numpy's and pandas's own tests, run in the guest: `python -m tests.science.suites` runs them file by file."""
