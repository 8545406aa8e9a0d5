# Every target sets up what it needs in .venv; a machine with Python 3.11 or newer is enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PEERS ?= .venv-peers
TRAINERS ?= .venv-bench
BIN := $(VENV)/bin
CONFIG ?= configs/llm_lora.yaml
TEXT ?= I have had chest pain since this morning
WORKERS ?= auto

.PHONY: install install-dev format lint test test-slow test-crosscheck benchmarks throughput prepare-data train \
	infer demo clean

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python $(PEERS)/bin/python $(TRAINERS)/bin/python: %/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/it")'
	$(PYTHON) -m venv $*

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[hf,parquet,report]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(VENV)/.installed $@

# The list is complete, and what is not on it is not wanted: docs/adr/0012-peers.md.
$(PEERS)/.installed: pyproject.toml constraints.txt tests/crosscheck/requirements.txt | $(PEERS)/bin/python
	$(PEERS)/bin/python -m pip install --quiet --no-deps --constraint constraints.txt \
		--requirement tests/crosscheck/requirements.txt --editable .
	touch $@

$(TRAINERS)/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt | $(TRAINERS)/bin/python
	$(TRAINERS)/bin/python -m pip install --quiet --constraint constraints.txt \
		--requirement benchmarks/requirements.txt --editable '.[hf,report]'
	touch $@

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

# Against other packages that have a part of this, in an environment of their own.
test-crosscheck: $(PEERS)/.installed
	OMP_NUM_THREADS=1 $(PEERS)/bin/python -m pytest -c tests/crosscheck/pytest.ini tests/crosscheck

# Takes an hour, and wants the machine for itself.
benchmarks: $(PEERS)/.installed
	$(PEERS)/bin/python -m benchmarks.import_time
	$(PEERS)/bin/python -m benchmarks --write docs/benchmarks.md

# Against TRL and others: 50 minutes, half of them for teaching the model that scores.  Wants the machine for itself.
throughput: $(TRAINERS)/.installed
	$(TRAINERS)/bin/python -m benchmarks.train_throughput --write docs/throughput.md
	$(TRAINERS)/bin/python -m benchmarks.score_throughput --write docs/throughput.md
	$(TRAINERS)/bin/python -m benchmarks.demo_time --write docs/throughput.md

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
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
