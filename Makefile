# The five commands of perfstream. `make help` lists them.
PY := .venv/bin/python
PYTEST := .venv/bin/pytest

.DEFAULT_GOAL := help
.PHONY: help up demo test bench lint format unit kernel integration e2e soak fuzz install install-test lock

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:
	@deploy/bootstrap.sh run

install-test:
	@deploy/bootstrap.sh test

up: install  ## install what is missing, then run the whole stack here until Ctrl-C, with live status
	@$(PY) -m deploy.cli up $(ARGS)

demo: install  ## the same for about a minute around a known workload; prints what it found, exits
	@$(PY) -m deploy.cli demo $(ARGS)

# The longest first; what loads programs beside what only computes.
TOGETHER := tests/ledger tests/integration/test_worker.py tests/integration tests/e2e tests/kernel tests/fuzz tests/unit

# Two at a time what only asks whether an answer is right; alone what measures the whole machine, or loads it on purpose.
# A third on two CPUs would save little: most of it computes.
WORKERS := 2

# Bytecode is kept, or pytest would rewrite its tests for each run.
test: export PYTHONDONTWRITEBYTECODE :=
test: install-test  ## everything CI runs
	@$(MAKE) --no-print-directory lint
	$(PYTEST) -n $(WORKERS) --dist loadscope --no-loadscope-reorder -m "not alone" $(TOGETHER) $(ARGS)
	$(PYTEST) -m alone tests $(ARGS)

bench: install  ## the measured figures, one JSON line each
	@$(PY) -m tests.bench.run $(ARGS)

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

unit: install-test  ## the tests that need neither root nor network, in seconds
	$(PYTEST) tests/unit

kernel: install-test  ## the tests that load eBPF programs (root)
	$(PYTEST) tests/kernel

integration: install-test  ## the tests with the real broker and store
	$(PYTEST) tests/integration

e2e: install-test  ## the whole path
	$(PYTEST) tests/e2e

soak: install-test  ## the ledger for longer: make soak ARGS="--minutes 60 --seed 7"
	@$(PY) -m tests.ledger.run $(ARGS)

fuzz: install-test  ## mutate inputs of every decoder for ten minutes each; ARGS="--seconds 3600 pprof record --keep"
	@$(PY) -m tests.fuzz.run $(ARGS)

lock:  ## make requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --all-extras --generate-hashes --no-emit-index-url --no-header -q \
	    --python-version 3.11 -o requirements.lock
	uv pip compile pyproject.toml --extra worker --extra sink --extra ingest --extra dashboards --extra read --extra python \
	    --extra build \
	    -c requirements.lock --generate-hashes --no-emit-index-url --no-header --no-annotate -q \
	    --python-version 3.11 -o deploy/image/requirements.lock
