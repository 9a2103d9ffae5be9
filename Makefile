# Every target makes the environment it needs: a fresh clone needs Python 3.11+ and make, no more.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-report

# The first interpreter that is new enough; override with `make PYTHON=/path/to/python test`.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if command -v $$p >/dev/null 2>&1 && \
	   $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$p; break; fi; done)
endif

.PHONY: help demo test lint format types doctest docs bench validate clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      one command: install, analyse the packaged trial, write $(OUT)/"
	@echo "make test      the test suite"
	@echo "make lint      ruff check and ruff format --check"
	@echo "make format    let ruff rewrite what it can"
	@echo "make types     mypy --strict"
	@echo "make doctest   the examples in the docstrings"
	@echo "make docs      the documentation, in docs/_build/html"
	@echo "make bench     the benchmarks: rewrite benchmarks/*.json (ARGS=--quick, ARGS=--large)"
	@echo "make validate  the simulation studies: rewrite and check docs/validation/*.csv"
	@echo "make clean     remove what the targets made, the environment included"

demo: $(VENV)/.installed-run
	$(BIN)/msmmiv demo --out $(OUT)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

doctest: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --doctest-modules msmmiv $(ARGS)

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -j auto -b html docs docs/_build/html

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/run.py $(ARGS)

validate: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.validation.study $(ARGS)
	$(BIN)/python -m pytest -m validation

clean:
	rm -rf $(VENV) build dist docs/_build docs/api $(OUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per set of packages; all depend on pyproject.toml, so a changed dependency reinstalls.
$(VENV)/.created:
	@if [ -z "$(PYTHON)" ]; then \
		echo "msmmiv needs Python 3.11 or newer and none was found." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "msmmiv needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: ensurepip is missing." >&2; \
		echo "On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-run: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-bench: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@ $(VENV)/.installed-run $(VENV)/.installed-dev

$(VENV)/.installed-docs: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[docs]'
	@touch $@ $(VENV)/.installed-run
