# Every target does the set-up it needs. Needs Linux, Python >= 3.11 with venv, git and make; uses uv when present.
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# The tests start hundreds of processes: each module is compiled once, also where the caller wants no bytecode.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test check test-real test-real-all crash prove bench fix lock clean setup setup-dev

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup:
	@sh tools/setup.sh run

setup-dev:
	@sh tools/setup.sh dev

demo: setup ## a live board: daemon, three simulated engines under traffic; leaves nothing behind
	@$(BIN)/opsboard demo

test: setup-dev ## the whole test suite, on all cores
	$(PYTEST) -n auto --dist loadfile --no-loadscope-reorder

check: setup-dev ## what must hold before a push: lint, format, types, import contracts, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/unit/test_docs.py tests/unit/test_import_hygiene.py

test-real: setup-dev ## opsboard against a real vLLM (first time: 2 minutes and 3 GB, outside the checkout)
	sh tools/real_vllm.sh $(PYTEST) tests/real

test-real-all: export OPSBOARD_REAL_FULL := 1
test-real-all: test-real ## the same with full counts

crash: export OPSBOARD_CRASH_ROUNDS ?= 200
crash: export OPSBOARD_CRASH_SEED ?= 0
crash: setup-dev ## kill -9 at every spot, many times (OPSBOARD_CRASH_ROUNDS, OPSBOARD_CRASH_SEED)
	$(PYTEST) -s tests/crash --timeout 3600

prove: DAYS ?= 60
prove: setup-dev ## judge the detectors on simulated engine-days (DAYS in all; goes on where it was); writes docs/proof.md
	$(BIN)/python -m tests.proving --days $(DAYS) --write

bench: setup-dev ## measure the budgets of docs/benchmarks.md
	@$(BIN)/python -m tests.bench

fix: setup-dev ## let the tools mend what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup-dev ## resolve the locked requirements anew
	sh tools/lock.sh

clean: ## remove everything that is not the source
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
