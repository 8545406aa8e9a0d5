# Every target sets up what it needs in .venv; a machine with Python 3.11 or newer is enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= configs/llm_lora.yaml
TEXT ?= I have had chest pain since this morning
WORKERS ?= auto

.PHONY: install install-dev format lint test test-slow prepare-data train infer demo clean

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/it")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[hf,parquet,report]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(VENV)/.installed $@

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# One thread per worker: several workers with several threads each slow one another down.
test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS)

test-slow: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) -m slow

prepare-data: install
	$(BIN)/finetune prepare --config $(CONFIG)

# Train, or go on with an interrupted training; then calibrate and evaluate.
train: install
	$(BIN)/finetune train --config $(CONFIG) --resume
	$(BIN)/finetune calibrate --config $(CONFIG)
	$(BIN)/finetune evaluate --config $(CONFIG)

infer: install
	$(BIN)/finetune predict --config $(CONFIG) --text "$(TEXT)"

demo: install
	$(BIN)/finetune demo

# What the tools and the demo made; environments and your own artifacts stay.
clean:
	rm -rf demo dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
