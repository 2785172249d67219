# One front for people and for CI. Every target sets up by itself what it needs; `make` shows them.
# CI= stops pip and uv from asking; PYTHON=python3.13 chooses the Python, VENV=… the environment.

SHELL  := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup browser demo test unit check format bench chaos docs constraints clean

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 3
UNIT    ?= tests/unit tests/contract
ARGS    ?=
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.ready

help: ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## make the environment in $(VENV)

browser: ## have the chromium that the dashboard's tests drive: Debian's, where root can install it
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
		echo "installing chromium for the dashboard's tests …" >&2; \
		apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends chromium >/dev/null || \
		echo "chromium could not be installed: the dashboard's tests will fail, and say so" >&2; \
	fi

demo: $(STAMP) ## run the main job live: broker, worker, database; ARGS="--postgres"
	@$(BIN)/aiotrack demo $(ARGS)

test: $(STAMP) browser ## run every test against real servers, with coverage; ARGS="-k lock"
	@rm -f .coverage .coverage.*
	@# First what looks through a browser: it shares one site, and an event loop that stays open.
	@$(BIN)/python -m pytest -n 0 --cov --cov-report= --cov-fail-under=0 tests/dashboard $(ARGS) || (($$? == 5))
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --ignore tests/dashboard \
		--cov --cov-append --cov-report=term $(ARGS)

unit: $(STAMP) ## run the unit and contract tests alone, without coverage
	@$(BIN)/python -m pytest -n $(WORKERS) $(UNIT) $(ARGS)

check: $(STAMP) ## format, lint, types, import contracts, file sizes, docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@AIOTRACK_TEST_NO_SERVERS=1 $(BIN)/python -m pytest -q -n 0 tests/architecture/test_files.py
	@$(BIN)/python docs/check.py
	@$(BIN)/python docs/generate.py --check

format: $(STAMP) ## format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP) ## run the benchmarks, short; ARGS="--help" for the long ones
	@for script in benchmarks/*.py; do \
		grep -q '^if __name__ == "__main__":' $$script || continue; \
		echo "── $$script"; \
		$(BIN)/python $$script --short $(ARGS); \
	done

chaos: $(STAMP) ## kill servers and workers for minutes, see that nothing is lost
	@$(BIN)/python -m pytest -n 0 -m chaos $(ARGS)

docs: $(STAMP) ## check every local link and every Python block in README and docs
	@$(BIN)/python docs/check.py
	@$(BIN)/python docs/generate.py --check

constraints: ## renew constraints.txt from a fresh environment with the newest releases
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(PYTHON) -m venv $$work/venv; \
	$$work/venv/bin/python -m pip install --quiet -e '.[dev]'; \
	{ head -n 1 constraints.txt; \
	  $$work/venv/bin/python -m pip freeze --exclude-editable --exclude aiotrack; \
	} > $$work/new; \
	cp $$work/new constraints.txt

clean: ## remove environments, caches and reports
	rm -rf .venv* build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian parts `venv` from `ensurepip`; then the environment is filled by the outer pip.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "aiotrack needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
		echo "Name another one:  make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)" >&2; exit 1; }
	@echo "setting up $(VENV) …" >&2
	@if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); \
		uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	elif $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
		$(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	else \
		$(PYTHON) -m venv --without-pip $(VENV); \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	fi
	@touch $(STAMP)
