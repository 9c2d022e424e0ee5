# Needs only make and Python 3.11 or newer: every target sets up what it uses in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# What `make demo` trains. With an existing run in the folder, the same command resumes it.
DEMO := train grid --preset didact --dim 2 --side 64 --steps 5000 --out runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/runtime.stamp ## train a Teacher and a Student on a grid; ends with the place of the report
	@echo "Training for about two minutes on two cores; the same command again resumes"
	$(BIN)/didact $(DEMO)
	@echo "The command is $(BIN)/didact; 'source $(BIN)/activate' makes it didact"

# Compilation is most of the time of the tests: here it is kept short, `test-all` has all of it.
# Without optimisations the emitters of fusions, and code in parts, are what takes longest. (XLA
# ends at a flag that it does not know: a new version in constraints.txt may need others.)
test: lint ## lint, then all tests but the slow ones
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
	  XLA_FLAGS="--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 $$XLA_FLAGS" \
	  $(BIN)/pytest -m "not slow" -n 2 --dist loadfile --durations 15

test-all: lint docs ## lint, the documentation, and every test
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/dev.stamp ## format, lint and type checks; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

bench: $(VENV)/runtime.stamp ## time a training iteration
	$(BIN)/python benchmarks/bench.py

docs: $(VENV)/dev.stamp ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove everything that these targets made, except runs/
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up ---------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "didact needs Python 3.11 or newer, which '$(PYTHON)' is not: name another, as in 'make $(MAKECMDGOALS) PYTHON=python3.12'." >&2; \
	  exit 1; }
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/runtime.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[dev]"
	@touch $(VENV)/runtime.stamp $@
