# SPDX-License-Identifier: Apache-2.0
# make demo   replay a recorded sequence into a semantic map and a costmap
# make test   linters and all tests
# make lint   linters alone
# make test-jazzy PYTHON=python3.12   tests with the NumPy and OpenCV that Jazzy has from apt; without torch
# make env    build the full environment; the last line printed is the path of its python
# Environments are built once and kept in the user's cache. Choose another Python with PYTHON=python3.12.

PYTHON ?= python3
BOOTSTRAP = $(PYTHON) src/bootstrap.py
export PYTHONPATH := $(CURDIR)/src

.PHONY: demo test test-jazzy lint env require-python

demo: require-python
	@python=$$($(BOOTSTRAP) lean | tail -n 1) && test -n "$$python" && "$$python" -m perception demo --output demo_output

test: require-python
	@python=$$($(BOOTSTRAP) full | tail -n 1) && test -n "$$python" && $(MAKE) --no-print-directory test-with ENV="$$python"

# Three test processes side by side: those with ROS mostly wait, and training starts worker processes, which must not come
# from a process that other tests filled with threads. The output of each comes whole, at its end. What all need is
# compiled before. Bounds on time are in the tests of ROS, so the others step back.
.PHONY: test-with warmup-with pytest-ros pytest-training pytest-others
PARALLEL = $(MAKE) --no-print-directory --jobs=3 --keep-going --output-sync=target ENV="$(ENV)"
test-with:
	@$(PARALLEL) lint-with warmup-with
	@echo "pytest: three processes; the output of each comes at its end"
	@$(PARALLEL) pytest-others pytest-ros pytest-training

warmup-with:
	@"$(ENV)" -m perception warmup

# Messages over DDS get lost where processes wait for the processor: what failed is shown, and tried once more.
PYTEST_ROS = "$(ENV)" -m pytest -o cache_dir=.pytest_cache/ros tests/ros tests/launch
pytest-ros:
	@$(PYTEST_ROS) || { [ $$? -eq 1 ] && $(PYTEST_ROS) --last-failed --last-failed-no-failures=none; }

pytest-training:
	@nice "$(ENV)" -m pytest tests/training

pytest-others:
	@nice "$(ENV)" -m pytest --ignore=tests/ros --ignore=tests/launch --ignore=tests/training

test-jazzy: require-python
	@python=$$($(BOOTSTRAP) jazzy | tail -n 1) && test -n "$$python" && "$$python" -m perception warmup && "$$python" -m pytest --ignore=tests/training

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
