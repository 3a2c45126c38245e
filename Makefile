# The README's commands. Each makes what it needs: a virtual environment from constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Two workers of one thread each: faster on two cores than one worker of two threads. Each takes one half of the tests
# and then what the other has left, so that what a test file trains is mostly trained once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal --durations 15
FILES ?= tests
# Scripts are checked for calls and names that the package no longer has, not for the precision of their types.
SCRIPTS := recipes examples benchmarks docs/figures

.PHONY: quickstart test test-slow test-all install lint clean

quickstart: $(VENV)/installed
	$(BIN)/bootdiff quickstart --output runs/quickstart

# A verdict in minutes; then the slow tests of some files; then everything there is.
test: $(VENV)/installed
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed
	$(PYTEST) -m slow $(FILES)

test-all: $(VENV)/installed
	$(PYTEST)

lint: $(VENV)/installed
	$(BIN)/ruff check src tests $(SCRIPTS)
	$(BIN)/ruff format --check src tests $(SCRIPTS)
	$(BIN)/mypy
	$(BIN)/mypy $(SCRIPTS) --disable-error-code arg-type --disable-error-code misc --disable-error-code union-attr \
		--disable-error-code call-overload --disable-error-code var-annotated --disable-error-code assignment \
		--disable-error-code func-returns-value

install: $(VENV)/installed

# torch first and pinned: an unpinned one may bring gigabytes of CUDA libraries to a machine without a GPU.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bootdiff needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build
