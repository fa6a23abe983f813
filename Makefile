# Everything runs in .venv, which the first target that needs it makes.
# The first that can make an environment: the distribution's, because it is built with optimizations, then any.
ifndef PYTHON
PYTHON := $(shell for each in /usr/bin/python3.11 python3.11 python3; do $$each -c \
  'import ensurepip, sys; sys.version_info < (3, 11) and sys.exit(1)' 2>/dev/null && echo $$each && break; done)
endif
BIN := .venv/bin
# A second run reads what the first one compiled, the asserts of the tests among it.
unexport PYTHONDONTWRITEBYTECODE
# By file, since the tests of a file may share a server; in the order that tests/conftest.py gives. More than
# there are processors, since some of them always wait.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(5 * os.cpu_count() // 2, 12))')
PARALLEL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart=0
PURE := tests/test_architecture.py $(addprefix tests/,domain policy wire importers access engine)

.PHONY: demo test test-fast test-long test-envoy test-grpc test-lowest lint bench serve protos client docs format clean

.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or later with its module venv; set PYTHON=/path/to/it"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/.ready
	$(BIN)/authz demo

# Rewrites the asserts of the tests once, which else each of the processes that run them does at the same time. The
# tests themselves report what cannot be imported.
.venv/.compiled: .venv/.ready $(shell find tests -name '*.py')
	-@$(BIN)/pytest --collect-only --quiet --quiet > /dev/null
	@touch $@

test: .venv/.compiled
	$(BIN)/pytest $(PARALLEL)

test-fast: .venv/.ready
	HYPOTHESIS_PROFILE=fast $(BIN)/pytest --numprocesses auto --dist loadfile -m "not database" $(PURE)

test-long: .venv/.ready
	HYPOTHESIS_PROFILE=long $(BIN)/pytest $(PARALLEL)

# Whatever starts a server, over one transport. `make test` serves over grpc.aio inside the process of the tests,
# and over the default, Envoy, in processes of `authz serve`, but for some tests of faults of the store.
test-envoy test-grpc: .venv/.ready
	TRANSPORT=$(@:test-%=%) $(BIN)/pytest $(PARALLEL) $(addprefix --ignore=tests/,domain importers policy store)

# Installs the wheel with the lowest versions that it allows, and uses it. Needs PyPI.
test-lowest: .venv/.ready
	$(BIN)/python scripts/check_lowest.py

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_protos.py --check
	$(BIN)/buf lint
	$(BIN)/python scripts/generate_client.py --check
	$(BIN)/python scripts/generate_docs.py --check

bench: .venv/.ready
	$(BIN)/python -m tests.bench

serve: .venv/.ready
	$(BIN)/authz serve

protos: .venv/.ready
	$(BIN)/python scripts/generate_protos.py

client: .venv/.ready
	$(BIN)/python scripts/generate_client.py

docs: .venv/.ready
	$(BIN)/python scripts/generate_docs.py

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache
