# The whole interface for users and developers; CI runs the same. `make` alone tells what there is.
PYTHON ?= python3
VENV := .venv
OLDER := .venv-wandb-older
BIN := $(VENV)/bin
SWEEP ?= sweep.yaml
AGENTS ?= 2
PYTEST := $(BIN)/python -m pytest
# Three at a time on two cores, a file as a whole: many tests wait, and what a file shares is made once.
WORKERS ?= 3
# Benches are left where they lie: to load them costs each process seconds.
SUITE := $(PYTEST) --ignore tests/bench --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# Tests and trials run side by side: one thread each, or they fight over the cores.
export OMP_NUM_THREADS := 1

# The tree as it is installed, for tools that read folders: `prunefleet` with a link to each file.
LINKS := .links/prunefleet

.PHONY: help links demo check test test-all test-live bench-fidelity bench-objective bench-hub bench-fleet bench-overhead bench-trials bench-search bench-table bench-live bench-zoo bench-cuda format reference clean
help:                ## tell what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | column -t -s "$$(printf '\t')"

demo: $(VENV)/.demo  ## run a whole sweep on this machine, from data to answer
	$(BIN)/prunefleet up $(SWEEP) --agents $(AGENTS) --until-done

check: $(VENV)/.dev links  ## lint, types, import rules, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd $(dir $(LINKS)) && $(CURDIR)/$(BIN)/lint-imports --no-cache $(CURDIR)/setup.cfg
	$(PYTEST) -q tests/unit/test_docs.py

test: $(VENV)/.dev $(OLDER)/.ready   ## all tests but the long ones
	$(SUITE)

test-all: $(VENV)/.dev $(OLDER)/.ready  ## all tests, the long ones too
	$(SUITE) -m "not bench"

test-live: $(VENV)/.dev  ## our search beside wandb.ai or a W&B Server: WANDB_API_KEY and, for a server, WANDB_BASE_URL
	PRUNEFLEET_LIVE=1 $(PYTEST) tests/wire/test_scheduler_wire.py

bench-fidelity: $(VENV)/.dev  ## whether a latency can be trusted on this host; writes docs/results/fidelity.*
	$(PYTEST) -m bench -s tests/bench/test_fidelity_bench.py

bench-objective: $(VENV)/.dev  ## how formulas of the score fare in a search
	$(PYTEST) -m bench -s tests/bench/test_objective_search.py

bench-hub: $(VENV)/.dev  ## the hub under load, on a large folder, and beside MLflow; writes docs/results/hub.*
	$(PYTEST) -m bench -s tests/bench/test_hub_bench.py

bench-fleet: $(VENV)/.dev  ## trials per hour and heartbeats of 1 to 256 simulated agents, ten minutes; writes docs/results/fleet.*
	$(PYTEST) -m bench -s tests/bench/test_fleet_bench.py

bench-overhead: $(VENV)/.dev  ## what trials of the demo cost besides training, evaluation and measurement; writes docs/results/overhead.*
	$(PYTEST) -m bench -s tests/bench/test_overhead_bench.py

bench-trials: $(VENV)/.dev  ## trials pruned evenly and by sensitivity, for hours; can be resumed; writes docs/results/trials.*
	$(PYTEST) -m bench -s -p no:randomly tests/bench/test_trials_bench.py

bench-search: $(VENV)/.dev  ## the search beside others on synthetic problems, two hours; can be resumed; SEARCHBENCH: their folder
	$(PYTEST) -m bench -s -p no:randomly tests/bench/test_search_bench.py

bench-table: $(VENV)/.dev  ## hundreds of real trials, and searches judged on them, hours; can be resumed anywhere; writes docs/results/table*
	$(PYTEST) -m bench -s -p no:randomly tests/bench/test_table_bench.py

# 480 trials of 17 to 24 s of a core each.
bench-live: $(VENV)/.dev  ## searches beside each other on real trials, about three core-hours; can be resumed on its host; writes docs/results/live.*
	$(PYTEST) -m bench -s -p no:randomly tests/bench/test_live_bench.py

bench-zoo: $(VENV)/.dev  ## what of each network of the zoo can be pruned, and the seconds of the proof; writes docs/results/zoo.*
	$(PYTEST) -m bench -s -p no:randomly tests/bench/test_zoo_bench.py

bench-cuda: $(VENV)/.dev  ## contract suites and two trials on a GPU, eight minutes at most; writes docs/results/cuda.*
	cd tests && $(CURDIR)/$(BIN)/python -m studies.cuda.study

format: $(VENV)/.dev ## put the code in its usual form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/.dev  ## make docs/task-reference.md from the docstrings of prunefleet.Task
	$(BIN)/python docs/reference.py

clean:               ## remove what a demo left; the environment stays
	rm -rf .prunefleet demo.json wandb build dist *.egg-info

links:
	@rm -rf $(LINKS) && mkdir -p $(LINKS)
	@cp -rs $(addprefix $(CURDIR)/,$(wildcard door/*.py) agent objective infra) $(LINKS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "PYTHON: got $$($(PYTHON) --version); install Python 3.11 or newer, or run: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing; run: sudo apt-get install python3-venv"; exit 2; }

# A stamp per kind of environment: written last, so that an installation that was cut off is taken up again.
$(VENV)/.demo: setup.cfg | $(VENV)/bin/python
	@echo "Installing prunefleet and its packages into $(VENV) (some minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

$(VENV)/.dev: setup.cfg | $(VENV)/bin/python
	@echo "Installing prunefleet, its packages and the developers' tools into $(VENV) (some minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# An older wandb client, for the wire tests alone.
$(OLDER)/.ready: tests/wandb-older.txt | $(VENV)/bin/python
	@echo "Installing an older wandb client into $(OLDER) for the wire tests"
	$(BIN)/python -m venv $(OLDER)
	$(OLDER)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/wandb-older.txt
	@touch $@
