# Everything from nothing but Python 3.11+ and make. `make demo` and `make test` install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests start servers and browsers; two at a time leaves them room on two cores.
JOBS ?= 2
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types soak bench clean

demo: $(VENV)/.installed ## generate 10 random episodes of CartPole-v1 into data/
	$(BIN)/python flows/generate.py --env CartPole-v1 --random --num-episodes 10

test: $(VENV)/.installed-dev ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

lint: $(VENV)/.installed-dev ## format, style, types and import direction, as in CI
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.installed-dev ## the tests that take long: many kills, many episodes
	$(BIN)/python -m pytest -m soak -n $(JOBS) --timeout 7200

bench: $(VENV)/.installed-dev ## measure against a bare loop and an empty Prefect flow
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV) …"
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@
