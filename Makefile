# make demo   sets everything up, runs the France experiment, prints the result and the report
# make test   sets everything up, runs all tests
# make fuzz   feeds hostile bytes to everything that reads files or words (FUZZ_INPUTS=100000)
# make soak   plays SEEDS simulated seeds in parallel and prints totals; make mutants proves the net
# make check  lint, types, layers and the fast tests: for daily use
# make science  runs the four full studies (about an hour; a second call goes on where the first
#               stopped), then counts in simulated worlds how often intervals, gate and mapping are right
# make chaos  kills real processes at random until CHAOS_KILLS kills counted (1,000: an hour)
# make power-cord  runs the demo and kills everything POWER_CORD_PULLS times (20: half an hour)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo science tutorial test check soak mutants chaos chaos-test power-cord fuzz lint setup clean

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

science: $(INSTALLED)
	@status=0; $(BIN)/loopscope run examples/studies || status=$$?; \
	$(BIN)/loopscope get experiments; exit $$status
	$(BIN)/python benchmarks/verdict_errors.py build/verdict-errors.jsonl --worlds 500 --quick
	$(BIN)/python benchmarks/planted_worlds.py

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/unit -m 'not integration'

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore tests/acceptance/test_tutorial.py

# Follows docs/tutorial.md to the letter, with the real model: minutes.
tutorial: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/acceptance/test_tutorial.py

# Real kills of real processes: minutes, and more on a busy machine.
chaos-test: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/chaos

CHAOS_KILLS ?= 1000
CHAOS_SEED ?= $(shell date +%s)
POWER_CORD_PULLS ?= 20

chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos.chaos --kills $(CHAOS_KILLS) --seed $(CHAOS_SEED)

power-cord: $(INSTALLED)
	$(BIN)/python -m tests.chaos.power_cord --pulls $(POWER_CORD_PULLS) --seed $(CHAOS_SEED)

FUZZ_INPUTS ?= 100000

# Guided by coverage where atheris can be installed, else by random harm alone; the table says which.
fuzz: $(INSTALLED)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
		--constraint constraints.txt atheris
	$(BIN)/python -m tests.fuzz --inputs $(FUZZ_INPUTS)

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
