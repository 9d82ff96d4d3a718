# What can be done here; `make` alone lists it. Recipes longer than three lines are in scripts/.

SHELL := /bin/sh
.DEFAULT_GOAL := help
# The targets share one virtual environment and one var/.
.NOTPARALLEL:

PYTHON := .venv/bin/python
# Tests wait more than they work. More than this, and on two cores they wait for each other.
PROCESSES ?= 3
# Each names a lock that is installed; made again when the lock changes.
RUNTIME := .venv/installed-requirements
DEVELOPMENT := .venv/installed-requirements-dev

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

setup: $(DEVELOPMENT) ## Make the virtual environment, with all that tests and tools need

run: $(RUNTIME) ## Run it all: NGINX, Gunicorn and the exporter; PORT, WORKERS and SLUICE_* apply
	@exec $(PYTHON) -m deploy.run --with-parent

serve: $(RUNTIME) ## Run Gunicorn alone on SLUICE_BIND, to measure and to debug
	@exec $(PYTHON) -m gunicorn -c deploy/gunicorn.conf.py

observe: $(RUNTIME) ## Run Prometheus and Alertmanager with our rules, beside what runs (ARGS="--prometheus HOST:PORT")
	@exec $(PYTHON) -m deploy.observe $(ARGS)

test: $(DEVELOPMENT) ## Run every test; installs the programs they need where it can (ARGS="-k name" for some)
	@scripts/install-system-packages.sh
	@scripts/newer-nginx.sh
	$(PYTHON) -m pytest --numprocesses $(PROCESSES) --dist loadfile $(ARGS)

soak: $(DEVELOPMENT) ## Run the long variants, about 35 minutes, write what they saw to tests/soak/RESULTS.md and draw the dashboards
	@scripts/install-system-packages.sh
	@scripts/compare-peers.sh
	$(PYTHON) -m pytest -m soak --reruns 0 tests/soak $(ARGS)

interop: $(DEVELOPMENT) ## Try LangChain's and the AI SDK's clients, llama.cpp and checkov, in environments of their own (needs npm)
	@scripts/interop-clients.sh
	$(PYTHON) -m pytest -m interop --reruns 0 tests/interop $(ARGS)

check: lint types imports generated ## Lint, types, import directions, and documents that are made from the code

lint: $(DEVELOPMENT) ## Look for mistakes and for what `make format` would change
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check --quiet .

types: $(DEVELOPMENT)
	$(PYTHON) -m mypy

imports: $(DEVELOPMENT)
	.venv/bin/lint-imports --config .importlinter

generated: $(DEVELOPMENT)
	$(PYTHON) -m scripts.generate --check

generate: $(DEVELOPMENT) ## Write what is made from the code: settings, errors, modules, commands
	$(PYTHON) -m scripts.generate

format: $(DEVELOPMENT) ## Format the code and repair what can be repaired
	$(PYTHON) -m ruff check --fix --quiet . || true
	$(PYTHON) -m ruff format .

lock: $(RUNTIME) ## Write the locks anew from pyproject.toml, changing only what must (ARGS=--upgrade for all)
	@scripts/lock.sh $(ARGS)

faults: $(DEVELOPMENT) ## Act every fault of an upstream and write what came of it to deploy/FAILOVER.md
	$(PYTHON) -m tests.faults

bench: $(DEVELOPMENT) ## Measure what a token costs (loadtests/bench)
	$(PYTHON) -m loadtests.bench $(ARGS)
	$(PYTHON) -m scripts.generate
	$(PYTHON) -m loadtests.bench.access $(filter --assert,$(ARGS))

capacity: $(DEVELOPMENT) ## Find how many streams a worker carries and, if it can be believed, write it to deploy/capacity.json (TARGET=URL: how many that one does)
	$(PYTHON) -m loadtests.capacity $(if $(TARGET),--target $(TARGET)) $(ARGS)
	$(PYTHON) -m scripts.generate

compare: $(DEVELOPMENT) ## Measure Sluice beside NGINX alone, plain Uvicorn and LiteLLM, about twenty minutes
	@scripts/compare-peers.sh
	$(PYTHON) -m loadtests.compare $(ARGS)
	$(PYTHON) -m scripts.generate

plan: $(DEVELOPMENT) ## What a number of streams takes: pods, limits, Redis (STREAMS=5000, GROWTH=0.33 a minute)
	@$(PYTHON) -m loadtests.capacity.plan --streams $(or $(STREAMS),1000) $(if $(GROWTH),--growth $(GROWTH))

pin-images: $(DEVELOPMENT) ## Add digests to the tags of images, where a registry can be reached (needs skopeo)
	$(PYTHON) -m scripts.pin_images

k8s-verify: $(DEVELOPMENT) ## Roll the dev overlay under streams in a cluster (CONTEXT=name, ARGS=--dry-run to see the commands)
	$(PYTHON) -m scripts.kubernetes_verify --context "$(CONTEXT)" $(ARGS)

examples: $(DEVELOPMENT) ## Run the example clients against a running server
	@examples/run.sh

clean: ## Remove what was made here, except the virtual environment
	rm -rf var build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis loadtests/bench/build
	find . -name __pycache__ -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +

$(RUNTIME) $(DEVELOPMENT): .venv/installed-%: %.lock
	@scripts/setup.sh $< $@

.PHONY: help setup run serve observe test soak interop check lint types imports generated generate format lock faults bench capacity compare plan pin-images k8s-verify examples clean
