# Every target does the set-up it needs; a second call costs a second.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements/cpu.lock
TORCH  := 2.13.0+cpu
STAMP  := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test test-fast lint fix setup clean-work

repro: setup  ## the whole DAG, then where to look
	python -m scalequest.run.check params.yaml
	dvc repro
	python -m scalequest.runtime.tracking
	@echo "done: open reports/index.html, or read reports/report.md"

test: setup  ## every test, two files at a time
	pytest -n 2 --dist loadfile

test-fast: setup  ## without the tests that start an engine or a trainer (about two minutes)
	pytest -n 2 -m "not slow"

lint: setup  ## style and types, nothing changed
	ruff check .
	ruff format --check .
	mypy

fix: setup  ## what ruff can mend by itself
	ruff check --fix .
	ruff format .

setup: $(STAMP)  ## the environment, in .venv

# torch's CPU build is not on PyPI: a local wheel folder (pip's find-links) is tried first, then PyTorch's CPU index.
$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v != (3, 11) and "Python 3.11 is needed (the lock is made for it), %d.%d found: make PYTHON=/path/to/python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	python -m pip install -q --disable-pip-version-check "pip==26.3"
	python -m pip install -q --no-deps "torch==$(TORCH)" || \
	  python -m pip install -q --no-deps "torch==$(TORCH)" --index-url https://download.pytorch.org/whl/cpu
	python -m pip install -q --no-deps -r $(LOCK)
	python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

clean-work: setup  ## forget journals of half-done stages (finished outputs stay)
	scalequest journal --clean
