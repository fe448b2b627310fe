# Two commands do everything, each with its own set-up, each safe to repeat:
#
#   make demo     run an example tool in the sandbox
#   make test     run the test suite                  (PYTEST_ARGS="tests/cli/test_app.py -x")
#                 on all processors; in one process:  (PYTEST_ARGS="-p no:xdist")
#
# Besides: make test-long (the tests marked "long", which make test runs only where their file is named), make
# test-plain (the tests of the engine with the plain one), make test-integrations (the adapters, with the frameworks
# themselves; FRAMEWORKS="smolagents" for some), make clients (what the tests of serve with real clients and in a browser
# need), make cpython (CPython's own tests, in the guest;
# CPYTHON_ARGS="test_json --again" for some), make science-suites (numpy's and pandas's, from the sources that
# NUMPY_SOURCE and PANDAS_SOURCE name; SCIENCE_ARGS="numpy/fft" for some), make mutants (each defence taken out: its
# tests must fail; MUTANTS_ARGS="frame decoder" for some), make lint, make types, make format, make clean; make
# advisories (known weaknesses of what is installed and of the guest, from the list in tools/) and make audit (the same
# from the network, with pip-audit). Nothing but Python 3.11+ and make is needed; PYTHON=... chooses the interpreter,
# VENV=... the directory of the virtual environment.

VENV ?= .venv
PYTHON ?=
PYTEST_ARGS ?=
MUTANTS_ARGS ?=
CPYTHON_ARGS ?=
SCIENCE_ARGS ?=
# Not in pyproject.toml: pytest without xdist does not know these options. With worksteal each process has
# tests that stand together, so that hardly a file is set up twice, and takes half of another's rest when
# it is through with them.
XDIST_ARGS = $(if $(findstring no:xdist,$(PYTEST_ARGS)),,--numprocesses auto --dist worksteal)
BIN := $(VENV)/bin

.PHONY: demo test test-long test-plain test-integrations clients cpython science-suites mutants lint types format advisories audit clean

demo: $(VENV)/.installed
	$(BIN)/wasm-sandbox run examples/invoice.py --args '{"lines": [{"sku": "A1", "qty": 3, "unit_price": "9.90"}], "currency": "EUR"}'

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(XDIST_ARGS) $(if $(findstring tests/,$(PYTEST_ARGS)),,-m "not long") $(PYTEST_ARGS)

test-long: $(VENV)/.dev
	$(BIN)/python -m pytest $(XDIST_ARGS) -m long $(PYTEST_ARGS)

test-plain: $(VENV)/.dev
	WASM_SANDBOX_ENGINE=plain $(BIN)/python -m pytest $(XDIST_ARGS) -m "not long" tests/engine tests/hostile tests/sandbox $(PYTEST_ARGS)

# Frameworks that install in seconds and beside the development tools; the others by hand, in environments of their own:
# pip install --group google-adk (or inspect-ai) --group dev, and pytest tests/integrations.
FRAMEWORKS ?= smolagents pydantic-ai langchain openai-agents fastmcp

test-integrations: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix --group ,$(FRAMEWORKS))
	$(BIN)/python -m pytest -p no:xdist tests/integrations $(PYTEST_ARGS)

# Clients that call our server, and a browser's remote control, for the tests of serve that are skipped without them;
# the browser itself is the system's (Debian: apt-get install chromium).
clients: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group clients --group browser

cpython: $(VENV)/.dev
	$(BIN)/python -m tests.cpython $(CPYTHON_ARGS)

science-suites: $(VENV)/.dev
	$(BIN)/python -m tests.science.suites $(SCIENCE_ARGS)

mutants: $(VENV)/.dev
	$(BIN)/python tools/mutants.py $(MUTANTS_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

advisories: $(VENV)/.dev
	$(BIN)/python tools/check_advisories.py

audit: $(VENV)/.dev
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --skip-editable --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last, so that an interrupted set-up is repeated; they are older than pyproject.toml
# when the dependencies may have changed.

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

$(VENV)/.installed: pyproject.toml
	@set -eu; \
	fits='import sys; sys.exit(sys.version_info < (3, 11))'; \
	if ! $(BIN)/python -c "$$fits" 2> /dev/null; then \
	    for python in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3 python); do \
	        if "$$python" -c "$$fits" 2> /dev/null; then found=$$python; break; fi; \
	    done; \
	    if [ -z "$${found:-}" ]; then \
	        echo "Python 3.11 or newer is needed, and none was found; name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	    fi; \
	    echo "making $(VENV) with $$("$$found" -V)"; \
	    if ! "$$found" -m venv --clear $(VENV); then \
	        rm -rf $(VENV); \
	        echo "$$found cannot make a virtual environment: install its venv module" \
	            "(on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; \
	    fi; \
	fi
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null # uv makes it without
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@
