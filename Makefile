# Terakoya's two commands: `make run` starts it, `make test` checks it. `make help` lists the rest.
#
#   PORT=8051      another port                      TORCH=auto|cpu|cuda   which PyTorch build
#   DATA_DIR=path  another data folder               PYTHON=python3.12     another Python (3.11 or newer)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
TORCH ?= auto
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STARTERS := smollm2-135m-instruct-q4_1 multilingual-e5-small-q4

export TORCH
ifdef PORT
export TERAKOYA_PORT := $(PORT)
endif
ifdef DATA_DIR
export TERAKOYA_DATA_DIR := $(abspath $(DATA_DIR))
endif

# A stamp is named after the checksum of what it stands for: when that changes, its step runs again.
checksum = $(shell cat $(1) 2>/dev/null | cksum | cut -d' ' -f1)
VENV_STAMP := $(VENV)/.created
TORCH_STAMP := $(VENV)/.torch-$(TORCH)-$(call checksum,scripts/install_torch.py)
RUN_STAMP := $(VENV)/.packages-$(call checksum,requirements.lock)
DEV_STAMP := $(VENV)/.dev-packages-$(call checksum,requirements-dev.lock)
SELF_STAMP := $(VENV)/.terakoya-$(call checksum,pyproject.toml)

.PHONY: help run test check lint lock bench clean
help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

run: $(TORCH_STAMP) $(RUN_STAMP) $(SELF_STAMP) ## Install what is missing and start Terakoya on http://localhost:8050
	@for model in $(STARTERS); do $(BIN)/terakoya models pull $$model --once || { [ $$? != 130 ] || exit 130; \
		echo "Starting without $$model; the next make run tries again."; }; done
	@exec $(BIN)/terakoya serve

test: $(TORCH_STAMP) $(DEV_STAMP) $(SELF_STAMP) lint ## Install what is missing and run every check and test
	@scripts/chromium.sh
	$(BIN)/pytest --durations=15

check: $(TORCH_STAMP) $(DEV_STAMP) $(SELF_STAMP) lint ## The fast loop: all but the slow and the browser tests
	$(BIN)/pytest -m "not slow and not browser"

lint: $(TORCH_STAMP) $(DEV_STAMP) $(SELF_STAMP) ## Style, types and layer contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(TORCH_STAMP) $(DEV_STAMP) $(SELF_STAMP) ## Measure; results go to benchmarks/results/
	$(BIN)/python benchmarks/startup.py

# The lock holds no PyTorch and none of its GPU libraries: their step is scripts/install_torch.py.
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --constraint $(VENV)/torch.txt
WITHOUT_TORCH := awk '/^[^ ]/ {drop = /^(torch|triton|nvidia-|cuda-)/} !drop && !/^\# The following packages/'
lock: $(DEV_STAMP) ## Resolve pyproject.toml anew into the two lock files (minutes)
	$(BIN)/python scripts/install_torch.py --version > $(VENV)/torch.txt
	$(COMPILE) --output-file $(VENV)/requirements.lock pyproject.toml
	$(WITHOUT_TORCH) $(VENV)/requirements.lock > requirements.lock
	$(COMPILE) --constraint requirements.lock --extra dev --output-file $(VENV)/requirements-dev.lock pyproject.toml
	$(WITHOUT_TORCH) $(VENV)/requirements-dev.lock > requirements-dev.lock

clean: ## Remove the environment and caches; the data folder stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV_STAMP):
	@echo "[1/4] Creating $(VENV) ..."
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Terakoya needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}: make run PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(TORCH_STAMP): | $(VENV_STAMP)
	@echo "[2/4] PyTorch ..."
	@$(BIN)/python scripts/install_torch.py
	@rm -f $(VENV)/.torch-*; touch $@

$(RUN_STAMP): | $(VENV_STAMP)
	@echo "[3/4] Packages from requirements.lock, each checked against its hash (under a minute) ..."
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	@rm -f $(VENV)/.packages-*; touch $@

$(DEV_STAMP): | $(VENV_STAMP)
	@echo "[3/4] Packages from requirements-dev.lock, each checked against its hash (under a minute) ..."
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements-dev.lock
	@rm -f $(VENV)/.dev-packages-*; touch $@

# setuptools, which builds the package, is in the locks; either will do.
$(SELF_STAMP): | $(if $(filter run,$(MAKECMDGOALS)),$(RUN_STAMP),$(DEV_STAMP))
	@echo "[4/4] Terakoya itself ..."
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.terakoya-*; touch $@
