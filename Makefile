# Everything a developer runs. Needs Python 3.11 or newer, make and pip; the rest is installed into .venv.
#
#   make test                          with the `python3` on the PATH
#   make test PYTHON=python3.12        with another one (on an existing .venv: `make clean` first)
#   make test ARGS="-k median -x"      with more arguments for pytest
#   make test JOBS=0                   in one process, as a debugger wants it (2: most tests wait, so they share)

PYTHON ?= python3
ARGS ?=
JOBS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed
LOCK = build/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help demo test lint types format bench-smoke lock clean

help: ## Show what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(INSTALLED) ## Tune a small network on this machine, in under three minutes
	$(BIN)/python examples/digits.py $(ARGS)

test: $(INSTALLED) ## Run the tests
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## Check types
	$(BIN)/mypy

format: $(INSTALLED) ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-smoke: $(INSTALLED) ## Run each benchmark for a moment: do they still work?
	$(BIN)/python benchmarks/latency.py --reports 200 --rounds 1 --appendfsync everysec
	$(BIN)/python benchmarks/digits_vs_centre.py --seeds 1 --trials 4 --training-seeds 1
	$(BIN)/python -m benchmarks.serving --reports 300 --rounds 1 --trials 200 --asks 5 --appendfsync everysec
	rm -rf build/search-smoke
	$(BIN)/python -m benchmarks.search.run --peers hpopt,random --problems branin,trees8 --seeds 1 --trials 20 --results build/search-smoke
	$(BIN)/python -m benchmarks.search.report --peers hpopt,random --problems branin,trees8 --trials 20 --results build/search-smoke
	rm -rf build/multifidelity-smoke
	$(BIN)/python -m benchmarks.multifidelity.run --peers hpopt-asha,random --tasks crossing-1,lcbench-126025 --seeds 1 --workers 4 --horizon 1 --results build/multifidelity-smoke
	$(BIN)/python -m benchmarks.multifidelity.report --peers hpopt-asha,random --tasks crossing-1,lcbench-126025 --workers 4 --horizon 1 --subject hpopt-asha --results build/multifidelity-smoke
	$(BIN)/python -m benchmarks.decisions --rung 100,1000 --trials 100 --steps 100
	$(BIN)/python -m benchmarks.subset --tasks digits --configs 4 --draws 1 --epochs 2 --rounds 10

lock: $(INSTALLED) build/uv/bin/uv ## Renew the versions and hashes of what the images install
	$(LOCK) --constraint constraints.txt --extra coordinator --output-file requirements/coordinator.lock pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(LOCK) --output-file requirements/build.lock -

clean: ## Remove .venv, caches and builds
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

build/uv/bin/uv: constraints.txt
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet uv --constraint constraints.txt
	@touch $@

# Older than what it is made from: made again, in place.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "hpopt needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into .venv: a minute or two, and only when pyproject.toml or constraints.txt has changed."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@
