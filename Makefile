# Every target sets itself up on first use: a virtual environment in .venv, and for the tests
# the servers and the Go toolchain that are missing.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
# Says every few seconds that a long command is still at work.
PROGRESS := examples/demo/progress.py
# Tests mostly wait. The tests of a file share servers and workers, and so a process.
WORKERS ?= -n 3 --dist loadfile

.PHONY: demo test lint bench clean servers format

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "machinery_compat needs Python 3.10 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) $(PROGRESS) "making $(VENV)" $(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a virtual environment here: install python3-venv (Debian, Ubuntu: apt-get install python3-venv)"; rm -rf $(VENV); exit 1; }

$(STAMP)-demo: setup.cfg pyproject.toml | $(PY)
	@$(PY) $(PROGRESS) "installing machinery_compat and what the demo needs" $(PIP) install --progress-bar off --editable '.[demo]'
	@touch $@

$(STAMP)-dev: setup.cfg pyproject.toml | $(PY)
	@$(PY) $(PROGRESS) "installing machinery_compat and what its tests need" $(PIP) install --progress-bar off --editable '.[dev]'
	@touch $@ $(STAMP)-demo

demo: $(STAMP)-demo  ## Go and Python workers share a queue, in one command
	@$(PY) examples/demo/demo.py

servers: $(STAMP)-dev
	@tests/support/install.sh $(PY)

test: servers  ## all tests, against real servers and a real Go Machinery
	$(PY) -m pytest $(WORKERS) $(TESTS)

lint: $(STAMP)-dev  ## style, types, architecture, links of the docs
	$(PY) -m tox run -q -e lint,types,architecture,docs

bench: servers  ## comparisons with plain Celery and with Go, ratios side by side
	$(PY) benchmarks/codec.py
	$(PY) benchmarks/throughput.py
	$(PY) benchmarks/throughput.py --broker amqp
	$(PY) benchmarks/chord.py

format: $(STAMP)-dev
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .

clean:
	rm -rf $(VENV) .cache .tox .mypy_cache .ruff_cache .pytest_cache
