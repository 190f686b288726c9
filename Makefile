# make demo   set up and run a whole study on real images (a few minutes on two cores)
# make test   set up and pass the tests
# make test-faults    a node lost while two train, fifty faults of real processes (most of an hour)
# make test-services  compose's services as processes, on real servers: PostgreSQL, S3, MLflow, Prefect, Ray
# make test-browser   drive Prefect's page in headless Chromium; screenshots under tests/output/
# make check  format, lint, types, import contracts, the Dockerfile
# make audit  the licences of what is installed, and known vulnerabilities (asks PyPI)
# make clean  remove the virtual environment and the demo's study

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
FASHION := /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
# a network of its own, where one may be made: servers that listen on every address are reached from nowhere else
ALONE := $(shell unshare --net true 2>/dev/null && echo "unshare --net sh -c 'ip link set lo up && exec \"\$$0\" \"\$$@\"'")
DEMO := $(if $(wildcard $(FASHION)),demo,demo-digits)

.PHONY: demo test test-all test-faults test-services test-browser check audit format clean

demo: $(READY)
	@echo "Running flows/configs/$(DEMO).yaml; what is done already is reused."
	@$(BIN)/mathnas run flows/configs/$(DEMO).yaml --root studies/$(DEMO)

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not browser and not services"

test-all: $(READY)
	$(BIN)/pytest

test-faults: $(READY)
	$(BIN)/pytest -m "faults and slow" tests/tasks
	$(BIN)/python -m tests.faults --runs 50 --seed 0

test-services: $(READY)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[run,dev,cluster]'
	$(ALONE) $(BIN)/pytest -m services

test-browser: $(READY)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[run,dev,browser]'
	$(BIN)/pytest -m browser

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if test -x $(BIN)/hadolint; then $(BIN)/hadolint docker/Dockerfile; fi

# every licence that is installed; then known vulnerabilities, which takes PyPI's API and so is no part of `check`
audit: $(READY)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt pip-audit pip-licenses
	$(BIN)/pip-licenses --order=license
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip --strict

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv studies/demo studies/demo-digits

# torch first: with it in place nothing below replaces it by another build
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Setting up .venv with $(PYTHON): about 2.5 GB, some minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[run,dev]'
	@touch $(READY)
