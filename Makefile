# Two commands do everything: `make demo` and `make test`. Both create .venv first.
#
#   PYTHON      interpreter to make the environment with      (python3)
#   PIP_ARGS    extra arguments for pip, e.g. an index with CPU-only builds of torch
#   JOBS        cores to use                                  (2)
#   PEER        folder of BNNQuanalyst's models and results, for bench-counting
#   PEERS       folder with eevbnn/, vnncomp_traffic_signs/ and bnnquanalyst/, for bench-deciding

PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= 2
PEER ?=
PEERS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: install demo test test-slow lint types format bench bench-counting bench-reliability bench-deciding models data study write-errors \
  robustness-study clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bnnverify needs Python 3.11 or newer; got `$(PYTHON) --version`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/python case_studies/digits/run.py --jobs $(JOBS) --out out/demo

test: install
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python case_studies/benchmarks/first_answer.py
	$(BIN)/python case_studies/benchmarks/inference.py
	$(BIN)/python case_studies/benchmarks/reliability.py --jobs $(JOBS)
	$(BIN)/python case_studies/benchmarks/reliability.py --jobs $(JOBS) models/digits-64-100-10.npz
	$(BIN)/python case_studies/benchmarks/reliability.py --jobs $(JOBS) models/digits-64-20-16-10.npz --images 40
	$(BIN)/python case_studies/benchmarks/engines.py
	$(BIN)/python case_studies/benchmarks/counting.py --threads $(JOBS)
	$(BIN)/python case_studies/benchmarks/enumeration.py
	$(BIN)/python case_studies/benchmarks/training.py --threads $(JOBS)

# exact counts beside the published times of BNNQuanalyst; without PEER on the networks of models/
bench-counting: install
	$(BIN)/python case_studies/benchmarks/counting.py --threads $(JOBS) --cross-check 30 $(if $(PEER),--peer $(PEER) --goals)

# certified reliability on MNIST: widths, times, what Monte Carlo would cost, cross-checks; about an hour on 2 cores
bench-reliability: data
	$(BIN)/python case_studies/benchmarks/mnist_reliability.py --jobs $(JOBS) --curve 100
	$(BIN)/python case_studies/benchmarks/deep_reliability.py --images 1000 --jobs $(JOBS)
	$(BIN)/python case_studies/benchmarks/deep_reliability.py --growth --jobs $(JOBS)
	$(BIN)/python case_studies/benchmarks/monte_carlo_cost.py --jobs $(JOBS)
	$(BIN)/python case_studies/benchmarks/worst_case.py distance --images 10000 --jobs $(JOBS)
	$(BIN)/python case_studies/benchmarks/worst_case.py critical --images 10000
	$(BIN)/python case_studies/benchmarks/worst_case.py coefficients --images 1000 --order 3
	$(BIN)/python case_studies/benchmarks/cross_checks.py --jobs $(JOBS)

# robust or not, beside the times of other tools, with PEERS=DIR; the benchmarks say at their top which files they read
# there, and skip with a sentence what is missing
bench-deciding: $(if $(PEERS),data)
ifeq ($(PEERS),)
	@echo "bench-deciding needs models and properties of others, so it is skipped. Give a folder: make bench-deciding PEERS=DIR"
else
	$(BIN)/python case_studies/benchmarks/eevbnn.py $(PEERS)/eevbnn
	$(BIN)/python case_studies/benchmarks/traffic_signs.py $(PEERS)/vnncomp_traffic_signs --timeout 100
	$(BIN)/python case_studies/benchmarks/hamming_distance.py $(PEERS)/bnnquanalyst
endif

data: install
	$(BIN)/bnnverify data --data-dir data

# every update rule on MNIST: about an hour on 2 cores; what is in results.jsonl is not run again
study: data
	$(BIN)/python case_studies/training/runs.py --jobs $(JOBS)
	$(BIN)/python case_studies/training/table.py
	$(BIN)/python case_studies/training/claims.py

# how many write errors may a memristor BNN have? what is in answers.jsonl is not asked again
write-errors: data
	$(BIN)/python case_studies/write_errors/run.py --jobs $(JOBS)

# does training by switching, or with bit errors, change robustness to noise on the inputs? finished verdicts are kept
robustness-study: data
	$(BIN)/python case_studies/input_robustness/run.py

models: install
	$(BIN)/python models/make_models.py --jobs $(JOBS)

clean:
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find bnnverify tests -name __pycache__ -type d -exec rm -rf {} +
