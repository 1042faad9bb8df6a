# make demo   sets everything up, runs the France experiment, prints the result and the report
# make test   sets everything up, runs all tests
# make check  lint, types, layers and the fast tests: for daily use
# make chaos  kills real processes at random until CHAOS_KILLS kills counted (1,000: an hour)
# make power-cord  runs the demo and kills everything POWER_CORD_PULLS times (20: half an hour)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check chaos power-cord lint setup clean

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

CHAOS_KILLS ?= 1000
CHAOS_SEED ?= $(shell date +%s)
POWER_CORD_PULLS ?= 20

chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos.chaos --kills $(CHAOS_KILLS) --seed $(CHAOS_SEED)

power-cord: $(INSTALLED)
	$(BIN)/python -m tests.chaos.power_cord --pulls $(POWER_CORD_PULLS) --seed $(CHAOS_SEED)

clean:
	rm -rf $(VENV) .loopscope
