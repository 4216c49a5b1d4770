# SPDX-License-Identifier: Apache-2.0
# make demo   replay a recorded sequence into a semantic map and a costmap
# make test   linters and all tests
# make lint   linters alone
# make env    build the full environment; the last line printed is the path of its python
# Environments are built once and kept in the user's cache. Choose another Python with PYTHON=python3.12.

PYTHON ?= python3
BOOTSTRAP = $(PYTHON) src/bootstrap.py
export PYTHONPATH := $(CURDIR)/src

.PHONY: demo test lint env require-python

demo: require-python
	@python=$$($(BOOTSTRAP) lean | tail -n 1) && test -n "$$python" && "$$python" -m perception demo --output demo_output

# Training starts worker processes, which must not come from one that other tests filled with threads.
test: require-python
	@python=$$($(BOOTSTRAP) full | tail -n 1) && test -n "$$python" && $(MAKE) --no-print-directory lint-with ENV="$$python" && "$$python" -m pytest --ignore=tests/training && "$$python" -m pytest tests/training

lint: require-python
	@python=$$($(BOOTSTRAP) full | tail -n 1) && test -n "$$python" && $(MAKE) --no-print-directory lint-with ENV="$$python"

.PHONY: lint-with
lint-with:
	@"$(ENV)" -m ruff check .
	@"$(ENV)" -m ruff format --check .
	@"$(ENV)" -m pyright --pythonpath "$(ENV)"

env: require-python
	@$(BOOTSTRAP) full

require-python:
	@command -v $(PYTHON) >/dev/null || { echo "perception: no $(PYTHON) on this machine; install with: sudo apt-get install -y python3 python3-venv python3-dev make g++" >&2; exit 1; }
