# What can be done with a checkout. Needs python3 (3.11 to 3.13) with venv, and make; everything else it fetches itself.
# PYTHON=/path/to/python chooses the Python of the environment; ARGS= is passed on where a target says so.

.DEFAULT_GOAL := help
.PHONY: help setup install lock run test test-processes test-decisions test-fast test-fast-part \
    test-fast-rest lint format types bench bench-live bench-memory \
    bench-peers bench-storage kills kills-live recovery autobahn sim sim-coverage planted paper-check proofs soak \
    soak-day clean
.DELETE_ON_ERROR:

VENV  := .venv
PEERS := .venv-peers
PY    := $(VENV)/bin/python
# Written when an environment is complete, so that set-up is done once and again when what it installs has changed.
READY       := $(VENV)/.ready
INSTALLED   := $(VENV)/.installed
PEERS_READY := $(PEERS)/.ready
MAKE_VENV   := bin/make-venv bin/make-venv.py
PROGRAMS    := tradebot.cli.main,mockws_server.cli,tradebot.ops.soak.command,prometheus_client

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## set up .venv for development (the other targets do this when needed)

$(READY): setup.py pyproject.toml $(MAKE_VENV)
	@PYTHON='$(PYTHON)' bin/make-venv --check=$(PROGRAMS) $(VENV) --editable '.[dev]'
	@touch $@

# What runs a service: the pinned versions, no tools. It changes .venv in one step, and only when all of it is there.
install: $(INSTALLED)  ## set up .venv for a service: the packages pinned in etc/requirements, without test tools

$(INSTALLED): setup.py pyproject.toml $(wildcard etc/requirements/*.txt) $(MAKE_VENV)
	@PYTHON='$(PYTHON)' bin/make-venv --check=$(PROGRAMS) --locked $(VENV)
	@touch $@

lock:  ## update the pinned versions of `make install`, for each Python 3.11 to 3.13 installed here
	@bin/lock-requirements

# The newest NautilusTrader is the fastest and needs Python 3.12: look among pyenv's versions too.
PEER_PYTHONS = $(wildcard $(addprefix $(shell pyenv root 2>/dev/null),/versions/3.13.*/bin/python3.13 \
    /versions/3.12.*/bin/python3.12)) python3.13 python3.12 python3.11 python3

$(PEERS_READY): bench/requirements-peers.txt $(MAKE_VENV)
	@PYTHON='$(or $(PYTHON),$(PEER_PYTHONS))' bin/make-venv $(PEERS) --requirement bench/requirements-peers.txt
	@touch $@

run: $(READY)  ## replay a recorded market session into a new database, var/session.db
	@mkdir -p var
	@rm -f var/session.db*
	@TRADEBOT_LOG_LEVEL=$${TRADEBOT_LOG_LEVEL:-warning} \
	  bin/tradebot --config=etc/tradebot/session.toml --db=var/session.db $(ARGS)

# The lab's processes compute.
LAB := tests/e2e/test_recovery.py

# Tests with real processes mostly wait, the others compute: side by side they take little longer than one of them.
test: $(READY)  ## run all tests except those of `make proofs`; ARGS='-k replay' selects some
ifeq ($(ARGS),)
	@$(MAKE) --no-print-directory -j2 --output-sync=line test-processes test-decisions
else
	@$(PY) -m pytest -m 'not proof' $(ARGS)
endif

test-processes: $(READY)
	@$(PY) -m pytest -m 'not proof' -o cache_dir=.pytest_cache/processes tests/e2e tests/systemd --ignore=$(LAB)

test-decisions: $(READY)
	@$(PY) -m pytest -m 'not proof' tests/contract tests/sim tests/unit $(LAB)

# While working: no real process of the engine, no hunt of the simulator, nothing marked slow. Two parts of equal work.
FAST_PART := tests/unit/cli tests/unit/ops tests/unit/store tests/unit/threads

test-fast: $(READY)  ## run the unit and contract tests, about a minute on two cores
	@$(MAKE) --no-print-directory -j2 --output-sync=line test-fast-part test-fast-rest

test-fast-part: $(READY)
	@$(PY) -m pytest -q -m 'not slow and not proof' -o cache_dir=.pytest_cache/fast $(FAST_PART)

test-fast-rest: $(READY)
	@$(PY) -m pytest -q -m 'not slow and not proof' tests/unit tests/contract $(addprefix --ignore=,$(FAST_PART))

proofs: $(READY)  ## test `tradebot prove`: without systemd and, as root, under a real systemd in namespaces; minutes
	@$(PY) -m pytest -m proof $(ARGS)

lint: $(READY)  ## run ruff: style and likely errors
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --diff .

format: $(READY)  ## format all code with ruff
	@$(PY) -m ruff format .

types: $(READY)  ## run mypy --strict
	@$(PY) -m mypy

bench: $(READY)  ## compare a replay with plain sqlite3, ARGS='--ticks=N --rounds=N'; then bench-live, LIVE_ARGS='--seconds=N'
	@$(PY) -m bench.replay $(ARGS)
	@echo
	@$(PY) -m bench.live $(LIVE_ARGS)

bench-live: $(READY)  ## measure a live feed: ticks/s from bin/mockws, latency; ARGS='--seconds=N --frames=N --rounds=N'
	@$(PY) -m bench.live $(ARGS)

bench-memory: $(READY)  ## measure peak memory at 1 000 000 and at 4 000 000 ticks
	@$(PY) -m bench.memory $(ARGS)

bench-peers: $(READY) $(PEERS_READY)  ## compare the speed with NautilusTrader and backtrader (in a separate environment, .venv-peers)
	@$(PY) -m bench.peers --peer-python=$(PEERS)/bin/python $(ARGS)

bench-storage: $(READY)  ## measure concurrent readers, the WAL with a long reader, prune and backup beside an engine
	@$(PY) -m bench.storage $(ARGS)

soak: $(READY)  ## run a supervised engine for minutes on a feed with changing faults, and print figures; ARGS='--minutes=N'
	@$(PY) -m bench.soak $(ARGS)

soak-day: $(READY)  ## simulate 24 hours of engine and supervisor with a fault every few minutes; ARGS='--hours=N --seed=N'
	@$(PY) -m sim.runner.soak_day $(ARGS)

kills: $(READY)  ## send 100 random SIGKILLs during replays in SHADOW and in PAPER; resume and compare each; ARGS='--kills=N --seed=N --mode=paper'
	@$(PY) -m tests.e2e.kills $(ARGS)

kills-live: $(READY)  ## send 1 000 random SIGKILLs to an engine with a live feed; restart it each time; ARGS='--kills=N --seed=N'
	@$(PY) -m tests.e2e.kills_live $(ARGS)

recovery: $(READY)  ## test kills, power losses and errors at each file operation (needs a C compiler); ARGS='--few' or '--help'
	@$(PY) -m tests.recovery.run $(ARGS)

autobahn: $(READY)  ## test the WebSocket client with the Autobahn fuzzing server (needs root, Python 2.7 and a package index)
	@$(PY) -m tests.autobahn.run $(ARGS)

sim: $(READY)  ## run the simulator: the engine's threads under seeded schedules; ARGS='--help' lists the options
	@$(PY) -m sim $(ARGS)

planted: $(READY)  ## plant known bugs, one at a time, and search each with the simulator; ARGS='name ...' selects some
	@$(PY) -m tests.sim.planted $(ARGS)

# The time limit of a test is for single ones, not for thousands of drawn markets.
paper-check: $(READY)  ## compare PAPER with a second calculation, with many drawn markets; recorded sessions from ../shared
	@HYPOTHESIS_PROFILE=deep $(PY) -m pytest -q -s --timeout=1800 tests/unit/execution/test_against_reference.py $(ARGS)

# The trace function of coverage.py takes the place of the simulator's, so no thread is interrupted between statements.
sim-coverage: $(READY)  ## measure which lines and branches simulation alone reaches; ARGS='--seeds=N' (default 3)
	@mkdir -p var
	@$(PY) -m coverage run -m sim --jobs=1 $(or $(ARGS),--seeds=3) \
	  --scenario=$$($(PY) -c 'from sim.scenarios import SCENARIOS; print(",".join(SCENARIOS))') >var/sim-coverage.txt
	@$(PY) -m coverage report

clean:  ## remove environments, databases and caches created here
	rm -rf $(VENV) $(VENV)-3.* $(PEERS) $(PEERS)-3.* $(VENV)-lock-3.* var build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
