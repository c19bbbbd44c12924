# Two commands do everything on a fresh machine with Python 3.10 or later: make demo, make test.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.flowkit-installed
DEMO ?= demo

.PHONY: help demo test lint types unit clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

demo: $(INSTALLED)  ## run extract, pack, train, evaluate on generated videos and print the results table
	$(BIN)/flowkit demo --output $(DEMO) --overwrite

test: lint types unit  ## ruff, mypy, pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) typings
	$(BIN)/mypy

unit: $(INSTALLED)
	$(BIN)/python -m pytest

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

clean:  ## remove what make made
	rm -rf $(VENV) $(DEMO) typings build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
