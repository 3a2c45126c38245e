# The README's commands. Each makes what it needs: a virtual environment from constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test install lint clean

quickstart: $(VENV)/installed
	$(BIN)/bootdiff quickstart --output runs/quickstart

test: $(VENV)/installed
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check src tests recipes examples benchmarks
	$(BIN)/ruff format --check src tests recipes examples benchmarks
	$(BIN)/mypy

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
