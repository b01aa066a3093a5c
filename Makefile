# Set-up, checks and the demonstration. Needs Python 3.11 or 3.12, git and make; everything else goes into .venv.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help venv demo gallery test check smoke lint parity bench clean

# Tests start many processes, and each would compile all of our modules anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := --suite urlb-states --agent choreographer --agent random --domains walker --seeds 2 --preset smoke

help:
	@echo "make demo    run and report a reduced benchmark from start to end (minutes)"
	@echo "make test    all tests; as root on Debian or Ubuntu it installs what they need from the system (GL, Chromium, LaTeX, Slurm)"
	@echo "make check   linters, types and the fast tests"
	@echo "make smoke   every agent on every suite it takes, smallest budgets, in smoke/ (hours; given again, it continues)"
	@echo "make parity  compare with recordings: URLBENCH_TRACES=folder URLBENCH_GOLDEN=folder (default: tests/recordings)"
	@echo "make gallery published scores as reports, in docs/gallery"
	@echo "make bench   times against plain versions, recorded in benchmarks/results (hours; QUICK=1: minutes, not recorded)"
	@echo "make venv    only create .venv with the pinned packages"

venv: $(STAMP)

# PYTHON=... names another interpreter; without it the first of these that runs and is a 3.11 or 3.12 is taken.
# The pinned versions were tried together on 3.11, which is why it comes first; 3.12 has wheels of all of them.
$(STAMP): pyproject.toml constraints.txt
	@for python in $(or $(PYTHON),python3.11 python3.12 python3 python); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: urlbench needs Python 3.11 or 3.12 and none was found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)
	@echo "Installing the pinned packages (some minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/urlbench run $(DEMO)
	@$(BIN)/urlbench report --suite urlb-states --agents choreographer,random --domains walker --seeds 2 --preset smoke

gallery: $(STAMP)
	@$(BIN)/python -m urlbench.reports.gallery docs/gallery

test: $(STAMP)
	@scripts/install_gl.sh
	@scripts/install_chromium.sh
	@scripts/install_tex.sh
	@scripts/install_slurm.sh
	@$(BIN)/python -m pytest -n auto --dist loadfile

check: lint
	@$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

smoke: $(STAMP)
	@$(BIN)/python benchmarks/every_agent.py smoke

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

# Variables given to make are in the environment of what it runs.
parity: $(STAMP)
	@$(BIN)/python -m pytest -m parity

bench: $(STAMP)
	@$(BIN)/python benchmarks/bench.py $(if $(QUICK),--quick)

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache
