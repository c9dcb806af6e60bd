# Every target does the set-up it needs; a second call costs a second.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
LOCKS  := $(addprefix requirements/,build.lock torch-cpu.lock cpu.lock)
INSTALL := python -m pip install -q --disable-pip-version-check --no-deps
STAMP  := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := help

.PHONY: help repro test test-fast lint fix setup lock clean-work

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

# Every file that is installed has its SHA-256 in a lock. Each step takes what the locks before it installed: archives without
# a wheel are built with the locked setuptools, and nothing is fetched for it.
$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v != (3, 11) and "Python 3.11 is needed (the lock is made for it), %d.%d found: make PYTHON=/path/to/python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements/build.lock
	$(INSTALL) -r requirements/torch-cpu.lock || \
	  $(INSTALL) -r requirements/torch-cpu.lock --index-url https://download.pytorch.org/whl/cpu
	$(INSTALL) --no-build-isolation -r requirements/cpu.lock
	$(INSTALL) --no-build-isolation -e .
	touch $@

lock:  ## write the hashes of the locked versions, and resolve the GPU lock anew
	test -x .work/uv/bin/uv || { $(PYTHON) -m venv .work/uv && .work/uv/bin/pip install -q --only-binary :all: "uv==0.13.9"; }
	.work/uv/bin/python requirements/lock.py

clean-work: setup  ## delete what unfinished stages have kept; finished outputs stay
	scalequest journal --clean
