# make demo   sets everything up, runs the France experiment, prints the result and the report
# make planted  sets everything up, runs a planted world, in which the answer is known: GO, Supported
# make test   sets everything up, runs lint and all tests but the tutorial (`make tutorial`), those in a
#               browser (`make test-page`) and the long ones with real kills (`make chaos-test`)
# make fuzz   feeds hostile bytes to everything that reads files or words (FUZZ_INPUTS=100000)
# make soak   plays SEEDS simulated seeds in parallel and prints totals; make mutants proves the net
# make mutation  tries small wrong changes of the code against the tests of their lines (hours; a second
#               call goes on where the first stopped), then writes the score into docs/reliability.md
# make check  lint, types, layers and the fast tests: for daily use
# make science  runs the four full studies (hours; a second call goes on where the first
#               stopped), then counts in simulated worlds how often intervals, gate and mapping are right
# make test-processors  the tests of what is computed, with the processor's wide instructions on, limited
#               to AVX2, and off (the acceptance test three times: 7 to 11 minutes of processor time each)
# make test-latest  the fast tests with the newest versions of all libraries, in .venv-latest; names
#               the library that broke them (installs 2 GB once)
# make test-page  opens reports in a browser (needs a chromium on the path; installs playwright)
# make chaos-test  kills real processes at every failpoint, at random for two minutes, stops them past
#               their leases and loses the power twice; `make test` has a short dose of it
# make chaos  kills real processes at random until CHAOS_KILLS kills counted (1,000: an hour)
# make bench  measures each row of the table in docs/performance.md once, on a machine with nothing
#               beside (BENCH_MACHINE="what it is"; a second call goes on where the first was stopped)
# make gpu-check  compares the first CUDA device with the CPU (at most 8 minutes; 75 without one)
# make power-loss  runs the demo and loses power POWER_LOSSES times (20: half an hour)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo planted science tutorial test check soak mutants mutation chaos chaos-test power-loss fuzz lint setup clean bench gpu-check
.PHONY: test-page test-processors test-native test-avx2 test-narrow test-latest

setup: $(INSTALLED)

# Skipped when neither the dependencies nor the pins changed.
$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[worker,demo,dev]'
	@touch $(INSTALLED)

demo: $(INSTALLED)
	@$(BIN)/loopscope run examples/france
	@$(BIN)/loopscope get experiments
	@$(BIN)/loopscope report france

planted: $(INSTALLED)
	@$(BIN)/loopscope run examples/planted
	@$(BIN)/loopscope get experiments
	@$(BIN)/loopscope report planted

science: $(INSTALLED)
	@status=0; $(BIN)/loopscope run examples/studies || status=$$?; \
	$(BIN)/loopscope get experiments; exit $$status
	@mkdir -p build
	$(BIN)/python benchmarks/verdict_errors.py build/verdict-errors.jsonl --worlds 500 --quick
	$(BIN)/python benchmarks/planted_worlds.py build/planted-worlds.jsonl --play

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/unit tests/conformance -m 'not integration'

# Files are handed out in the order of their folders: the long ones of acceptance and chaos first, so
# that neither of the two processes is left alone with one at the end.
test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m 'not long' \
		--ignore tests/acceptance/test_tutorial.py --ignore tests/page

# What is computed differs in its last bits from processor to processor; what is tested must not.
# Torch, MKL, oneDNN, OpenBLAS and NumPy are each told which instructions they may use; on another
# kind of processor the names mean nothing, and the three are the same.
NUMERIC := $(BIN)/python -m pytest -q tests/unit/test_numerics_*.py tests/unit/test_worker_*.py \
	tests/unit/test_near_ties.py tests/acceptance/test_france.py
AVX2 := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 MKL_CBWR=AVX2 \
	ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell \
	NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"
NARROW := ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 MKL_CBWR=COMPATIBLE \
	ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem \
	NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
CAPABILITY := $(BIN)/python -c 'import torch; print(torch.backends.cpu.get_cpu_capability())'

test-processors: test-native test-avx2 test-narrow

test-native: $(INSTALLED)
	@$(CAPABILITY)
	$(NUMERIC)

test-avx2: $(INSTALLED)
	@$(AVX2) $(CAPABILITY)
	$(AVX2) $(NUMERIC)

test-narrow: $(INSTALLED)
	@$(NARROW) $(CAPABILITY)
	$(NARROW) $(NUMERIC)

# Makes an environment of its own, on the newest Python of the path or on LATEST_PYTHON.
test-latest:
	$(PYTHON) -m tests.latest $(if $(LATEST_PYTHON),--python $(LATEST_PYTHON))

# Chromium comes from the system; where it is missing the tests are skipped, and fail with CI=1.
test-page: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[page]'
	$(BIN)/python -m pytest -q tests/page

# Follows docs/tutorial.md to the letter, with the real model: minutes.
tutorial: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/acceptance/test_tutorial.py

# All of tests/chaos, also what is marked as long: minutes, and more on a busy machine.
chaos-test: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/chaos

CHAOS_KILLS ?= 1000
CHAOS_SEED ?= $(shell date +%s)
POWER_LOSSES ?= 20

chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos.chaos --kills $(CHAOS_KILLS) --seed $(CHAOS_SEED)

power-loss: $(INSTALLED)
	$(BIN)/python -m tests.chaos.power_loss --pulls $(POWER_LOSSES) --seed $(CHAOS_SEED)

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

MUTATION_SAMPLE ?= 1000
MUTATION_SEED ?= 1
MUTATION := $(BIN)/python -m tests.mutation --sample $(MUTATION_SAMPLE) --seed $(MUTATION_SEED)

# MUTATION_OPTIONS="--like commit.py" tries a few, "--again" survivors once more.
mutation: $(INSTALLED)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(MUTATION) $(MUTATION_OPTIONS)
	$(MUTATION) --report

BENCH_MACHINE ?= a machine that was not named

bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py --machine "$(BENCH_MACHINE)"

gpu-check: $(INSTALLED)
	$(BIN)/python benchmarks/gpu_check.py

clean:
	rm -rf $(VENV) .venv-latest .loopscope
