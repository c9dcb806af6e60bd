# Every target does the set-up it needs; a second call costs a second.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(abspath $(VENV))/bin
# What is installed stays; else gpu where there is an NVIDIA GPU, and cpu without. `make HARDWARE=cpu ...` decides otherwise.
GPUS   ?= $(shell sh requirements/gpus.sh)
FOUND  := $(if $(filter-out 0,$(GPUS)),gpu,cpu)
HARDWARE ?= $(if $(wildcard $(VENV)/.installed-gpu),gpu,$(if $(wildcard $(VENV)/.installed),cpu,$(FOUND)))
LOCKS_cpu := build.lock torch-cpu.lock cpu.lock
LOCKS_gpu := build.lock gpu.lock
PYTHONS_cpu := 3.11
PYTHONS_gpu := 3.11 3.12 3.13
# torch's CPU build is on PyTorch's own index; its hash for aarch64 is not in torch-cpu.lock.
MACHINE ?= $(shell uname -m)
MACHINES_cpu ?= x86_64
MACHINES_gpu := x86_64 aarch64
LOCKS  := $(addprefix requirements/,$(LOCKS_$(HARDWARE)) $(if $(filter aarch64,$(MACHINE)),aarch64.lock))
INSTALL := python -m pip install -q --disable-pip-version-check --no-deps
NO_LOCK_cpu = requirements/torch-cpu.lock has no hash of torch for this machine. Expected $(MACHINES_cpu). On aarch64 put \
  the hash of PyTorch's wheel there (pip download --no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu, \
  pip hash FILE) and run: make setup MACHINES_cpu=aarch64
NO_LOCK_gpu = vllm and torch have no wheel for this machine. Expected one of $(MACHINES_gpu). Use another machine
# What the packages take, and a GiB for what pip unpacks beside them.
MIB_cpu ?= 5100
MIB_gpu ?= 11200
STAMP_cpu := $(VENV)/.installed
STAMP_gpu := $(VENV)/.installed-gpu
STAMP  := $(STAMP_$(HARDWARE))
OTHER  := $(filter-out $(STAMP),$(STAMP_cpu) $(STAMP_gpu))
# One stage after another; on several GPUs, stages that do not need each other run side by side (SHARE=1: small models).
PARALLEL := $(filter-out 0 1,$(if $(filter gpu,$(HARDWARE)),$(GPUS)))
RUN    := $(if $(PARALLEL),scalequest parallel --gpus $(PARALLEL)$(if $(SHARE), --share),dvc repro)
export PATH := $(BIN):$(PATH)
.DEFAULT_GOAL := help

$(if $(LOCKS_$(HARDWARE)),,$(error HARDWARE=$(HARDWARE). Expected cpu or gpu))

.PHONY: help repro record test test-fast lint fix setup lock clean-work

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: setup  ## run the whole pipeline, about 20 minutes on two cores; PROFILE=gpu-135m runs that profile
	$(if $(PROFILE),scalequest profile $(PROFILE))
	scalequest check
	$(RUN)
	scalequest track
	scalequest cost --page
	@echo "done: open reports/index.html, or read reports/report.md"

record: setup  ## after a laptop run that is to be committed: keep its tables in Git, for a look without a run
	scalequest verify hashes    # what the cache lacks would be lost
	rm -rf reports/results/laptop/tables
	dvc push -r tables $$(awk '/^    [a-z]*:$$/ { part = $$1 } part == "outs:" && / path: data\// { print $$3 }' dvc.lock)

# A worker that crashes ends the run: in its place pytest-xdist starts another, which waits for ever at the end.
test: setup  ## run every test, two files at a time
	pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations 25

test-fast: setup  ## run the tests that start no engine and no trainer (about two minutes)
	pytest -n 2 --max-worker-restart 0 -m "not slow"

lint: setup  ## check style, format and types; change nothing
	ruff check .
	ruff format --check .
	mypy
	scalequest deps --check

fix: setup  ## fix and format what ruff can fix
	ruff check --fix .
	ruff format .

setup: $(STAMP)  ## install the environment into .venv: for the GPU where there is one, else for the CPU

# Every file that is installed has its SHA-256 in a lock. Each step takes what the locks before it installed: archives without
# a wheel are built with the locked setuptools, and nothing is fetched for it.
$(STAMP): $(LOCKS) pyproject.toml
	@test -n "$(filter $(MACHINE),$(MACHINES_$(HARDWARE)))" || { echo "$(MACHINE): $(NO_LOCK_$(HARDWARE))" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; ok = sys.argv[2:]; sys.exit(v not in ok and "Python %s is needed (the %s lock is made for it), %s found: make PYTHON=/path/to/python%s" % (" or ".join(ok), sys.argv[1], v, ok[0]))' $(HARDWARE) $(PYTHONS_$(HARDWARE))
	@test -x $(BIN)/python || { mkdir -p $(dir $(abspath $(VENV))); free=$$(df -Pm $(dir $(abspath $(VENV))) | awk 'NR == 2 { print $$4 }'); test "$$free" -ge $(MIB_$(HARDWARE)) || { echo "$(abspath $(VENV)): $$free MiB are free there. Expected $(MIB_$(HARDWARE)) MiB for the $(HARDWARE) packages. Free some, or take another disk: make VENV=/path/to/venv" >&2; exit 1; }; }
	@echo "installing for the $(HARDWARE) (HARDWARE=cpu or HARDWARE=gpu decides otherwise)"
	test ! -e $(OTHER) || $(PYTHON) -m venv --clear $(VENV)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements/build.lock
ifeq ($(HARDWARE),gpu)
	$(INSTALL) --no-build-isolation -r requirements/gpu.lock
else
	$(INSTALL) -r requirements/torch-cpu.lock || \
	  $(INSTALL) -r requirements/torch-cpu.lock --index-url https://download.pytorch.org/whl/cpu
	$(INSTALL) --no-build-isolation -r requirements/cpu.lock
endif
	$(if $(filter aarch64,$(MACHINE)),$(INSTALL) --no-build-isolation -r requirements/aarch64.lock)
	$(INSTALL) --no-build-isolation -e .
	touch $@

lock:  ## write the hashes of the locked versions, and resolve the GPU lock anew
	test -x .work/uv/bin/uv || { $(PYTHON) -m venv .work/uv && .work/uv/bin/pip install -q --only-binary :all: "uv==0.13.9"; }
	.work/uv/bin/python requirements/lock.py $(if $(UPGRADE),--upgrade)

clean-work: setup  ## delete what unfinished stages have kept; finished outputs stay
	scalequest journal --clean
