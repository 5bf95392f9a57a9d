# Everything a user types. `make help` lists it. PYTHON=... uses an existing environment instead of .venv.

VENV := .venv
ifdef PYTHON
RUN := $(PYTHON)
READY :=
else
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
endif
BENCH := $(RUN) -m bench
export OMP_WAIT_POLICY ?= PASSIVE

BUDGET ?=
EXPERIMENT ?=
RESULTS ?=
PARADIGMS ?=
DATA ?=
DOWNLOAD ?=
LAUNCHER ?= local
SLURM ?=
DEVICES ?= 1
NODES ?= 1
MICRO_BATCH ?=
UP_TO ?=
MAX_HOURS ?= 1
# empty means unset, so that a variable given as BUDGET= on the command line is reported and not ignored
given = $(if $(filter-out file default undefined,$(origin $(1))),$(2)='$($(1))',$(if $($(1)),$(2)='$($(1))'))
PLAN_OPTIONS = $(if $(EXPERIMENT),--experiment='$(EXPERIMENT)') $(call given,BUDGET,--budget) $(if $(RESULTS),--results='$(RESULTS)') \
	$(if $(PARADIGMS),--paradigms='$(PARADIGMS)') $(if $(DATA),--data='$(DATA)') $(if $(DOWNLOAD),--download) \
	--devices='$(DEVICES)' --nodes='$(NODES)' $(call given,MICRO_BATCH,--micro-batch)

.DEFAULT_GOAL := help
.PHONY: help setup sweep plan report test slow test-all coverage chaos lint bench gpu prepare clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## create .venv from requirements.lock (done by the others when missing)

$(VENV)/.ready: requirements.lock
	@echo "setting up $(VENV) from requirements.lock (about 6 GB, a few minutes)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "paradigm-bench needs Python 3.11 or newer; found $$(python3 --version)" >&2; exit 2; }
	@python3 -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$(grep -E '^(torch|torchvision)==' requirements.lock) -r requirements.lock setuptools wheel
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

sweep: $(READY)  ## train, evaluate, draw: BUDGET=1e20 EXPERIMENT= DATA= DOWNLOAD=1 RESULTS= PARADIGMS= UP_TO= MAX_HOURS=1; repeat to resume
#           several GPUs: DEVICES= NODES= MICRO_BATCH=; a cluster: LAUNCHER=slurm SLURM='time=240 partition=gpu'
	@$(BENCH) sweep $(PLAN_OPTIONS) --launcher='$(LAUNCHER)' $(call given,SLURM,--slurm) $(call given,UP_TO,--up-to) --max-hours='$(MAX_HOURS)'

plan: $(READY)  ## count every run and estimate its hours; train nothing
	@$(BENCH) plan $(PLAN_OPTIONS)

report: $(READY)  ## draw figures and report.html again from RESULTS=results/NAME
	@$(BENCH) report '$(RESULTS)'

PYTEST := -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(READY)  ## lint, types and the tests that every change needs
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .
	@$(RUN) -m mypy & types=$$!; $(RUN) $(PYTEST) -m 'not slow'; tested=$$?; wait $$types && exit $$tested

slow: $(READY)  ## what `make test` leaves out: SLURM, every kind of data, wheels, long simulations, more hostile input
	@HOSTILE_EXAMPLES=3 $(RUN) $(PYTEST) -m 'slow or hostile'

test-all:  ## both
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory slow

coverage: $(READY)  ## share of lines that all tests run, sweeps in their own processes included
	@$(RUN) $(PYTEST) --cov --cov-report=term:skip-covered
	@rm -f .coverage .coverage.*

chaos: $(READY)  ## kill, interrupt and damage a small sweep for MINUTES=30, then compare it with a calm one
	@PYTHONPATH=tests:. $(RUN) tests/chaos.py $(or $(MINUTES),30) $(or $(SEED),0)

lint: $(READY)  ## ruff and mypy
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

bench: $(READY)  ## speed of training, sampling, set-up and growth here: one table in results/bench/ (MAR_REFERENCE= a clone of LTH14/mar)
	@KINETO_LOG_LEVEL=99 $(RUN) -m bench.speed $(PARTS)

PACKAGES := $(CURDIR)/build/packages
gpu: export PYTHONPATH := $(PACKAGES):$(PYTHONPATH)
gpu: $(READY)  ## on a GPU: its tests, a sweep, rows of speed in results/bench/: MINUTES=25 RESULTS= WHEELS=folder; repeat to resume; DRY=1 anywhere
	@$(if $(WHEELS),$(RUN) -m bench.speed.wheels '$(WHEELS)' '$(PACKAGES)')
	@$(RUN) -m bench.speed.gpu $(if $(DRY),--dry) $(call given,MINUTES,--minutes) $(if $(RESULTS),--results='$(RESULTS)')

prepare: $(READY)  ## train the default world's autoencoders and CLIP again (about 50 minutes on one core)
	@$(BENCH) prepare

clean:  ## remove caches and .venv; results stay
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
