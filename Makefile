# Two commands do everything on a fresh machine with Python 3.10 or later: make demo, make test.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.flowkit-installed
DEMO ?= demo
# Test processes: one per core, at most eight. Each computes on one thread. The tests of a file share a process.
WORKERS ?= auto
# Compiled modules are kept even where the environment forbids it, since hundreds of short processes import the same ones.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-slow test-all lint types unit docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

demo: $(INSTALLED)  ## run extract, pack, train, evaluate on generated videos and print the results table
	$(BIN)/flowkit demo --output $(DEMO) --overwrite

# mypy works beside pytest, and its result is printed last.
test: lint typings  ## ruff, mypy, and pytest without the slow campaigns
	@types=$$(mktemp); trap 'rm -f $$types' EXIT; \
	$(BIN)/mypy >$$types 2>&1 & mypy=$$!; \
	$(PYTEST) -m "not slow"; unit=$$?; \
	wait $$mypy; types_failed=$$?; cat $$types; \
	test $$unit -eq 0 && test $$types_failed -eq 0

test-slow: $(INSTALLED)  ## the slow campaigns alone: kills, every depth, torch.compile, all GPU architectures, Dask, browser
	$(PYTEST) -m slow

test-all: test test-slow  ## all tests

lint: $(INSTALLED)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) typings  ## mypy
	$(BIN)/mypy

unit: $(INSTALLED)  ## pytest without the slow campaigns
	$(PYTEST) -m "not slow"

# A fresh .venv with everything in it; the versions are those of constraints.txt.
$(INSTALLED): pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# For mypy, pyright and editors: the folders under the names they install as.
typings:
	mkdir -p typings/flowkit
	ln -sfn ../../model typings/flowkit/model
	ln -sfn ../../cli typings/flowkit/cli

docs: $(INSTALLED)  ## the documentation site, in docs/_build/html; a warning is an error
	$(BIN)/python docs/make_site.py

clean:  ## remove what make made
	rm -rf $(VENV) $(DEMO) docs/_build typings build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
