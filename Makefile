# make table1   install, then reproduce Table 1 on the generated tasks
# make report   install, then everything: tables, estimates, figures, and results/report.zip
# make test     install, then lint, check types and run the tests
# The first of these that runs. 3.11 comes first: requirements.lock is made with it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13; do \
	$$python -c "" 2> /dev/null && echo $$python && break; done)
VENV   ?= .venv
CORES  ?= $(shell nproc)
BIN    := $(VENV)/bin
# Other engines, in an environment of their own that sees the packages of .venv.
ENGINES ?= .venv-engines
RESULTS ?= results/sst2-minilm
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help setup valid table1 report test lint format bench engines mutations ablations faults flips chaos schema reference lock

help:
	@sed -n 's/^# \(make \)/\1/p' Makefile

setup: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# Snakemake reads the configuration before PipeOps does, and says of a file that is none what it is made of.
valid: setup
	$(BIN)/pipeops validate --configfile config.yaml

table1: valid
	$(BIN)/snakemake --cores $(CORES) results/table1.csv

report: valid
	$(BIN)/snakemake --cores $(CORES) all
	$(BIN)/snakemake --report results/report.zip

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

bench: setup
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/sizes.py

# PipeOps beside other engines, on O and E of a study that RESULTS names.
engines: $(ENGINES)/installed
	$(ENGINES)/bin/python benchmarks/engines.py $(RESULTS) --output results/engines

$(ENGINES)/installed: $(VENV)/installed benchmarks/engines-requirements.txt
	$(BIN)/python -m venv $(ENGINES)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$(echo $(ENGINES)/lib/python3*/site-packages)/pipeops.pth
	$(ENGINES)/bin/pip install --quiet --disable-pip-version-check --requirement benchmarks/engines-requirements.txt
	touch $@

mutations: setup
	$(BIN)/python tests/random_configs.py 2000 10

ablations: setup
	$(BIN)/python benchmarks/ablations.py --cores $(CORES)

# What docs/reliability.md reports: every write of every job fails; bits are flipped in every file that a job reads.
# Goes on where it was stopped: studies and logs are in faults/.
faults flips: setup
	cd tests && $(abspath $(BIN))/python -m faults.every $@ --folder ../faults

# The same study killed at random moments. Goes on where it was stopped: studies and log are in chaos/.
chaos: setup
	cd tests && $(abspath $(BIN))/python -m faults.chaos --folder ../chaos

# The configuration's schema, for editors; written from pipeops.study.config.
schema: setup
	$(BIN)/python -c "import json; from pipeops.study.config import Config; print(json.dumps(Config.model_json_schema(), indent=2))" > workflow/schemas/config.schema.json

# The page of all commands; written from pipeops.cli.
reference: setup
	$(BIN)/python docs/reference.py

# requirements.lock from pyproject.toml. A local build of torch is locked as its release.
lock: setup
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --strip-extras --extra dev --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.lock pyproject.toml
	sed -i 's/^\(torch==[^+ ]*\)+[a-z0-9]*/\1/' requirements.lock
