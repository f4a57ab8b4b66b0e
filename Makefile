# Each target makes .venv itself, so a machine with Python 3.11 or newer, pip and make needs no set-up.
# `make test PYTHON=python3.12` uses another interpreter, in an environment of its own.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(VERSION))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
comma := ,
# torch is pinned to a build for Python 3.11 without CUDA; elsewhere the parity tests skip and say so.
EXTRAS := dev$(if $(filter 3.11,$(VERSION)),$(comma)torch)

.PHONY: demo test test-all lint clean help
help:
	@echo "make demo      train four recognisers on rendered look-alikes for some minutes, compare them"
	@echo "make test      the quick tests (five minutes on two cores)"
	@echo "make test-all  every test: also faults, damaged input, several processes, long commands"
	@echo "make lint      ruff, mypy and the layers of imports"

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxcrnn needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/core: $(VENV)/made pyproject.toml
	$(PIP) --editable '.[report]'
	@touch $@

$(VENV)/all: $(VENV)/core pyproject.toml
	$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/core
	$(BIN)/jaxcrnn demo

test: $(VENV)/all
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 5

test-all: $(VENV)/all
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20 -m ''

lint: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache
