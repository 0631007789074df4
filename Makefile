# Two commands do everything on a fresh machine with Python >= 3.11, pip and make:
#   make demo    the main job on real text, end to end
#   make test    the test suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TOKENIZERS_PARALLELISM ?= false

# What the slow tests use beside Python: a browser, and Ceph's S3 gateway as a second object store.
PACKAGES := chromium fonts-inter ceph-mon ceph-osd radosgw

.PHONY: demo test test-slow system check format install clean help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: install  ## rerank real search results and measure the gain (a few minutes on two cores)
	$(BIN)/rankmill demo

test: install  ## the fast tests (about ten minutes on two cores)
	$(BIN)/python -m pytest -m "not slow"

test-slow: install system  ## clusters, submitted jobs, a browser, a second object store, the long runs
	$(BIN)/python -m pytest -m slow --timeout 1200

system:  ## Debian packages of the slow tests; what cannot be installed is skipped by its tests, in words
	dpkg -s $(PACKAGES) >/dev/null 2>&1 \
	|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(PACKAGES); } \
	|| echo "not installed: $(PACKAGES)"

check: install  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## apply the formatter and the safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"rankmill needs Python >= 3.11; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12 demo")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing rankmill with PyTorch, Ray and what its tests use into $(VENV): this takes some minutes."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:  ## remove the virtual environment and every cache
	rm -rf $(VENV) .venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis dist artifacts
