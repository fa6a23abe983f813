# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test test-lowest lint bench serve protos docs format clean

.venv/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "needs Python 3.11; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/.ready
	$(BIN)/authz demo

test: .venv/.ready
	$(BIN)/pytest

# Installs the wheel with the lowest versions that it allows, and uses it. Needs PyPI.
test-lowest: .venv/.ready
	$(BIN)/python scripts/check_lowest.py

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_protos.py --check
	$(BIN)/buf lint
	$(BIN)/python scripts/generate_docs.py --check

bench: .venv/.ready
	$(BIN)/python -m tests.bench

serve: .venv/.ready
	$(BIN)/authz serve

protos: .venv/.ready
	$(BIN)/python scripts/generate_protos.py

docs: .venv/.ready
	$(BIN)/python scripts/generate_docs.py

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache
