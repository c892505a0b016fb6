# The same targets run by hand and in CI. `make demo` and `make test` set up all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PIP := $(INSTALL) -c constraints.txt
SOURCES := pyproject.toml constraints.txt
# All that the demo installs, with hashes; `make demo LOCK=` installs by constraints.txt instead.
LOCK ?= requirements-demo.txt
# Files of tests on every core; tests of a file share what they set up.
SIDE_BY_SIDE := -n auto --dist loadfile

.PHONY: help demo lock test browser lint types format coverage extras results clean

help: ## Say what can be made.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## Do the whole job on built-in photographs (installs no torch).
	$(BIN)/trustvlm demo --out demo-output

lock: $(BIN)/python ## Renew requirements-demo.txt, the versions and hashes of all that the demo installs.
	$(PIP) uv
	printf 'hatchling\neditables\n' | $(BIN)/uv pip compile pyproject.toml - --extra demo -c constraints.txt \
		--universal --python-version 3.11 --generate-hashes --no-annotate --upgrade --quiet \
		--custom-compile-command 'make lock' --output-file requirements-demo.txt

test: $(VENV)/.test ## Run all tests and doctests; OPTIONS are pytest's.
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(OPTIONS)

browser: $(VENV)/.browser ## Test the pages in Chromium, which must be installed.
	$(BIN)/python -m pytest tests/browser

coverage: ## Run the tests and show which lines they reach.
	$(MAKE) test OPTIONS='--cov --cov-report=term-missing:skip-covered'

lint: $(VENV)/.lint ## Check style.
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.lint $(VENV)/.test ## Check types, strictly.
	$(BIN)/mypy

format: $(VENV)/.lint ## Put the code into shape.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

extras: $(VENV)-extras/.done ## Test open_clip, timm (which need torchvision), Ray, S3 and datasets, apart from the rest.
	$(VENV)-extras/bin/python -m pytest $(SIDE_BY_SIDE) tests/models tests/bulk/test_bulk_ray.py tests/bulk/test_bulk_buckets.py \
		tests/test_s3.py tests/images/test_collections.py tests/adapters/test_dataset_columns.py

# Folders of embeddings: of real CLIP models, and of the offline models.
CLIP ?= ../shared/embeddings_clip
STANDINS ?= ../shared/embeddings

results: $(VENV)/.test ## Make docs/results.md and the README's table and figure anew, from embeddings.
	$(BIN)/python benchmarks/publish_results.py $(CLIP) $(STANDINS)

clean: ## Remove environments and outputs.
	rm -rf $(VENV) $(VENV)-extras demo-output .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

# torch stands on every line that could otherwise pull an unpinned one.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trustvlm needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# The hashes are for CPython 3.11 to 3.13, on any system. The project is built by what they cover, too.
$(VENV)/.demo: $(SOURCES) $(LOCK) | $(BIN)/python
	if [ -n "$(LOCK)" ] && $(BIN)/python -c 'import sys; sys.exit(sys.implementation.name != "cpython" or sys.version_info >= (3, 14))'; then \
		$(INSTALL) --require-hashes -r $(LOCK) && $(INSTALL) --no-deps --no-build-isolation -e . || \
		{ echo "Installing by the hashes of $(LOCK) failed. Without them: make demo LOCK="; exit 1; }; \
	else $(PIP) -e '.[demo]'; fi
	touch $@

$(VENV)/.test: $(SOURCES) | $(BIN)/python
	$(PIP) 'torch==2.13.0' -e '.[test,torch,torchmetrics]'
	touch $@ $(VENV)/.demo

$(VENV)/.browser: $(VENV)/.test
	$(PIP) -e '.[browser]'
	touch $@

$(VENV)/.lint: $(SOURCES) | $(BIN)/python
	$(PIP) -e '.[lint]'
	touch $@

$(VENV)-extras/.done: $(SOURCES)
	$(PYTHON) -m venv $(VENV)-extras
	$(VENV)-extras/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		'torch==2.13.0' -e '.[test,torch,openclip,timm,ray,s3-server,datasets]'
	touch $@
