# One command for each thing a person does here; bare `make` lists them.
#
#   make run                     paper trading on recorded data until Ctrl-C (no keys, no network)
#   make run SECONDS=60          the same for 60 seconds, then a summary
#   make run TAPE=chainlink-day SPEED=4
#   make run STRATEGY=tiered         pair (the default), tiered, avellaneda, reversion, programme
#
# Only PYTHON (3.11 or newer) has to exist; everything else is installed into .venv.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
MMBOT  := $(VENV)/bin/mmbot
STAMP  := $(VENV)/.installed
CONFIG ?= paper
HOURS  ?= 1000
SEEDS  ?= 20

# SECONDS is also a variable of bash: only one given on the command line counts.
RUN_FLAGS := $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS)) \
             $(if $(SPEED),--speed $(SPEED)) $(if $(TAPE),--tape $(TAPE)) $(if $(STRATEGY),--strategy $(STRATEGY))

.DEFAULT_GOAL := help
.PHONY: help setup run test bench chaos strangers faults stress warm clean

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv and install the bot with everything its tests need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "mmbot needs Python 3.11 or newer, $(PYTHON) is %d.%d: make PYTHON=python3.11 ..." % v[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "cannot create $(VENV): on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[test,research]'
	@touch $@

run: warm  ## trade on paper with a live screen; SECONDS=60 SPEED=1 TAPE=btc15m STRATEGY=pair CONFIG=paper
	$(MMBOT) run --config $(CONFIG) $(RUN_FLAGS)

test: warm  ## every test: protocol models, units, exchange, the running group with kill -9
	$(PY) -m pytest tests/unit tests/sim tests/dst --numprocesses 2 --dist loadfile
	$(PY) -m pytest tests/protocol tests/system

bench: warm  ## the tables of docs: shared memory, core step, signing, tick to order
	$(PY) bench/ipc.py
	$(PY) bench/core_step.py
	$(PY) bench/signing.py
	$(PY) bench/tick_to_order.py

chaos: warm strangers  ## HOURS=1000 of simulated faults and deaths, 200 rounds of kill -9 and SIGSTOP on real processes, the strangers
	$(PY) -m tests.dst.campaign --mutants
	$(PY) -m tests.dst.campaign --hours $(HOURS)
	MMBOT_KILL_ROUNDS=200 $(PY) -m pytest tests/system -k kill -s --timeout 7200

strangers: setup  ## other people's clients against the exchange: both Python ones, and the JavaScript one if npm is there
	@if command -v npm >/dev/null; then cd tests/js && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; else echo "npm is not installed: the JavaScript client is left out" >&2; fi
	$(PY) -m pytest tests/sim -m strangers -rs

faults: warm  ## the fault table: what is seen, time to safe, loss, invariants; SEEDS=20
	$(PY) bench/faults.py --seeds $(SEEDS)

stress: warm  ## long torture: 1e9 reads and 500 kills on shared memory, 10,000 orders against the official clients, 20,000 deaths of an executor
	MMBOT_TORTURE_READS=1e9 MMBOT_TORTURE_KILLS=500 MMBOT_PARITY_ORDERS=10000 MMBOT_KILL_RUNS=10000 \
		$(PY) -m pytest tests/protocol tests/unit/test_wire_parity.py tests/unit/test_manager_kill.py --timeout 7200

warm: setup  ## compile the kernels once, so that a start takes a second
	$(MMBOT) warm

clean:  ## remove what was built or left behind (not .venv, not running groups)
	@if [ -x $(MMBOT) ]; then $(MMBOT) shm wipe --config $(CONFIG); fi
	rm -rf build dist *.egg-info .pytest_cache .hypothesis var/$(notdir $(basename $(CONFIG)))
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
