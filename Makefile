# Each target makes its own environment if there is none; nothing but Python 3.11+, git and make is needed.
#   make demo        the whole loop, small, with a report: runs/demo/report.html
#   make test        the tests
#   make test-slow   the tests that take longer
#   make lint        ruff and mypy
#   make bench       side-by-side measurements
# PIP_FLAGS is passed to pip, e.g. to choose another index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two test processes of one thread each use two cores better than two of two.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test test-slow lint view bench clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/sciml demo --overwrite

test: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP) view
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/typecheck.py

# Type checkers cannot follow the mapping of four folders onto one package; this tree they can.
view:
	rm -rf build/view
	mkdir -p build/view/sciml
	for entry in sciml/*; do ln -s "$(CURDIR)/$$entry" build/view/sciml/; done
	for folder in solvers datasets envs; do ln -s "$(CURDIR)/$$folder" build/view/sciml/$$folder; done

bench: $(STAMP)
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
