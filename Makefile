# Everything works on a fresh machine: Python 3.10 or newer and pip are all it needs.
# The first run sets up .venv (a minute or two); later runs go straight to work.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.PHONY: help demo test suite test-openmpi test-pythons lint format types bench docs clean

BIN := .venv/bin
DEV := .venv/.ready
INPUTS := pyproject.toml hpcremote/_version.py scripts/setup-venv

help:
	@echo "make demo    start 4 MPI ranks, tour the API, smooth a mountain range, save a picture"
	@echo "make test    lint, types, import layers, then the whole test suite (MPICH, Open MPI, other Pythons)"
	@echo "make suite   the test suite alone; arguments by PYTEST='-k payload -x'"
	@echo "make lint | format | types | bench | docs | clean"

demo: $(DEV)
	@$(BIN)/python examples/dem_diffusion.py

# ---------------------------------------------------------------- checks

# The suite comes last: its closing line is the one to look at.
test: lint types test-openmpi test-pythons suite

suite: $(DEV)
ifdef PYTEST
	$(BIN)/python -m pytest $(PYTEST)
else
	@code=0; scripts/test-schedulers || code=1; $(BIN)/python -m pytest --ignore=tests/schedulers || code=1; exit $$code
endif

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV)
	$(BIN)/mypy

# The tests marked "openmpi", in an environment whose MPI library is Open MPI.
test-openmpi:
	@scripts/test-openmpi

# Install, import and run two ranks under every other supported Python that this machine has.
test-pythons:
	@scripts/test-pythons

# ---------------------------------------------------------------- the rest

bench: $(DEV)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/scale.py

docs: .venv/.docs-ready
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

clean:
	rm -rf .venv .venv-* build dist .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV): $(INPUTS)
	@scripts/setup-venv .venv mpich test lint demo

.venv/.docs-ready: $(DEV)
	@echo "installing the documentation tools into .venv"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --group docs
	@touch $@
