# Every target does the set-up it needs; a second call costs a second.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements/cpu.lock
TORCH  := 2.13.0+cpu
STAMP  := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := help

.PHONY: help repro test test-fast lint fix setup clean-work

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: setup  ## run the whole pipeline, about 30 minutes on two cores
	scalequest check
	dvc repro
	scalequest track
	@echo "done: open reports/index.html, or read reports/report.md"

test: setup  ## run every test, two files at a time
	pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25

test-fast: setup  ## run the tests that start no engine and no trainer (about two minutes)
	pytest -n 2 -m "not slow"

lint: setup  ## check style, format and types; change nothing
	ruff check .
	ruff format --check .
	mypy
	scalequest deps --check

fix: setup  ## fix and format what ruff can fix
	ruff check --fix .
	ruff format .

setup: $(STAMP)  ## install the environment into .venv

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

clean-work: setup  ## delete what unfinished stages have kept; finished outputs stay
	scalequest journal --clean
