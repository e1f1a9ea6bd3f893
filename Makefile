# Everything from nothing but Python 3.11+ and make. `make demo` and `make test` install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests wait for servers, browsers and processes half of their time: four at a time keep two cores busy.
JOBS ?= 4
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt

# Hundreds of processes start in the tests: they needn't compile the project each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types soak bench clean server deploy worker azurite

demo: $(VENV)/.installed ## generate 10 random episodes of CartPole-v1 into data/
	$(BIN)/python flows/generate.py --env CartPole-v1 --random --num-episodes 10

test: $(VENV)/.installed-dev ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

lint: $(VENV)/.installed-dev ## format, style, types and import direction, as in CI
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

azurite: $(VENV)/.installed-dev ## Azure's emulator, without which the tests of az:// are skipped (needs npm)
	npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3

soak: $(VENV)/.installed-dev ## the tests that take long: many kills, many episodes
	$(BIN)/python -m pytest -m soak -n $(JOBS) --timeout 7200

bench: $(VENV)/.installed-dev ## measure against a bare loop and an empty Prefect flow, and how costs grow
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/growth.py --no-render --episodes 400 4000 --checkpoints 20 80 --experiments 20 80

# Prefect's server, as the command lines and workers find it. Elsewhere: make deploy worker PREFECT_API_URL=http://…/api
PREFECT_API_URL ?= http://127.0.0.1:4200/api
PREFECT := PREFECT_API_URL=$(PREFECT_API_URL) $(BIN)/prefect --no-prompt
# Where the server listens: 0.0.0.0 lets other machines in (there is no password).
HOST ?= 127.0.0.1
PORT ?= 4200
# A server of a team records more than its defaults keep up with; the UI asks the host that it came from. New schedules
# are looked for every few seconds: one that is due within the minute would be missed otherwise.
SERVER_SETTINGS := DO_NOT_TRACK=1 \
	PREFECT_SERVER_ANALYTICS_ENABLED=false \
	PREFECT_SERVER_UI_API_URL=/api \
	PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS=5 \
	PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE=50 \
	PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE=50 \
	PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL=1

server: $(VENV)/.installed ## Prefect's server and UI, in the foreground
	$(SERVER_SETTINGS) $(BIN)/prefect server start --host $(HOST) --port $(PORT)

deploy: $(VENV)/.installed ## work pool, limit, automations and deployments on the server; what people changed in the UI stays
	@PREFECT_API_URL=$(PREFECT_API_URL) $(BIN)/python deployments/set_up.py
	@PREFECT_API_URL=$(PREFECT_API_URL) $(BIN)/python deployments/deploy.py

worker: $(VENV)/.installed ## takes scheduled runs and does them, in the foreground; data goes where RLHFBLENDER_DATA_ROOT says
	$(PREFECT) worker start --pool local-processes

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(PIP_INSTALL) --editable '.[workflow]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV) …"
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@
