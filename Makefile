# Two commands, for a machine with nothing but Python 3.11 or newer, pip and make:
#
#   make demo    everything on synthetic radiographs: no data, no torch, no GPU
#   make test    ruff, mypy and pytest, with all extras (torch among them)
#
# Both set themselves up in .venv, from locks with hashes, and again only after a lock or pyproject.toml has changed.
# Another Python:  make demo PYTHON=python3.13

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Two processes: the tests of a file run in one, and all tests of the Milvus server (see tests/conftest.py). A thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadgroup
LOCK := $(BIN)/uv --no-config pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-annotate --no-header --no-emit-index-url --group build

.DELETE_ON_ERROR:
.PHONY: bench bench-compare check clean demo help lock test test-all wheel

help:
	@sed -n 's/^#   make/make/p' Makefile

demo: $(VENV)/.cpu
	$(BIN)/mura-search demo

test: check
	$(PYTEST) -m "not slow"

#   make check   ruff and mypy alone
check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

#   make test-all    the slow tests, and what repeats something at random as often as it can: 200 kills, 20,000 mutants
#   make test-all SHARE=0.1    a tenth as often
SHARE ?= 1
test-all: $(VENV)/.dev
	MURA_SEARCH_REPEAT=$(SHARE) $(PYTEST) -m "repeated or slow"

#   make wheel   build the wheel, install it in an environment of its own and run the demo there
wheel: $(VENV)/.dev
	rm -rf .out/wheel && mkdir -p .out/wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir .out/wheel
	$(PYTHON) -m venv .out/wheel/venv
	.out/wheel/venv/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/cpu.lock
	.out/wheel/venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps .out/wheel/*.whl
	.out/wheel/venv/bin/python -m pip --disable-pip-version-check check
	cd .out/wheel && venv/bin/mura-search demo

#   make bench   the main benchmarks, some minutes; their figures go to .out/bench.json
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run_all.py .out/bench.json

#   make bench-compare   which ratios of `make bench` became worse than those of benchmarks/baseline.json?
bench-compare: $(VENV)/.dev
	$(BIN)/python benchmarks/compare.py benchmarks/baseline.json .out/bench.json

#   make lock    write both locks anew, from pyproject.toml and the newest releases
lock: $(VENV)/.dev
	$(LOCK) --extra cpu --extra dicom --extra analysis --extra milvus --extra train --extra web --extra dev --output-file requirements/dev.lock pyproject.toml
	$(LOCK) --extra cpu --constraint requirements/dev.lock --output-file requirements/cpu.lock pyproject.toml

#   make clean   remove .venv and everything else that was made here
clean:
	rm -rf $(VENV) .out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: requirements/cpu.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/cpu.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The development lock pins everything that the other does, at the same versions, so it serves both.
$(VENV)/.dev: requirements/dev.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/dev.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.cpu $@
