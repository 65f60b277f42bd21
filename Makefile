# Everything runs in .venv, which is made once and again when pyproject.toml or constraints.txt has changed.
# Another interpreter: make clean, then make test PYTHON=python3.12. pip's own settings (PIP_INDEX_URL, ...) are taken from the environment.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLING := $(VENV)/.installing

export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test faults style docs results report clean

help:  ## Show what can be made (the default)
	@echo "make TARGET [ARGS='more arguments for the command'] [PYTHON=python3]"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'

venv: $(INSTALLED)  ## Make the environment in .venv (every target below does so where needed)

# The mark is there while pip runs: where it is found, an installation was cut short, and a package may be half there.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing bertkd and its requirements into $(VENV) (once, some minutes)"
	@if [ -e $(INSTALLING) ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(INSTALLING)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev,docs,export,report]'
	@rm -f $(INSTALLING) && touch $(INSTALLED)

demo: $(INSTALLED)  ## Prune and distill a small model on the built-in data: table, chart, results and models
	$(BIN)/bertkd demo $(ARGS)

# One thread for each of a few processes: the models are tiny, and threads that wait for each other take longer. Threads
# that spin while they wait slow the other processes down; a command that runs alone is faster with them.
test faults: export OMP_WAIT_POLICY := PASSIVE
test: export OMP_NUM_THREADS := 1
test: $(INSTALLED)  ## Run all tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 $(ARGS)

# A kill at every boundary of what a command writes, and disks that fail. `make test` has a sample of it.
faults: export OMP_NUM_THREADS := 1
faults: $(INSTALLED)  ## Kill commands wherever they write, let disks fail, and start them again (about an hour)
	$(BIN)/python -m pytest tests/faults -m faults --capture no $(ARGS)

style: $(INSTALLED)  ## Check style, formatting, the floors of the package and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(INSTALLED)  ## Build the documentation as a site in site/; a dead link or a missing page fails
	$(BIN)/mkdocs build --strict $(ARGS)

results: $(INSTALLED)  ## Make the tables and charts of docs/ again from the results files
	$(BIN)/python benchmarks/collect_results.py $(ARGS)
	$(BIN)/python benchmarks/shrink_table.py
	$(BIN)/python benchmarks/pruning_table.py
	$(BIN)/python benchmarks/paper_tables.py
	$(BIN)/python benchmarks/benchmark_pruning.py
	$(BIN)/python benchmarks/promises_table.py

report: $(INSTALLED)  ## Make one HTML page of all results, with charts of quality against speed and size
	$(BIN)/bertkd report --results_dir docs/results --reference_points benchmarks/papers.yaml $(ARGS)

clean:  ## Remove the environment, caches and build outputs (not what recipes wrote)
	rm -rf $(VENV) build dist site bertkd.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find bertkd recipes tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
