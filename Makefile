# Each target does the set-up it needs; a second call costs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
READY := $(VENV)/.ready
# The theme's note on the next MkDocs is not ours to answer, and --strict must not meet it.
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

# Compiled once, not by each of the many processes that the tests start.
export PYTHONDONTWRITEBYTECODE =

.PHONY: install demo test test-fast lint docs bench torture torture-cluster clean

install: $(READY)

# constraints.txt pins the versions that were tested; pyproject.toml says what is needed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "vbpr needs Python 3.11 or newer; run make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster,demo,logging,openvino,remote,report,serve,tune,docs,dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/vbpr demo

test: $(READY)
	$(TESTS)

test-fast: $(READY)
	$(TESTS) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(SITE) build --strict --quiet --site-dir build/site

docs: $(READY)
	$(SITE) serve

bench: $(READY)
	$(BIN)/python bench/evaluate.py
	$(BIN)/python bench/train.py
	$(BIN)/python bench/extract.py --backbone inception --images 400
	$(BIN)/python bench/nearest.py
	$(BIN)/python bench/cluster.py
	$(BIN)/python bench/peers.py --planted 3000 9000 30000
	$(BIN)/vbpr extract --backbone lite0 --data sample --out artifacts/demo/lite0.h5
	$(BIN)/python bench/quality.py --data sample --features artifacts/demo/lite0.h5

torture: $(READY)
	$(BIN)/python tools/torture.py --kills 200

torture-cluster: $(READY)
	$(BIN)/python tools/torture_cluster.py --kills 100

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build
