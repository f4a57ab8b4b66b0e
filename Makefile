# Every target creates .venv itself: a machine with Python 3.11 or newer, pip and make needs no set-up.
# `make test PYTHON=python3.12` uses another interpreter and its own environment, .venv-3.12.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(VERSION))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
comma := ,
# torch is pinned to a CPU build for Python 3.11; on other versions the parity tests are skipped.
EXTRAS := dev$(if $(filter 3.11,$(VERSION)),$(comma)torch)

.PHONY: demo pretrain test test-all lint docs clean help
help:
	@echo "make demo      read look-alikes with the pretrained recogniser and fine-tune it with four losses (about three minutes on two cores)"
	@echo "make pretrain  train the pretrained recogniser again (hours on a CPU; GPU=1: minutes; TRIAL=1: a small trial)"
	@echo "make test      run the quick tests (about five minutes on two cores)"
	@echo "make test-all  run all tests, including fault injection, invalid input, several processes and long commands"
	@echo "make lint      run ruff, mypy, codespell and the import contracts"
	@echo "make docs      build the documentation into build/site; any warning is an error"
	@echo "make clean     remove environments, builds and caches"

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxcrnn needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/core: $(VENV)/made pyproject.toml
	$(PIP) --editable '.[report$(comma)onnx]'
	@touch $@

$(VENV)/all: $(VENV)/core pyproject.toml
	$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/docs: $(VENV)/core pyproject.toml
	$(PIP) --editable '.[docs]'
	@touch $@

demo: $(VENV)/core
	$(BIN)/jaxcrnn demo

# Options such as GPU=1 or MINUTES=600 are passed on; scripts/pretrain/Makefile explains them.
pretrain: $(VENV)/core
	$(PIP) --editable '.[data$(if $(GPU),$(comma)cuda)]'
	@$(MAKE) --no-print-directory -f scripts/pretrain/Makefile PYTHON=$(BIN)/python $(STAGE)

test: $(VENV)/all
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 5

test-all: $(VENV)/all
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20 -m ''

lint: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file .mkdocs.yml
	@echo "build/site/index.html"

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache
