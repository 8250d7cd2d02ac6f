# `make demo` and `make test` set up everything they need; Python 3.11 or newer with pip, and make, are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := .venv-extras
EXTRA_PACKAGES := torch==2.13.0 captum==0.9.0 lime==0.2.0.1 mlflow-skinny==3.17.2
export XAI_ASSETS_DATA ?= $(CURDIR)/data
export DAGSTER_HOME ?= $(XAI_ASSETS_DATA)/dagster
export DAGSTER_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-extras check ui lock clean
.DEFAULT_GOAL := help

help: ## What can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## The environment alone, in .venv

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Simulate a shadow deployment with planted faults, run the platform on it, print what it found
	$(BIN)/xai demo

test: setup ## All tests, doctests included, one process per processor
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-extras: $(EXTRAS)/.ready ## Tests of the optional libraries, in .venv-extras: PyTorch, captum, LIME, MLflow
	$(EXTRAS)/bin/python -m pytest -m extras xai_assets_tests

# Beside .venv, whose packages it sees: torch's usual Linux wheel drags in CUDA, so the development lock leaves it out.
$(EXTRAS)/.ready: $(VENV)/.ready Makefile
	$(BIN)/python -m venv $(EXTRAS)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(EXTRAS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/development.pth"
	$(EXTRAS)/bin/python -m pip install --quiet $(EXTRA_PACKAGES)
	@touch $@

check: setup $(DAGSTER_HOME)/dagster.yaml ## Linter, formatter, type checker, import contracts, definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate -w workspace.yaml

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	@mkdir -p $(DAGSTER_HOME)
	@ln -sf $(CURDIR)/dagster.yaml $@

ui: setup $(DAGSTER_HOME)/dagster.yaml ## Dagster UI and daemon on 127.0.0.1:3000 over the same data
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1

lock: setup ## Compile the lock files anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group dev pyproject.toml -o requirements-dev.lock

clean: ## Remove the environment and all stored data
	rm -rf $(VENV) $(EXTRAS) data/lake data/demo data/examples data/dagster data/models data/warehouse.duckdb
