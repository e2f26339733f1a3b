# Every command of the project. `make` lists them.
PYTHON ?= python3
PIP = bin/pip install --quiet --disable-pip-version-check
# Two workers with a pool of threads each would wait for one another's: the tests took three times as long.
ALONE = OMP_NUM_THREADS=1
HASHED = --require-hashes --no-deps -r

.DEFAULT_GOAL := help
.PHONY: help demo install test test-daemon test-training battery test-python lint format bad-input disk-faults bench bench-state bench-training bench-accuracy calibration bundles lock references image clean crash-matrix kill-loop kill-group broker-away rebalance-storm

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

# --- environments: made on demand from locked versions and hashes; a stamp file says that one is complete ---------

.venv/.complete: locks/run.txt pyproject.toml  ## the daemon as users install it
	@echo "installing the daemon into .venv (once, less than a minute)"
	@$(PYTHON) -m venv .venv
	@.venv/$(PIP) $(HASHED) locks/run.txt
	@.venv/$(PIP) --no-deps -e .
	@touch $@

.venv-daemon/.complete: locks/test.txt pyproject.toml  ## the same and the tools to test it, without torch
	@echo "installing the daemon and its test tools into .venv-daemon"
	@$(PYTHON) -m venv .venv-daemon
	@.venv-daemon/$(PIP) $(HASHED) locks/test.txt
	@.venv-daemon/$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv-training/.complete: locks/train.txt locks/evaluation.txt pyproject.toml  ## the same with torch
	@echo "installing training into .venv-training (torch: about a minute and 5 GB)"
	@$(PYTHON) -m venv .venv-training
	@.venv-training/$(PIP) $(HASHED) locks/train.txt
	@.venv-training/$(PIP) $(HASHED) locks/evaluation.txt
	@.venv-training/$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

install: .venv/.complete  ## Install the daemon into .venv

# --- what a newcomer does ------------------------------------------------------------------------------------------

demo: .venv/.complete  ## Watch it find faults in a synthetic plant
	@.venv/bin/tidewarden demo

test: test-daemon test-training  ## Run all tests: the daemon without torch, then training

test-daemon: .venv-daemon/.complete  ## Run the daemon's tests in an environment without torch
	.venv-daemon/bin/python -m pytest -n 2 --dist loadfile --ignore=tests/training --ignore=tests/parity --ignore=tests/battery --ignore=tests/evaluate

test-training: .venv-training/.complete  ## Run the tests that need torch
	$(ALONE) TIDEWARDEN_REQUIRE_TSB_AD=1 .venv-training/bin/python -m pytest -n 2 --dist loadfile tests/training tests/parity tests/battery tests/evaluate

battery: .venv-training/.complete  ## Put every network through its tests, and train and score a whole detector of each (about 7 minutes)
	$(ALONE) LONG=1 .venv-training/bin/python -m pytest -q -n 2 --dist worksteal tests/battery

test-python:  ## Run the quick tests on another Python: make test-python PYTHON=python3.13
	@$(PYTHON) -m venv .venv-smoke
	@.venv-smoke/$(PIP) $(HASHED) locks/test.txt
	@.venv-smoke/$(PIP) --no-deps --no-build-isolation -e .
	.venv-smoke/bin/python -m pytest -n 2 --dist loadfile tests/unit tests/contracts tests/scenarios/test_crashes.py -m "not system" -q

lint: .venv-daemon/.complete  ## Check style, types and the import contracts
	.venv-daemon/bin/ruff check .
	.venv-daemon/bin/ruff format --check .
	.venv-daemon/bin/mypy
	.venv-daemon/bin/lint-imports

format: .venv-daemon/.complete  ## Put the code into its form
	.venv-daemon/bin/ruff check --fix .
	.venv-daemon/bin/ruff format .

# --- what may go wrong, at length ---------------------------------------------------------------------------------

disk-faults: .venv-daemon/.complete  ## A disk that is full, slow, read-only or wrong anywhere, at every 64 bytes (about 10 minutes)
	DISK_FAULTS=long .venv-daemon/bin/python -m pytest -q --timeout 3600 tests/scenarios/test_disk_faults.py

bad-input: .venv-daemon/.complete  ## A million broken and good records of each kind through a real broker (about 15 minutes)
	RECORDS=1000000 .venv-daemon/bin/python -m pytest -q -s tests/system/test_bad_input.py

crash-matrix: .venv-daemon/.complete  ## Crash at every point of a checkpoint's life, over every store (about 8 minutes; SEED=n repeats)
	LONG=1 .venv-daemon/bin/python -m pytest -q -s tests/system/test_crash_matrix.py

kill-loop: .venv-daemon/.complete  ## 500 SIGKILLs against a real broker (about 17 minutes; KILLS=n, STORE=kafka, SEED=n)
	LONG=1 .venv-daemon/bin/python -m pytest -q -s tests/system/test_kill.py -k test_kills_change_nothing

kill-group: .venv-daemon/.complete  ## 60 SIGKILLs of two replicas of a group in turn (about 7 minutes; KILLS=n, STORE=dir, SEED=n)
	LONG=1 .venv-daemon/bin/python -m pytest -q -s tests/system/test_kill.py -k test_kills_in_a_group

broker-away: .venv-daemon/.complete  ## A broker frozen and stopped for a minute under a daemon (about 10 minutes; SEED=n)
	LONG=1 .venv-daemon/bin/python -m pytest -q -s tests/system/test_broker_away.py -k goes_away

rebalance-storm: .venv-daemon/.complete  ## Three replicas that join, leave, die and freeze (12 minutes; MINUTES=n, STORE=kafka, SEED=n)
	LONG=1 .venv-daemon/bin/python -m pytest -q -s tests/system/test_rebalance.py

# --- measuring and releasing ---------------------------------------------------------------------------------------

bench: .venv-daemon/.complete  ## Measure the daemon against a bare drain of a real broker (about 10 minutes)
	.venv-daemon/bin/python -m tests.benchmarks.daemon
	.venv-daemon/bin/python -m tests.benchmarks.stages --bundle tests/golden/bench.onnx
	.venv-daemon/bin/python -m tests.benchmarks.model

bench-state: .venv-daemon/.complete  ## Restore a million streams from a folder and a topic; what checkpoints cost (about 5 minutes)
	.venv-daemon/bin/python -m tests.benchmarks.state

bench-training: .venv-training/.complete  ## Measure how many samples a second a core trains on, against torch's own GRU (half a minute)
	.venv-training/bin/python -m tests.benchmarks.training

bench-accuracy: .venv-training/.complete  ## Measure on every public suite that TIDEWARDEN_DATA holds (BUNDLE=b, about half an hour)
	.venv-training/bin/tidewarden evaluate --suite all --data $(or $(TIDEWARDEN_DATA),../shared/data) --bundle $(or $(BUNDLE),default)

calibration: .venv-training/.complete  ## Hold scores and budgets to what they promise, on streams in which nothing is wrong (BUNDLE=b, about an hour)
	.venv-training/bin/tidewarden evaluate --suite calibration --bundle $(or $(BUNDLE),default)

bundles: .venv-training/.complete  ## Train the bundles in the box again: the same files on the same kind of machine (an hour)
	.venv-training/bin/tidewarden train -c configs/train/default.yaml
	.venv-training/bin/tidewarden train -c configs/train/light.yaml

references: .venv-daemon/.complete  ## Write the references in docs/ from the code
	.venv-daemon/bin/python -m detector.reference

image:  ## Build the container image
	docker build -t tidewarden .

LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet
lock:  ## Lock newer versions (needs uv)
	$(LOCK) --upgrade --extra cpu --extra objects -o locks/run.txt
	$(LOCK) --upgrade --extra cpu --extra objects --extra files --extra dev -c locks/run.txt -o locks/test.txt
	$(LOCK) --upgrade --extra cpu --extra objects --extra files --extra dev --extra training -c locks/test.txt -o locks/train.txt
	$(subst pyproject.toml,locks/evaluation.in,$(LOCK)) --upgrade --no-deps -c locks/train.txt -o locks/evaluation.txt

clean:  ## Remove environments and caches
	rm -rf .venv .venv-daemon .venv-training .venv-smoke .cache dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
