# Every target sets up what it needs: a virtual environment with the pinned versions, made once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PYTHONDONTWRITEBYTECODE :=  # the processes that tests start would compile every module again

.PHONY: demo test check docs bench format clean

demo: $(READY)  ## train, certify and compare three networks on real digits
	$(BIN)/ctbench demo

test: $(READY)  ## the test suite
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: $(READY) docs  ## everything a change must pass; the tests last, so that their result ends the output
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

docs: $(READY)  ## the documentation site, in site/index.html; a warning is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs site

bench: $(READY)  ## speed of the hot paths, as ratios within one run
	$(BIN)/python -m benchmarks

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ctbench needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
