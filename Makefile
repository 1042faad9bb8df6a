# make demo   sets everything up, runs the France experiment, prints the result and the report
# make test   sets everything up, runs all tests
# make soak   plays SEEDS simulated seeds in parallel and prints totals; make mutants proves the net
# make check  lint, types, layers and the fast tests: for daily use
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check soak mutants lint setup clean

setup: $(INSTALLED)

# Skipped when neither the dependencies nor the pins changed.
$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[demo,dev]'
	@touch $(INSTALLED)

demo: $(INSTALLED)
	@$(BIN)/loopscope run examples/france
	@$(BIN)/loopscope get experiments
	@$(BIN)/loopscope report france

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/unit -m 'not integration'

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

SEEDS ?= 10000
FIRST ?= 0
SOAK_RECORD ?= build/soak-$(shell git rev-parse --short HEAD).jsonl

# Seeds in the record held at this commit and are not played again: an interrupted soak goes on.
soak: $(INSTALLED)
	@mkdir -p $(dir $(SOAK_RECORD))
	$(BIN)/python -m tests.simulation --first $(FIRST) --seeds $(SEEDS) --record $(SOAK_RECORD)

# Searches, for each planted defect, the seeds below MUTANT_SEEDS that notice it.
MUTANT_SEEDS ?= 200

mutants: $(INSTALLED)
	$(BIN)/python -m tests.simulation --mutants $(MUTANT_SEEDS)

clean:
	rm -rf $(VENV) .loopscope
